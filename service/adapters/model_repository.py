"""`Models` in a folder, see `model_folder`."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from service.adapters.model_folder import candidates
from service.adapters.model_trial import Trials
from service.adapters.onnx_file import UnusableModel
from service.adapters.onnx_model import MAX_MODEL_BYTES, OnnxModel
from service.core.errors import ModelMismatch, ModelNotFound
from service.core.ports import Failure
from service.core.session import ModelRef

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
        cls, folder: Path, *, max_batch: int, max_bytes: int = MAX_MODEL_BYTES, trials: Trials | None = None
    ) -> "ModelRepository":
        """Load and warm up every model in a folder. One that fails, however it does, does not stop the others.

        `max_bytes` is how large a file may be. With `trials` of the folder, only what has passed is loaded here.
        """
        models = []
        failures = []
        for path, complaint in candidates(folder) if trials is None else trials.candidates:
            relative = _printable(path.relative_to(folder))
            try:
                if complaint is not None:
                    raise UnusableModel(complaint)
                if trials is not None:
                    trials.wait_for(path)
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


def _printable(path: Path) -> str:
    """Return a path as text that any log and JSON can hold, whatever bytes its names are of."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
