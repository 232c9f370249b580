"""A model file that has its name only once it is verified, and leaves nothing behind when it is not."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_export.errors import InputError


def require_free(path: Path, force: bool) -> None:
    """Raises `InputError` when `path` exists and `force` is not set."""
    if path.exists() and not force:
        raise InputError(f"{path} exists: a version is not changed once it is there; use a new number, or --force")


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it becomes `path` at the end of the block, or goes when the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".onnx")
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        # mkstemp makes files that only their owner reads; a model is for the service's user too.
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
