"""Between two measurements the append-only file is on the disk alone."""

import os
from pathlib import Path

import pytest

from bench.page_cache import let_go

SIZE = 2**20


def in_memory(path: Path) -> bool:
    """Return whether the first byte of a file can be read without waiting for the disk."""
    with path.open("rb") as file:
        try:
            return bool(os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT))
        except BlockingIOError:
            return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose files the system can let go of, unlike those that are kept in memory alone."""
    (tmp_path / "tried").write_bytes(bytes(SIZE))
    with (tmp_path / "tried").open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        if in_memory(tmp_path / "tried"):
            pytest.skip("this file system does not let go of a file")
    except OSError as error:
        pytest.skip(f"this file system does not tell: {error}")
    return tmp_path


@pytest.mark.parametrize("name", ["appendonlydir/appendonly.aof.1.incr.aof", "appendonly.aof"])
def test_an_append_only_file_is_let_go_of_and_keeps_what_it_holds(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    content = os.urandom(SIZE)
    path.write_bytes(content)
    beside = folder / "conveyor.log"
    beside.write_bytes(content)
    assert in_memory(path)
    let_go(folder)
    assert not in_memory(path)
    assert in_memory(beside)
    assert path.read_bytes() == content


def test_a_folder_without_one_is_left_alone(tmp_path: Path) -> None:
    let_go(tmp_path)
    assert not list(tmp_path.iterdir())
