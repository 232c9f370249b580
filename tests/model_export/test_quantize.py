"""int8 files keep every promise but equality with PyTorch, and say how far they are from it."""

import uuid
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import torch
from networks import Head, TwoStacks
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor, nn

from model_export import describe, export_streaming, quantize_file
from model_export.deviation import deviations
from model_export.errors import InputError, StreamingError, VerificationError
from model_export.quantize import to_int8
from model_export.runtime import StreamingModel
from model_export.verify import verify
from service.adapters.onnx_model import OnnxModel
from tests.servers import ConveyorServer, RedisServer

Array = NDArray[np.float32]
FEATURES = ["a", "b", "c"]
CELLS: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def exported(module: nn.Module, folder: Path) -> Path:
    path = folder / "float32.onnx"
    export_streaming(module, describe(module, FEATURES), path)
    return path


def network(cell: str, layers: int = 2) -> Head:
    torch.manual_seed(1)
    return Head(CELLS[cell](3, 16, layers, batch_first=True))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def rounded(weights: Array) -> Array:
    """`weights` (gates · hidden, inputs) as 64 steps to either side of 0 give them, row by row."""
    largest = np.abs(weights).max(axis=1, keepdims=True)
    step = np.where(largest > 0, largest, 1) / 64
    return np.rint(weights / step) * step


