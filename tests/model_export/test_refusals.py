"""Modules that cannot be streamed are refused, with the reason."""

from typing import Any

import pytest
import torch
from networks import Head, TwoStacks
from torch import Tensor, nn

from model_export import describe, export_streaming
from model_export.errors import StreamingError
from service.core.spec import Axis, Output

FEATURES = ["a", "b", "c"]


class Forward(nn.Module):
    """A module whose forward is the function given."""

    def __init__(self, function: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor, states: Any) -> Any:
        return self.function(self, x, states)


def lstm(**options: Any) -> nn.LSTM:
    return nn.LSTM(3, 8, batch_first=True, **options)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lstm(bidirectional=True), "bidirectional: its backward pass starts at the last timestep"),
        (lstm(proj_size=4), "proj_size=4"),
        (lstm().double(), "not float32"),
        (nn.Linear(3, 4), "no nn.LSTM, nn.GRU or nn.RNN"),
        (Forward(None, cell=nn.LSTMCell(3, 8)), "cell is an nn.LSTMCell: a loop over timesteps is unrolled"),
        (Forward(lambda m, x, s: (m.rnn(x)[0], s), rnn=lstm()), "rnn is called without states"),
        (Forward(lambda m, x, s: m.rnn(x, s)[0], rnn=lstm()), r"return \(outputs, new_states\)"),
        (Forward(lambda m, x, s: (m.rnn(x, s)[0][:, -1], s), rnn=lstm()), r"begin with \(batch, time\)"),
        (Forward(lambda m, x, s: (m.rnn(x, s)[0], s[0]), rnn=lstm()), "have to match, to be carried"),
        (Forward(lambda m, x, s: (m.rnn(x, s)[0].double(), s), rnn=lstm()), "not float32"),
        (Forward(lambda m, x, s: ("text", s), rnn=lstm()), "a str stands where"),
        (Head(nn.LSTM(5, 8)), "forward fails on an x of .* features 3"),
        (Forward(None, a=lstm(), b=nn.GRU(3, 8)), "some recurrent layers are batch_first and some are not"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_describe_says_why_a_module_cannot_stream(module: nn.Module, message: str) -> None:
    with pytest.raises(StreamingError, match=message):
        describe(module, FEATURES)


def test_a_time_axis_that_is_unrolled_is_refused_at_export(tmp_path: Any) -> None:
    def loop(module: Any, x: Tensor, states: Any) -> Any:
        steps = []
        for time in range(x.shape[1]):
            y, states = module.rnn(x[:, time : time + 1], states)
            steps.append(y)
        return torch.cat(steps, dim=1), states

    module = Forward(loop, rnn=lstm())
    spec = describe(module, FEATURES)
    with pytest.raises(StreamingError, match=r"fixes batch or time.*loop over timesteps"):
        export_streaming(module, spec, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_outputs_have_to_fit(tmp_path: Any) -> None:
    with pytest.raises(StreamingError, match="names 1, but forward returns 2"):
        describe(TwoStacks(), FEATURES, outputs=["level"])
    wrong = Output("forecast", "forecast", axes=(Axis("horizon", (1, 2)),))
    with pytest.raises(StreamingError, match=r"lengths \(2,\), the tensor \(3,\)"):
        describe(Head(lstm()), FEATURES, outputs=[wrong])


def test_a_spec_of_another_module_is_refused(tmp_path: Any) -> None:
    spec = describe(Head(nn.LSTM(3, 16)), FEATURES)
    with pytest.raises(StreamingError, match=r"the spec's states have shapes .*16"):
        export_streaming(Head(nn.LSTM(3, 8)), spec, tmp_path / "model.onnx")
