"""A model that cannot be served is named, in the log and in readiness, and the others are served all the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import onnx

from tests.api.wire import readings
from tests.e2e.command import conveyor
from tests.servers import REPOSITORY, ConveyorCommand, RedisServer

GOOD = REPOSITORY / "models" / "hotspot"
SPEC = "conveyor.spec"


def _spec(model: onnx.ModelProto) -> onnx.StringStringEntryProto:
    return next(item for item in model.metadata_props if item.key == SPEC)


def _without_spec(model: onnx.ModelProto) -> None:
    model.metadata_props.remove(_spec(model))


def _with_another_output(model: onnx.ModelProto) -> None:
    spec = json.loads(_spec(model).value)
    spec["outputs"][0]["tensor"] = "elsewhere"
    _spec(model).value = json.dumps(spec)


def _with_a_feature_less(model: onnx.ModelProto) -> None:
    spec = json.loads(_spec(model).value)
    del spec["features"][0]
    _spec(model).value = json.dumps(spec)


def _with_half_a_spec(model: onnx.ModelProto) -> None:
    _spec(model).value = _spec(model).value[:50]


def _of_the_future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "no-spec/1": (_without_spec, "has no conveyor.spec in its metadata; export it with conveyor-export"),
    "half-spec/1": (_with_half_a_spec, "conveyor.spec: not JSON"),
    "other-output/1": (_with_another_output, "names the output 'elsewhere', which the graph does not have"),
    "other-width/1": (_with_a_feature_less, "the input 'x' is declared as"),
    "opset/1": (_of_the_future, "999"),
}
MISPLACED = {
    "bytes/1": "protobuf parsing failed",
    "empty/1": "holds a file model.onnx",
    "hotspot/latest": "a version is a whole number from 1",
    "hot spot/1": "a model's name is 1 to 64 of",
}


def test_a_broken_model_is_named_and_stops_no_other(tmp_path: Path, redis: RedisServer) -> None:
    shutil.copytree(GOOD, tmp_path / "hotspot")
    for place, (break_, _) in BROKEN.items():
        model = onnx.load(str(GOOD / "1" / "model.onnx"))
        break_(model)
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.onnx").write_bytes(model.SerializeToString())
    for place in MISPLACED:
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "bytes/1/model.onnx").write_bytes(b"not a model")
    (tmp_path / "README.md").write_text("not a model either")
    reasons = {f"{place}/model.onnx": says for place, (_, says) in BROKEN.items()}
    reasons |= {f"{place}/model.onnx": says for place, says in MISPLACED.items()}

    with ConveyorCommand(redis_url=redis.url, models=tmp_path) as service:
        ready = httpx.get(f"{service.url}/readyz").json()
        steps = httpx.post(f"{service.url}/v1/sessions", json={"model": "hotspot", "history": readings(2)})
        log = service.output()
    assert (ready["ready"], ready["models"]) == (True, ["hotspot/1"])
    failed = {failure["path"]: failure["reason"] for failure in ready["failed_models"]}
    assert failed.keys() == reasons.keys()
    listed = conveyor("models", "--models", tmp_path)
    assert (listed.returncode, listed.stdout.count("\n")) == (1, 1)
    for path, says in reasons.items():
        assert says in failed[path]
        assert f"{path}: {failed[path]}\n" in listed.stderr
        assert path in log
    assert steps.json()["step"] == 2
