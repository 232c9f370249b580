"""`ModelSpec`: the contract between the exporter and the service."""

import json
from typing import Any

import pytest

from service.core.spec import Axis, Feature, ModelSpec, Output, SpecError, State

SPEC = ModelSpec(
    features=(Feature("load", "p.u.", 0.1, 1.3), Feature("ambient", "°C")),
    outputs=(
        Output("oil", "forecast_oil", "°C", (Axis("horizon", (1, 2, 3)), Axis("quantile", (0.1, 0.9)))),
        Output("alarm", "alarm"),
    ),
    states=(State("hidden", "h", "next_h", (2, 64), 1), State("level", "l", "next_l", (), 0)),
    sampling_period_s=900.0,
    description="A forecast.",
    metrics={"mae": 1.5},
    training={"cell": "lstm"},
)


def test_it_survives_its_json() -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC


def test_sizes_follow_from_shapes() -> None:
    assert SPEC.width == 2
    assert SPEC.outputs[0].shape == (3, 2)
    assert SPEC.output_size == 7
    assert SPEC.state_size == 129


def changed(path: str, value: Any) -> str:
    """The specification with one field replaced, or removed for `...`."""
    document = json.loads(SPEC.to_json())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = document
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("[]", "specification: an object is needed, not list"),
        (changed("format", 2), "format: 2 is not 1"),
        (changed("format", ...), "format: is missing"),
        (changed("features", []), "features: at least one"),
        (changed("features", {}), r"features: \{\} is not of type list"),
        (changed("features.1.name", "load"), "features: 'load' is there more than once"),
        (changed("features.0.name", 5), r"features\[0\].name: 5 is not of type str"),
        (changed("features.0.minimum", "low"), r"features\[0\].minimum"),
        (changed("features.0", "load"), r"features\[0\]: an object is needed"),
        (changed("outputs.0.tensor", "alarm"), "graph outputs: 'alarm' is there more than once"),
        (changed("outputs.0.axes.0.labels", []), r"outputs\[0\].axes\[0\].labels"),
        (changed("states", []), "states: at least one"),
        (changed("states.0.shape", [2, 0]), "states.hidden.shape"),
        (changed("states.0.shape", [2, 1.5]), r"states\[0\].shape"),
        (changed("states.0.batch_axis", 3), "states.hidden.batch_axis: 3 is not between 0 and 2"),
        (changed("states.0.batch_axis", True), r"states\[0\].batch_axis"),
        (changed("states.0.input", "x"), "graph inputs: 'x' is there more than once"),
        (changed("states.0.name", ""), "states: a name is empty"),
        (changed("sampling_period_s", "hourly"), "sampling_period_s"),
    ],
)
def test_what_is_wrong_is_named(text: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        ModelSpec.from_json(text)
