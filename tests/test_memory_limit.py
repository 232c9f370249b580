"""How much memory a process may use, as the files of control groups say it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.app import cache_bytes
from service.memory_limit import available_bytes
from service.settings import Settings
from service.trials import trials_at_once
from tests.process import REPOSITORY

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
UNLIMITED_V1 = 2**63 - 4096
MIB = 2**20


def system(root: Path, cgroup: str, **limits: object) -> Path:
    """Make a system's files: what it says of the process's groups, and limits by path, with dots for slashes."""
    files: dict[str, object] = {"proc/self/cgroup": cgroup}
    files |= {f"sys/fs/cgroup/{path}": limit for path, limit in limits.items()}
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{content}\n")
    return root


@pytest.mark.parametrize(
    ("cgroup", "limits", "expected"),
    [
        ("0::/", {"memory.max": 512 * MIB}, 512 * MIB),
        ("0::/", {"memory.max": "max"}, MACHINE),
        ("0::/", {"memory.max": 2**62}, MACHINE),
        ("0::/", {}, MACHINE),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": 64 * MIB}, 64 * MIB),
        ("0::/a/b", {"a/b/memory.max": 32 * MIB, "a/memory.max": 64 * MIB}, 32 * MIB),
        ("0::/../other", {"memory.max": 16 * MIB}, 16 * MIB),
        ("4:cpu,memory:/d\n3:pids:/d\n0::/", {"memory/d/memory.limit_in_bytes": 8 * MIB}, 8 * MIB),
        ("4:memory:/of/the/host", {"memory/memory.limit_in_bytes": 4 * MIB}, 4 * MIB),
        ("4:memory:/", {"memory/memory.limit_in_bytes": UNLIMITED_V1}, MACHINE),
    ],
)
def test_the_least_limit_of_the_groups_around_counts(
    tmp_path: Path, cgroup: str, limits: dict[str, object], expected: int
) -> None:
    assert available_bytes(system(tmp_path, cgroup, **limits)) == expected


def test_without_control_groups_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) == MACHINE


def test_a_shell_that_limits_address_space_counts() -> None:
    limited = f"ulimit -v {2**30 // 1024} && exec {sys.executable} -c"
    code = "'from service.memory_limit import available_bytes; print(available_bytes())'"
    found = subprocess.run(
        ["sh", "-c", f"{limited} {code}"], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert int(found.stdout) <= 2**30


def test_records_get_an_eighth_of_it_divided_by_the_workers() -> None:
    assert cache_bytes(Settings()) == available_bytes() // 8
    assert cache_bytes(Settings(workers=4)) == available_bytes() // 8 // 4
    assert cache_bytes(Settings(cache_mib=3, workers=4)) == 3 * MIB
    assert cache_bytes(Settings(cache_mib=0)) == 0


def test_models_are_tried_side_by_side_as_far_as_processors_and_memory_go(monkeypatch: pytest.MonkeyPatch) -> None:
    processors = len(os.sched_getaffinity(0))
    assert trials_at_once(Settings(model_trial_bytes=1)) == processors
    assert trials_at_once(Settings(model_trial_bytes=2**60)) == 1, "less memory than one may take"
    assert trials_at_once(Settings(model_trial_bytes=1, workers=2 * processors)) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert trials_at_once(Settings(model_trial_bytes=available_bytes() // 3)) == 3
