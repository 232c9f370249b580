"""What looks like models in a folder: ``<name>/<version>/model.onnx``, versions being whole numbers."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Candidate(NamedTuple):
    """Where a model's file should be, and what is wrong with that place, if anything is."""

    path: Path
    complaint: str | None


def candidates(folder: Path) -> Iterator[Candidate]:
    """Yield what looks like a model's file, in the order of the names; or the folder, where that cannot be read."""
    try:
        with os.scandir(folder):
            inside = folder.resolve()
    except OSError as error:
        yield Candidate(folder, f"the folder cannot be read: {error.strerror}")
        return
    for version in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        path = version / "model.onnx"
        complaint = None
        if not _NAME.fullmatch(version.parent.name):
            complaint = "a model's name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
        elif not _VERSION.fullmatch(version.name):
            complaint = "a version is a whole number from 1"
        elif not path.is_file():
            complaint = "the folder of a version holds a file model.onnx"
        elif not path.resolve().is_relative_to(inside):
            complaint = "a link leads out of the repository; models and what they link to are in its folder"
        yield Candidate(path, complaint)
