"""What ``/v1/models`` tells of the demo model, held against the file itself."""

import hashlib

import httpx
import pytest

from tests.api.wire import FEATURES
from tests.servers import REPOSITORY

ROUTES = ("/v1/models/hotspot", "/v1/models/hotspot/versions/1")


@pytest.fixture(params=ROUTES)
def model(client: httpx.Client, request: pytest.FixtureRequest) -> dict[str, object]:
    response = client.get(request.param)
    assert response.status_code == 200
    return dict(response.json())


def test_the_list_holds_what_each_model_says_of_itself(client: httpx.Client, model: dict[str, object]) -> None:
    assert client.get("/v1/models").json() == {"models": [model]}


def test_a_model_says_which_file_it_is(model: dict[str, object]) -> None:
    content = (REPOSITORY / "models" / "hotspot" / "1" / "model.onnx").read_bytes()
    assert model["digest"] == hashlib.sha256(content).hexdigest()[:16]
    assert (model["model"], model["version"], model["versions"]) == ("hotspot", "1", ["1"])


def test_a_model_names_its_features_with_units_and_ranges(model: dict[str, list[dict[str, object]]]) -> None:
    features = {feature.pop("name"): feature for feature in model["features"]}
    assert tuple(features) == FEATURES
    assert features["ambient"]["unit"] == "°C"
    assert all(feature["minimum"] < feature["maximum"] for feature in features.values())


def test_a_model_names_the_axes_of_its_outputs_and_the_shapes_of_its_states(
    model: dict[str, list[dict[str, object]]],
) -> None:
    (output,) = model["outputs"]
    assert (output["name"], output["unit"]) == ("hot_spot", "°C")
    assert output["axes"] == [
        {"name": "horizon", "labels": list(range(1, 25))},
        {"name": "quantile", "labels": [0.1, 0.5, 0.9]},
    ]
    assert {state["name"] for state in model["states"]} == {"hidden", "cell"}
    assert all(state["shape"] for state in model["states"])


def test_a_model_tells_how_well_it_forecasts(
    model: dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]],
) -> None:
    scores = model["metrics"]["test"]["hot_spot"]
    assert 0 < scores["model"]["mae"] < scores["persistence"]["mae"]
