"""The commands beside ``serve``: what they print, and how they end."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.wire import readings, step, step_count
from tests.e2e.command import conveyor
from tests.servers import REPOSITORY, ConveyorCommand, ConveyorServer


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--help"], ("serve", "models", "sessions", "CONVEYOR_PORT")),
        (["serve", "--help"], ("--host", "--port", "--workers", "--models", "--redis-url", "--data-dir")),
        (["sessions", "--help"], ("list", "show", "delete")),
    ],
)
def test_help_names_what_there_is(args: list[str], says: tuple[str, ...]) -> None:
    done = conveyor(*args)
    assert done.returncode == 0
    assert all(word in done.stdout for word in says), done.stdout


@pytest.mark.parametrize("args", [["sreve"], ["sessions", "show"]])
def test_a_command_that_does_not_exist_ends_with_the_usage(args: list[str]) -> None:
    done = conveyor(*args)
    assert done.returncode == 2
    assert "--help" in done.stderr


def test_a_command_waits_for_no_library_that_it_does_not_need() -> None:
    heavy = {"fastapi", "numpy", "onnxruntime", "redis", "uvicorn"}
    code = f"import sys, service.__main__; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_models_are_listed_for_people_and_for_programs(client: httpx.Client) -> None:
    for_people = conveyor("models")
    assert for_people.returncode == 0
    assert for_people.stdout.startswith("hotspot/1\tload, ambient, ")
    assert for_people.stdout.endswith("-> hot_spot[24, 3]\n")
    (line,) = conveyor("models", "--json").stdout.splitlines()
    assert json.loads(line) == client.get("/v1/models/hotspot").json()


def test_a_folder_without_models_is_named(tmp_path: Path) -> None:
    done = conveyor("models", "--models", tmp_path)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr


@pytest.fixture(scope="module")
def embedded() -> Iterator[ConveyorServer]:
    """A service with its own redis-server, as one is without any setting; a test may leave it stopped."""
    with ConveyorCommand() as server:
        yield server


@pytest.mark.parametrize("running", [True, False], ids=["while the service runs", "while it does not"])
def test_sessions_are_listed_shown_and_deleted(embedded: ConveyorServer, running: bool) -> None:
    if not embedded.running:
        embedded.start()
    with httpx.Client(base_url=embedded.url) as client:
        for session_id, steps in {"pump-7": 3, "pump-8": 1}.items():
            client.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"})
            step(client, session_id, readings(steps))
        at = step_count(client, "pump-7")
    if not running:
        embedded.stop()

    data = {"data_dir": embedded.folder / "data"}
    listed = {tuple(line.split("\t")[:3]) for line in conveyor("sessions", "list", **data).stdout.splitlines()}
    assert ("pump-7", "hotspot/1", str(at)) in listed
    assert {session_id for session_id, *_ in listed} == {"pump-7", "pump-8"}
    shown = json.loads(conveyor("sessions", "show", "pump-7", **data).stdout)
    assert (shown["session_id"], shown["step"], shown["model"]) == ("pump-7", at, "hotspot")
    assert conveyor("sessions", "delete", "pump-8", **data).stdout == "deleted pump-8\n"
    gone = conveyor("sessions", "show" if running else "delete", "pump-8", **data)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "there is no session 'pump-8'" in gone.stderr
