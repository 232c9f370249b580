"""The example of the documents runs, and what it writes is what the documents say."""

import re
from pathlib import Path

import pytest
import torch

from model_export.runtime import StreamingModel

CONTRACT = Path(__file__).parents[2] / "docs/model-contract.md"


def test_your_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", CONTRACT.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(example, {})
    spec = StreamingModel(tmp_path / "models/mine/1/model.onnx").spec
    assert spec.feature_names == ("load", "ambient")
    assert [(output.name, output.shape) for output in spec.outputs] == [("top_oil", (1,))]
    assert [(state.name, state.shape) for state in spec.states] == [("hidden", (1, 32)), ("cell", (1, 32))]
