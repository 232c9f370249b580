"""The examples of the documents run, and what they write is what the documents say."""

import re
from pathlib import Path

import pytest
import torch

from model_export.runtime import StreamingModel

DOCS = Path(__file__).parents[2] / "docs"


def run_example(page: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    exec(example, {})


def test_your_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    run_example("model-contract.md")
    spec = StreamingModel(tmp_path / "models/mine/1/model.onnx").spec
    assert spec.feature_names == ("load", "ambient")
    assert [(output.name, output.shape) for output in spec.outputs] == [("top_oil", (1,))]
    assert [(state.name, state.shape) for state in spec.states] == [("hidden", (1, 32)), ("cell", (1, 32))]

    run_example("quantization.md")
    assert capsys.readouterr().out.startswith("top_oil differs by ")
    assert StreamingModel(tmp_path / "models/mine/2/model.onnx").spec.training["quantization"] == "int8"
