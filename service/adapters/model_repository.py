"""`Models` in a folder: ``<name>/<version>/model.onnx``, versions being whole numbers."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from service.adapters.model_trial import Trial
from service.adapters.onnx_file import UnusableModel
from service.adapters.onnx_model import MAX_MODEL_BYTES, OnnxModel
from service.core.errors import ModelMismatch, ModelNotFound
from service.core.ports import Failure
from service.core.session import ModelRef

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")

log = structlog.get_logger(__name__)


class ModelRepository:
    """See `service.core.ports.Models`. Made by `load`. Paths in `failures` are relative to the folder."""

    def __init__(self, models: list[OnnxModel], failures: list[Failure]) -> None:
        self.failures = failures
        self._by_ref = {model.ref: model for model in models}
        self._versions: dict[str, dict[str, OnnxModel]] = {}
        for model in sorted(models, key=lambda model: (model.ref.name, int(model.ref.version))):
            self._versions.setdefault(model.ref.name, {})[model.ref.version] = model

    @classmethod
    def load(
        cls, folder: Path, *, max_batch: int, max_bytes: int = MAX_MODEL_BYTES, trial: Trial | None = None
    ) -> "ModelRepository":
        """Load and warm up every model in a folder. One that fails, however it does, does not stop the others.

        `max_bytes` is how large a file may be. With a `trial` each is tried out in another process first.
        """
        models = []
        failures = []
        candidates = list(_candidates(folder))
        with ThreadPoolExecutor(trial.at_once if trial else 1, thread_name_prefix="trial") as pool:
            trials = {
                path: pool.submit(trial.run, path, max_batch=max_batch, max_bytes=max_bytes)
                for path, complaint in candidates
                if trial is not None and complaint is None
            }
            for path, complaint in candidates:
                relative = _printable(path.relative_to(folder))
                try:
                    if complaint is not None:
                        raise UnusableModel(complaint)
                    if path in trials:
                        trials[path].result()
                    models.append(_warm(path, relative, max_batch, max_bytes))
                except (UnusableModel, OSError, MemoryError) as error:
                    failures.append(Failure(relative, str(error) or type(error).__name__))
                    log.error("model not usable", model=relative, reason=failures[-1].reason)
                except Exception as error:
                    failures.append(Failure(relative, f"a defect of the service, see its log: {type(error).__name__}"))
                    log.exception("model not usable", model=relative)
        return cls(models, failures)

    def __iter__(self) -> Iterator[OnnxModel]:
        return iter(self._by_ref.values())

    def versions(self, name: str) -> dict[str, OnnxModel]:
        """Return a model's versions, the latest last. Raises `ModelNotFound`."""
        try:
            return self._versions[name]
        except KeyError:
            known = ", ".join(self._versions) or "none"
            raise ModelNotFound(f"there is no model {name[:80]!r}; there is: {known}") from None

    def find(self, name: str, version: str | None = None) -> OnnxModel:
        versions = self.versions(name)
        if version is None:
            return next(reversed(versions.values()))
        try:
            return versions[version]
        except KeyError:
            raise ModelNotFound(
                f"model {name!r} has no version {version[:20]!r}; it has: {', '.join(versions)}"
            ) from None

    def holding(self, ref: ModelRef) -> OnnxModel:
        try:
            return self._by_ref[ref]
        except KeyError:
            raise ModelMismatch(
                f"the session belongs to model {ref.name!r} version {ref.version} with digest {ref.digest.hex()}, "
                "which is not being served"
            ) from None


def _warm(path: Path, relative: str, max_batch: int, max_bytes: int) -> OnnxModel:
    started = time.perf_counter()
    model = OnnxModel.load(path, path.parts[-3], path.parts[-2], max_bytes=max_bytes)
    model.warm_up(max_batch)
    log.info("model ready", model=relative, seconds=round(time.perf_counter() - started, 3))
    return model


def _candidates(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield what looks like a model's file, with a complaint where its place is wrong."""
    inside = folder.resolve()
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
        yield path, complaint


def _printable(path: Path) -> str:
    """Return a path as text that any log and JSON can hold, whatever bytes its names are of."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