def by_hand(layer: nn.RNNBase, x: Array) -> Array:
    """`x` (time, features) through all of `layer`, written after PyTorch's equations, with what int8 rounds rounded."""
    for k in range(layer.num_layers):
        w, r, bw, br = (
            getattr(layer, f"{part}_l{k}").detach().double().numpy()
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, c, steps = np.zeros(layer.hidden_size), np.zeros(layer.hidden_size), []
        if k:
            w, x = rounded(w), np.rint(x * 127) / 127
        for row in x @ w.T + bw:
            past = rounded(r) @ (np.rint(h * 127) / 127) + br
            if isinstance(layer, nn.LSTM):
                i, f, g, o = np.split(row + past, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            elif isinstance(layer, nn.GRU):
                (row_r, row_z, row_n), (past_r, past_z, past_n) = np.split(row, 3), np.split(past, 3)
                z = sigmoid(row_z + past_z)
                h = (1 - z) * np.tanh(row_n + sigmoid(row_r + past_r) * past_n) + z * h
            else:
                h = np.tanh(row + past)
            steps.append(h)
        x = np.stack(steps)
    return x


@pytest.mark.parametrize("cell", CELLS)
def test_it_computes_what_it_says(cell: str, tmp_path: Path) -> None:
    module = network(cell)
    with torch.no_grad():
        # A gate that hears nothing of the past: its column of weights has no scale.
        module.rnn.weight_hh_l0[3] = 0
    path = tmp_path / "model.onnx"
    quantize_file(exported(module, tmp_path), path)
    model = StreamingModel(path)
    x = np.random.default_rng(0).standard_normal((1, 20, 3)).astype(np.float32)
    (found,), _ = model.run(x, model.zero_states(1))
    weight, bias = (part.detach().numpy() for part in (module.head.weight, module.head.bias))
    # A sum that lies on the edge between two whole numbers may fall to either side; elsewhere all digits agree.
    assert np.median(np.abs(found[0] - (by_hand(module.rnn, x[0]) @ weight.T + bias))) < 1e-6


@pytest.mark.parametrize("cell", CELLS)
def test_every_promise_is_kept(cell: str, tmp_path: Path) -> None:
    module, path = network(cell), tmp_path / "1" / "model.onnx"
    source = exported(module, tmp_path)
    found = quantize_file(source, path)
    assert [check.name for check in found.report.checks] == [
        "int8: batch and time are dynamic",
        "int8: every batch size runs",
        "int8: single steps alone give the same bits",
        "int8: 2,000 carried steps stay close to float32",
    ]
    (deviation,) = found.deviations
    assert 0 < deviation.mean < deviation.largest < 0.1
    onnx.checker.check_model(path)
    spec = StreamingModel(path).spec
    assert spec.training["quantization"] == "int8"
    assert spec.metrics["quantization"]["deviation"]["output"]["largest"] == deviation.largest
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_rows_of_a_served_batch_are_the_bits_of_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    quantize_file(exported(network("lstm"), tmp_path), path)
    model = OnnxModel.load(path, "model", "1")
    rng = np.random.default_rng(1)
    # Rows whose numbers are of very different sizes: a scale that a batch shares would tell them apart.
    x = (rng.standard_normal((64, 5, 3)) * np.logspace(-3, 3, 64)[:, None, None]).astype(np.float32)
    state = np.tanh(rng.standard_normal((64, 64))).astype(np.float32)
    together = model.run(x, state)
    for row in range(64):
        alone = model.run(x[[row]], state[[row]])
        assert all(a.tobytes() == b[row].tobytes() for a, b in zip(alone, together, strict=True))


def test_it_is_served_as_it_is(tmp_path: Path, redis: RedisServer) -> None:
    """Over HTTP, many sessions to a call, each gets what the file gives it alone."""
    path = tmp_path / "models" / "small" / "1" / "model.onnx"
    quantize_file(exported(network("gru"), tmp_path), path)
    model = StreamingModel(path)
    x = np.random.default_rng(2).standard_normal((24, 6, 3)).astype(np.float32)
    with ConveyorServer(redis_url=redis.url, models=tmp_path / "models") as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            ids = [f"int8-{uuid.uuid4()}" for _ in x]
            for session in ids:
                client.put(f"/v1/sessions/{session}", json={"model": "small"}).raise_for_status()
            for time in range(x.shape[1]):
                steps = [
                    {"session_id": session, "x": row.tolist(), "step": time + 1}
                    for session, row in zip(ids, x[:, time], strict=True)
                ]
                results = client.post("/v1/steps", json={"steps": steps}).raise_for_status().json()["results"]
    for row, result in zip(x, results, strict=True):
        (alone,), _ = model.run(row[None], model.zero_states(1))
        assert np.array_equal(np.array(result["outputs"]["output"], np.float32), alone[0, -1])


def test_onnxruntimes_own_quantisation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(exported(network("lstm"), tmp_path), path)
    assert [check.name for check in verify(path).checks if not check.passed] == [
        "single steps alone give the same bits"
    ]


def test_no_sum_of_two_products_leaves_16_bits(tmp_path: Path) -> None:
    model = to_int8(onnx.load(exported(network("lstm"), tmp_path)))
    weights = [
        numpy_helper.to_array(tensor).astype(int)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT8
    ]
    assert [array.shape for array in weights] == [(16, 64)] * 3
    assert 2 * 255 * max(np.abs(array).max() for array in weights) <= np.iinfo(np.int16).max


def kinds(module: nn.Module, folder: Path) -> list[str]:
    """The functions that stand for the layers of `module`."""
    model = to_int8(onnx.load(exported(module, folder)))
    return [node.op_type for node in model.graph.node if node.domain == "conveyor.int8"]


def test_only_hidden_states_are_rounded(tmp_path: Path) -> None:
    class Amplified(TwoStacks):
        def forward(self, x: Tensor, states: Any) -> tuple[tuple[Tensor, Tensor], Any]:
            encoded, first = self.encoder(x, states[0])
            decoded, second = self.decoder(encoded * 5, states[1])
            return (self.level(decoded), decoded), (first, second)

    assert kinds(TwoStacks(), tmp_path / "a") == ["LSTM", "Project", "LSTM", "Project", "GRU"]
    assert kinds(Amplified(), tmp_path / "b") == ["LSTM", "Project", "LSTM", "GRU"]


def test_a_state_without_bounds_is_refused(tmp_path: Path) -> None:
    module = Head(nn.RNN(3, 8, nonlinearity="relu"))
    path = tmp_path / "1" / "model.onnx"
    with pytest.raises(StreamingError, match=r'"relu" cannot be quantised.*LSTM, GRU and tanh RNN can be'):
        quantize_file(exported(module, tmp_path), path)
    assert not path.exists()


def test_a_file_is_quantised_once(tmp_path: Path) -> None:
    path, again = tmp_path / "model.onnx", tmp_path / "again.onnx"
    source = exported(network("gru"), tmp_path)
    quantize_file(source, path)
    with pytest.raises(StreamingError, match="no LSTM, GRU or RNN layer in float32"):
        quantize_file(path, again)
    before = path.read_bytes()
    with pytest.raises(InputError, match="--force"):
        quantize_file(source, path)
    quantize_file(source, path, force=True)
    assert path.read_bytes() == before


def test_a_network_that_does_not_bear_rounding_is_refused(tmp_path: Path) -> None:
    source, path = exported(network("rnn", layers=1), tmp_path), tmp_path / "1" / "model.onnx"
    model = onnx.load(source)
    # Far beyond the edge of chaos any two trajectories part.
    chaotic = nn.init.normal_(torch.empty(16, 16), 0, 0.5, generator=torch.Generator().manual_seed(0))
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [1, 48, 16]:
            values = numpy_helper.to_array(tensor).copy()
            values[0, 32:] = chaotic.numpy()
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, source)
    with pytest.raises(VerificationError, match="stay close to float32: output differs by"):
        quantize_file(source, path)
    assert list(path.parent.iterdir()) == []


def test_what_is_no_number_is_not_close(tmp_path: Path) -> None:
    spec = StreamingModel(exported(network("gru"), tmp_path)).spec
    reference = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    for wrong in (np.nan, np.inf):
        found = reference.copy()
        found[50, 1] = wrong
        (deviation,) = deviations(spec, [found], [reference])
        assert (deviation.mean, deviation.largest, deviation.acceptable) == (np.inf, np.inf, False)
    (deviation,) = deviations(spec, [reference + np.float32(0.01)], [reference])
    assert deviation.mean == pytest.approx(0.01, rel=1e-3)
    assert deviation.scale == pytest.approx(reference.std())
    assert deviation.acceptable
