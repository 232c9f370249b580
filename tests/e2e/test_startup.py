"""What a new user sees first: a line that works when pasted, or a clear word on what to mend."""

import json
import re
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.command import conveyor
from tests.servers import ConveyorCommand, RedisServer, free_port

TAKEN, NO_REDIS = "{taken}", "redis://127.0.0.1:{free}/0"

ERRORS = {
    "a port that is taken": (["--port", TAKEN], ("cannot listen on", "Choose another with --port")),
    "a port that cannot be": (["--port", "99999"], ("--port", "less than or equal to 65535")),
    "an address that is not ours": (["--host", "203.0.113.1"], ("cannot listen on 203.0.113.1",)),
    "no worker": (["--workers", "0"], ("--workers", "greater than 0")),
    "an unknown log level": (["--log-level", "loud"], ("--log-level", "'debug', 'info', 'warning' or 'error'")),
    "a Redis that is not there": (["--redis-url", NO_REDIS], ("Redis cannot be used", "is Redis running?")),
    "a URL of another kind": (
        ["--redis-url", "http://x"],
        ("'http://x'", "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster://"),
    ),
    "a URL without a port number": (
        ["--redis-url", "redis://127.0.0.1:x/0"],
        ("redis://127.0.0.1:x/0", "CONVEYOR_REDIS_URL"),
    ),
    "no models": (["--models", "{empty}"], ("no model can be served from {empty}", "<name>/<version>/model.onnx")),
    "broken models alone": (["--models", "{broken}"], ("no model can be served", "bad/1/model.onnx: ")),
    "no models for two workers": (["--models", "{empty}", "--workers", "2"], ("no model can be served from {empty}",)),
    "no Redis for two workers": (["--redis-url", NO_REDIS, "--workers", "2"], ("Redis cannot be used",)),
    "no store that two workers could share": (
        ["--redis-url", "memory://", "--workers", "2"],
        ("several workers need a Redis to share", "CONVEYOR_REDIS_URL"),
    ),
    "a port that is taken, for two workers": (["--port", TAKEN, "--workers", "2"], ("cannot listen on",)),
    "a data folder that cannot be": (["--data-dir", "{file}/data"], ("{file}/data", "Set CONVEYOR_DATA_DIR")),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_prevents_a_start_is_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    args, says = ERRORS[name]
    places = {"empty": tmp_path / "empty", "broken": tmp_path / "broken", "file": tmp_path / "file"}
    places["empty"].mkdir()
    places["file"].touch()
    (places["broken"] / "bad" / "1").mkdir(parents=True)
    (places["broken"] / "bad" / "1" / "model.onnx").write_bytes(b"not a model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = places | {"taken": taken.getsockname()[1], "free": free_port()}
        settings = {} if "--data-dir" in args or "--redis-url" in args else {"redis_url": "memory://"}
        if "--workers" in args and "2" in args:
            settings = {"data_dir": tmp_path / "data"}
        done = conveyor("serve", "--port", "0", *(arg.format(**values) for arg in args), **settings)
    output = done.stdout + done.stderr
    assert done.returncode not in (0, None), output
    assert "Traceback" not in output
    for fragment in says:
        assert output.count(fragment.format(**values)) == 1, output


def test_the_printed_line_works_when_pasted(redis: RedisServer) -> None:
    with ConveyorCommand(redis_url=redis.url) as service:
        banner = service.output()
        assert f"Conveyor listens on {service.url}\n" in banner
        (line,) = re.findall(r"^curl .*$", banner, re.MULTILINE)
        answers = [
            json.loads(subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout) for _ in "ab"
        ]
    assert [answer["step"] for answer in answers] == [1, 2]
    assert len(answers[0]["outputs"]["hot_spot"]) == 24


@pytest.mark.parametrize("workers", [1, 2])
def test_two_services_on_one_data_folder_are_told_apart(workers: int, tmp_path: Path) -> None:
    with ConveyorCommand(data_dir=tmp_path, workers=workers) as first:
        second = conveyor("serve", "--port", "0", data_dir=tmp_path, workers=workers)
        assert second.returncode != 0
        assert "Traceback" not in second.stderr
        for says in (str(tmp_path), f"belongs to another running service: pid {first.pid}", "CONVEYOR_DATA_DIR"):
            assert says in second.stderr
        assert httpx.get(f"{first.url}/readyz").status_code == 200
