"""The demo model at other widths, untrained: how fast it runs does not depend on what it has learnt."""

from dataclasses import replace
from pathlib import Path

import onnxruntime as ort
import torch

from bench.reference import MODEL, MODEL_NAME
from model_export.config import TrainConfig
from model_export.network import Forecaster
from model_export.split import Scaling
from model_export.streaming import export_streaming
from service.core.spec import SPEC_KEY, ModelSpec

LAYERS = 2
DEMO_HIDDEN = 64


def model_of(hidden: int, folder: Path) -> Path:
    """Return the file of a model with `hidden` units a layer, in a repository of its own; the demo model itself at 64.

    Features and outputs are the demo model's, the scaling is made of its features' ranges.
    """
    if hidden == DEMO_HIDDEN:
        return MODEL
    spec = ModelSpec.from_json(ort.InferenceSession(MODEL).get_modelmeta().custom_metadata_map[SPEC_KEY])
    ranges = {feature.name: (feature.minimum or 0.0, feature.maximum or 1.0) for feature in spec.features}
    scaling = {name: Scaling((low + high) / 2, (high - low) / 4 or 1.0) for name, (low, high) in ranges.items()}
    (output,) = spec.outputs
    torch.manual_seed(0)
    config = TrainConfig(
        features=spec.feature_names, targets=(output.name,), horizon=output.shape[0], layers=LAYERS, hidden=hidden
    )
    spec = replace(
        spec,
        states=tuple(replace(state, shape=(LAYERS, hidden)) for state in spec.states),
        description="untrained, for measuring",
        metrics={},
        training={},
    )
    path = folder / str(hidden) / MODEL_NAME / "1" / "model.onnx"
    # A width that is no multiple of the kernels' may differ in its last bits from batch to batch.
    export_streaming(Forecaster(config, scaling), spec, path, bit_exact=False)
    return path
