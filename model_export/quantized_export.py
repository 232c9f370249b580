"""A verified model file in, its int8 version out: verified too, with what it costs measured and written into it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from model_export.backtest import stream
from model_export.deviation import Deviation, deviations
from model_export.draft import drafted, require_free
from model_export.quantize import INT8, to_int8
from model_export.runtime import Array, StreamingModel
from model_export.scoring import Means
from model_export.verify import PARITY_STEPS, Check, Report, inputs, verify
from service.core.spec import SPEC_KEY, ModelSpec

Judge = Callable[[StreamingModel, list[Array]], Mapping[str, Means]]
"""Each target's scores, of the outputs (rows, …) that a model has given for the rows it was measured on."""


@dataclass(frozen=True)
class Quantized:
    """The verification of an int8 file, and its cost over `rows` carried steps: against the float32 file it was made
    from, and in scores, where there was somebody to judge. Both scores are by target."""

    report: Report
    rows: int
    deviations: tuple[Deviation, ...]
    scores: Mapping[str, Means]
    float_scores: Mapping[str, Means]

    def to_json(self) -> dict[str, Any]:
        """What the file says of it, as ``metrics.quantization``."""
        return {
            "rows": self.rows,
            "deviation": {each.name: each.to_json() for each in self.deviations},
            "test": {name: {"float32": self.float_scores[name], INT8: self.scores[name]} for name in self.scores},
        }


def quantize_file(
    source: str | Path,
    path: str | Path,
    rows: Array | None = None,
    *,
    judge: Judge | None = None,
    bit_exact: bool = True,
    force: bool = False,
) -> Quantized:
    """Write to `path` the model file `source` with int8 weights in its recurrent layers.

    `rows` (rows, features) in raw units are streamed through both files to measure how far apart they are; without
    them it is 2,000 random rows over the range of the train rows. The specification says that the file is quantised
    (``training.quantization``) and what it costs (``metrics.quantization``). `bit_exact` as in `export_streaming`.

    Raises `StreamingError` for layers that cannot be quantised, `VerificationError` where the file does not do what it
    promises or is not close to `source`, and `InputError` where `source` is no model file or `path` exists.
    """
    source, path = Path(source), Path(path)
    require_free(path, force)
    exact = StreamingModel(source)
    graph = to_int8(onnx.load(source))
    spec = replace(exact.spec, training={**exact.spec.training, "quantization": INT8})
    with drafted(path) as draft:
        _save(graph, spec, draft)
        found = _measure(draft, exact, _random_rows(exact) if rows is None else rows, judge, bit_exact)
        found.report.require()
        _save(graph, replace(spec, metrics={**spec.metrics, "quantization": found.to_json()}), draft)
    return found


def _measure(draft: Path, exact: StreamingModel, rows: Array, judge: Judge | None, bit_exact: bool) -> Quantized:
    checks = verify(draft, bit_exact=bit_exact).checks
    rounded = StreamingModel(draft)
    ours, theirs = stream(rounded, rows), stream(exact, rows)
    apart = tuple(deviations(exact.spec, ours, theirs))
    close = Check(
        f"{len(rows):,} carried steps stay close to float32",
        all(each.acceptable for each in apart),
        "; ".join(map(str, apart)),
    )
    return Quantized(
        Report(tuple(replace(check, name=f"{INT8}: {check.name}") for check in (*checks, close))),
        len(rows),
        apart,
        judge(rounded, ours) if judge else {},
        judge(exact, theirs) if judge else {},
    )


def _random_rows(model: StreamingModel) -> Array:
    rows: Array = inputs(model, 1, PARITY_STEPS, seed=0)[0]
    return rows


def _save(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    onnx.helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
    onnx.save(model, path)
