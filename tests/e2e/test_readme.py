"""The README's examples run as they stand there, and print what it shows."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from tests.servers import REPOSITORY, ConveyorServer

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def session_part(url: str) -> str:
    """The section of the first session, told to talk to a service of the test's own."""
    (part,) = re.findall(r"\n## A session\n(.*?)\n## ", README, re.DOTALL)
    return part.replace("ws://localhost:8000", url.replace("http", "ws")).replace("localhost:8000", url)


def commands(part: str) -> list[tuple[str, str]]:
    """Each curl command with the output below it."""
    blocks = re.findall(r"```console\n(.*?)```", part, re.DOTALL)
    return re.findall(r"\$ (curl (?:[^'\n]|'[^']*')*)\n(.*)", "\n".join(blocks))


def looks_like(printed: str, shown: str) -> bool:
    """Whether they are equal up to where `shown` breaks off, but for the clock and the last digits of numbers."""
    shown = re.split(r",…", shown)[0]
    clock = re.compile(r'"expires_at":"[^"]*"')
    numbers = re.compile(r"-?\d+\.\d+")
    if numbers.sub("#", clock.sub("", shown)) not in numbers.sub("#", clock.sub("", printed)):
        return False
    pairs = zip(numbers.findall(clock.sub("", printed)), numbers.findall(clock.sub("", shown)), strict=False)
    return all(float(a) == pytest.approx(float(b), rel=1e-4) for a, b in pairs)


def test_the_first_session(service: ConveyorServer) -> None:
    part = session_part(service.url)
    (opening, opened), (stepping, stepped), (skipping, skipped) = commands(part)
    for command, shown in ((opening, opened), (stepping, stepped)):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=20)
        assert looks_like(done.stdout, shown), (done.stdout, shown)
    ((program, shown),) = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", part, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    assert looks_like(done.stdout, shown), done.stdout
    done = subprocess.run(shlex.split(skipping), capture_output=True, text=True, check=True, timeout=20)
    assert json.loads(done.stdout) == json.loads(skipped)


def test_the_ten_lines_are_those_of_the_model_contract() -> None:
    (lines,) = re.findall(r"## Your own LSTM in ten lines\n\n```python\n(.*?)```", README, re.DOTALL)
    assert lines in (REPOSITORY / "docs" / "model-contract.md").read_text(encoding="utf-8")


def test_every_link_leads_somewhere() -> None:
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(REPOSITORY)} links to {target}"


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)\b", README))
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
