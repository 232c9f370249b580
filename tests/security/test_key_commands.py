"""``conveyor keys``: a key is told once, and kept as a hash."""

import hashlib
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service import key_commands
from service.adapters import key_file
from service.adapters.api_keys import ApiKeys
from service.adapters.file_lock import FileLock
from service.core.access import Scope
from service.core.errors import Unauthenticated
from tests.e2e.command import conveyor
from tests.security.credentials import KeyRing


def test_a_key_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    options = ("--tenant", "plant-1", "--name", "gateway", "--scope", "step", "--scope", "sessions")
    done = conveyor("keys", "create", *options, "--rate", "50", "--burst", "100", api_keys=path)
    assert done.returncode == 0, done.stderr
    key = done.stdout.strip()
    public, secret = key[:20], key[21:]
    assert len(secret) == 43, "256 bits in base64"
    written = path.read_text()
    assert secret not in written
    assert hashlib.sha256(secret.encode()).hexdigest() in written
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    principal = ApiKeys(path).known(key.encode())
    assert principal[:5] == ("plant-1", "gateway", {Scope.STEP, Scope.SESSIONS}, 50.0, 100)
    assert principal.credential == public

    other = conveyor("keys", "create", "--tenant", "plant-1", "--name", "gateway", "--scope", "metrics", api_keys=path)
    listed = conveyor("keys", "list", "--api-keys", path).stdout.splitlines()
    assert [line.split("\t")[1:] for line in listed] == [
        ["plant-1", "gateway", "sessions,step", "never"],
        ["plant-1", "gateway", "metrics", "never"],
    ]
    assert secret not in str(listed)
    assert conveyor("keys", "revoke", public, api_keys=path).stdout == f"revoked {public}\n"
    keys = ApiKeys(path)
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.known(key.encode())
    assert keys.known(other.stdout.strip().encode()).scopes == {Scope.METRICS}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


COMMAND_ERRORS = {
    "no file is named": (["list"], None, "--api-keys or CONVEYOR_API_KEYS"),
    "no file is there": (["list"], "absent.json", "Make it with conveyor keys create"),
    "no key of that id": (["revoke", "cvy_0123456789abcdef"], "keys.json", "no key with the id cvy_0123456789abcdef"),
    "a tenant with a colon": (
        ["create", "--tenant", "a:b", "--name", "n", "--scope", "step"],
        "keys.json",
        "$.tenant",
    ),
    "a scope that is none": (["create", "--name", "n", "--scope", "fly"], "keys.json", "'step', 'sessions'"),
    "no scope": (["create", "--name", "n"], "keys.json", "--scope"),
    "a rate of nothing": (["create", "--name", "n", "--scope", "step", "--rate", "0"], "keys.json", "$.rate_per_s"),
    "a folder that is not there": (["create", "--name", "n", "--scope", "step"], "x/keys.json", "cannot be written"),
    "not a file of keys": (["list"], "other.json", "is not a file of API keys"),
}


@pytest.mark.parametrize("case", COMMAND_ERRORS)
def test_what_cannot_be_done_is_said(case: str, tmp_path: Path) -> None:
    arguments, file, fragment = COMMAND_ERRORS[case]
    KeyRing(tmp_path / "keys.json")
    (tmp_path / "other.json").write_text('{"keys": [{"id": 1}]}')
    environment = {"CONVEYOR_API_KEYS": None if file is None else str(tmp_path / file)}
    done = CliRunner().invoke(key_commands.cli, arguments, env=environment)
    assert done.exit_code in (1, 2), done.exception
    assert fragment in " ".join(done.stderr.replace("│", " ").split()), done.stderr


def test_a_file_keeps_its_mode_and_its_lock_keeps_commands_apart(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create = ("create", "--name", "n", "--scope", "step", "--api-keys", str(path))
    assert CliRunner().invoke(key_commands.cli, create).exit_code == 0
    path.chmod(0o640)
    assert CliRunner().invoke(key_commands.cli, create).exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    lock = FileLock(tmp_path / "keys.json.lock")
    assert lock.acquire()
    try:
        done = CliRunner().invoke(key_commands.cli, create)
        assert done.exit_code == 1
        assert "another command is changing" in done.stderr
    finally:
        lock.close()
    assert CliRunner().invoke(key_commands.cli, create).exit_code == 0
    assert len(key_file.read(path)) == 3
    assert {entry.name for entry in tmp_path.iterdir()} == {"keys.json", "keys.json.lock"}
