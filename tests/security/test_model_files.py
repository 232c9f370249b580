"""A model file is input: none of these is served, each says why, and none keeps the others from being served."""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from service.adapters import onnx_file, onnx_model
from service.adapters.model_repository import ModelRepository
from service.adapters.onnx_file import CHILDREN, UnusableModel, inspect
from service.adapters.onnx_model import OnnxModel
from service.core.errors import ModelFailed
from service.core.spec import MAX_DEPTH, MAX_ITEMS, MAX_JSON, MAX_SIZE, ModelSpec, SpecError
from tests.adapters.graphs import SPEC, accumulator, save, with_spec
from tests.api.wire import readings
from tests.security import hostile_models as hostile
from tests.servers import REPOSITORY, ConveyorCommand, RedisServer

GOOD = REPOSITORY / "models" / "hotspot"


def deep(depth: int) -> str:
    return json.dumps({**json.loads(SPEC.to_json()), "metrics": json.loads('{"a":' * depth + "1" + "}" * depth)})


def spec(**fields: Any) -> str:
    return json.dumps({**json.loads(SPEC.to_json()), **fields})


FILES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "external absolute": (lambda: hostile.outside("/etc/passwd"), "numbers are in another file"),
    "external upwards": (lambda: hostile.outside("../../../../etc/passwd"), "numbers are in another file"),
    "external beside it": (lambda: hostile.outside("model.onnx"), "numbers are in another file"),
    "external in an attribute": (hostile.outside_in_an_attribute, "numbers are in another file"),
    "external in a function": (hostile.outside_in_a_function, "numbers are in another file"),
    "external in a branch": (hostile.outside_in_a_branch, "numbers are in another file"),
    "another domain": (hostile.of_another_domain, "the operator 'Add' is of the domain 'evil.ops'; operators of"),
    "calls itself": (hostile.calling_itself, "the function 'F' calls itself"),
    "calls in a circle": (hostile.calling_in_a_circle, "calls itself"),
    "a bomb of functions": (lambda: hostile.ten_to_the(30), f"at most {onnx_file.MAX_NODES} are taken"),
    "leaks": (hostile.leaking, "depends on the rows beside it, which are other sessions'"),
    "thin state": (hostile.thin_state, "'next_s' came with the shape (1, 1), specified is (1, 2)"),
    "turned state": (hostile.turned_state, "'next_s' is declared as [2, 2]"),
    "turned outputs": (hostile.turned_outputs, "'y' came with the shape (1, 2, 2), specified is (2, 1, 2)"),
    "a spec too deep": (lambda: with_spec(accumulator(), deep(MAX_DEPTH)), f"nested more than {MAX_DEPTH} deep"),
    "a spec very deep": (lambda: with_spec(accumulator(), "[" * 100_000), "nested too deeply"),
    "a spec too long": (lambda: with_spec(accumulator(), spec(description="x" * MAX_JSON)), f"at most {MAX_JSON}"),
    "a spec with a NaN": (lambda: with_spec(accumulator(), spec(metrics={"mae": float("nan")})), "not JSON"),
    "a spec with digits": (lambda: with_spec(accumulator(), '{"format": ' + "9" * 5000 + "}"), "not JSON"),
    "a spec beyond float64": (
        lambda: with_spec(accumulator(), SPEC.to_json().replace('"metrics": {}', '"metrics": {"a": 1e999}')),
        "not JSON: Out of range",
    ),
    "half a surrogate pair": (lambda: with_spec(accumulator(), spec(description="\ud800")), "surrogates not allowed"),
    "a state beyond memory": (
        lambda: with_spec(accumulator(), spec(states=[{**json.loads(SPEC.to_json())["states"][0], "shape": [10**18]}])),
        f"states: they hold 1000000000000000000 numbers, at most {MAX_SIZE}",
    ),
    "too many features": (
        lambda: with_spec(accumulator(), spec(features=[{"name": str(i)} for i in range(MAX_ITEMS + 1)])),
        f"features: there are {MAX_ITEMS + 1}, at most {MAX_ITEMS}",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_means_harm_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    make, says = FILES[name]
    save(accumulator(), tmp_path, "good")
    save(make(), tmp_path, "hostile")
    repository = ModelRepository.load(tmp_path, max_batch=2)
    assert [model.ref.name for model in repository] == ["good"]
    (failure,) = repository.failures
    assert says in failure.reason


def test_what_a_service_meets_in_its_folder_keeps_no_good_model_from_being_served(
    tmp_path: Path, redis: RedisServer
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(GOOD, folder / "hotspot")
    elsewhere = save(accumulator(), tmp_path, "elsewhere")
    # A link that stays within is how volumes of an orchestrator are made.
    (folder / "inside" / "1").mkdir(parents=True)
    shutil.copy(elsewhere, folder / "kept.onnx")
    (folder / "inside" / "1" / "model.onnx").symlink_to("../../kept.onnx")
    reasons = {
        "link-out/1": "a link leads out of the repository",
        "dir-out/1": "a link leads out of the repository",
        "endless/1": "holds a file model.onnx",
        "pipe/1": "holds a file model.onnx",
        "circle/1": "holds a file model.onnx",
        "too-large/1": "more than 1000000 bytes",
        "constant/1": "Failed to allocate memory",
        "running/1": "Failed to allocate memory",
        "for-ever/1": "its trial took longer than 10 s",
        "bad\\xffname/1": "a model's name is",
        "new\\nline/1": "a model's name is",
    }
    for place in ("link-out/1", "endless/1", "pipe/1", "circle/1"):
        (folder / place).mkdir(parents=True)
    (folder / "link-out/1/model.onnx").symlink_to(elsewhere)
    (folder / "dir-out").symlink_to(elsewhere.parents[1])
    (folder / "endless/1/model.onnx").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe/1/model.onnx")
    (folder / "circle/1/model.onnx").symlink_to("model.onnx")
    save(b"x" * 1_000_001, folder, "too-large")
    save(hostile.asking_for(2**35, constant=True), folder, "constant")
    save(hostile.asking_for(2**33, constant=False), folder, "running")
    save(hostile.going_round(), folder, "for-ever")
    (folder / os.fsdecode(b"bad\xffname") / "1").mkdir(parents=True)
    (folder / "new\nline" / "1").mkdir(parents=True)

    with ConveyorCommand(
        redis_url=redis.url,
        models=folder,
        max_model_bytes=1_000_000,
        model_trial_s=10,
        model_trial_bytes=2 * 2**30,
    ) as service:
        ready = httpx.get(f"{service.url}/readyz", timeout=30).json()
        opened = httpx.post(f"{service.url}/v1/sessions", json={"model": "hotspot", "history": readings(2)}, timeout=30)
    assert (ready["ready"], ready["models"]) == (True, ["hotspot/1", "inside/1"])
    assert opened.json()["step"] == 2
    failed = {failure["path"].removesuffix("/model.onnx"): failure["reason"] for failure in ready["failed_models"]}
    assert failed.keys() == reasons.keys()
    for place, says in reasons.items():
        assert says in failed[place], failed[place]


def test_a_loop_that_a_clients_numbers_keep_going_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "MAX_LOOP_S", 0.5)
    model = OnnxModel.load(save(hostile.going_round(forever=False), tmp_path), "loop", "1")
    model.warm_up(2)
    state = np.zeros((1, 2), np.float32)
    assert model.run(np.ones((1, 1, 2), np.float32), state)[0].tolist() == [[[1, 1]]]
    started = time.monotonic()
    with pytest.raises(ModelFailed, match="terminate flag"):
        model.run(np.full((1, 1, 2), 2, np.float32), state)
    assert time.monotonic() - started < 20
    assert model.seconds(1, 1) == float("inf"), "it is never run on the event loop"


def test_what_is_looked_into_is_where_onnx_puts_graphs_nodes_and_tensors() -> None:
    """The table of messages against ONNX's own definition: nothing that can hold a node or a tensor is missing."""
    definitions = {
        descriptor.name: descriptor for descriptor in onnx.ModelProto.DESCRIPTOR.file.message_types_by_name.values()
    }
    for message, children in CHILDREN.items():
        fields = definitions[f"{message}Proto"].fields
        holding = {f.number: f.message_type.name.removesuffix("Proto") for f in fields if f.message_type is not None}
        assert children == {number: name for number, name in holding.items() if name in CHILDREN}
    tensor = {field.name: field.number for field in definitions["TensorProto"].fields}
    assert (tensor["external_data"], tensor["data_location"]) == (onnx_file.EXTERNAL_DATA, onnx_file.DATA_LOCATION)
    node = {field.name: field.number for field in definitions["NodeProto"].fields}
    assert (node["op_type"], node["domain"]) == (onnx_file.OP_TYPE, onnx_file.NODE_DOMAIN)
    function = {field.name: field.number for field in definitions["FunctionProto"].fields}
    assert (function["name"], function["domain"]) == (onnx_file.FUNCTION_NAME, onnx_file.FUNCTION_DOMAIN)


def test_operators_are_found_in_graphs_branches_and_functions() -> None:
    model = hostile.ten_to_the(2)
    assert {("", "Neg"), ("evil", "F0"), ("", "CumSum")} <= inspect(model.SerializeToString()).operators
    assert inspect(hostile.going_round().SerializeToString()).loops
    assert not inspect((GOOD / "1" / "model.onnx").read_bytes()).loops


@pytest.mark.parametrize("seed", range(50))
def test_a_damaged_file_is_read_or_refused(seed: int) -> None:
    draw = np.random.default_rng(seed)
    content = bytearray(accumulator().SerializeToString())
    for place in draw.integers(0, len(content), 5):
        content[place] = draw.integers(0, 256)
    for damaged in (bytes(content), bytes(content[: draw.integers(0, len(content))])):
        with suppress(UnusableModel):
            inspect(damaged)


def test_a_file_in_onnx_runtimes_own_format_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel):
        OnnxModel.load(save(b"\x18\0\0\0ORTM" + bytes(64), tmp_path), "ort", "1")


def test_a_specification_may_be_as_large_as_it_says() -> None:
    assert ModelSpec.from_json(deep(MAX_DEPTH - 1)).metrics
    with pytest.raises(SpecError):
        ModelSpec.from_json(deep(MAX_DEPTH))
