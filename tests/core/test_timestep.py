"""From what a client sends to rows of numbers, and from rows to named outputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidTimestep
from service.core.session import Values
from service.core.spec import Axis, Feature, ModelSpec, Output, State
from service.core.timestep import MAX_ABS, named, rows

SPEC = ModelSpec(
    features=(Feature("load"), Feature("ambient")),
    outputs=(
        Output("oil", "a", axes=(Axis("horizon", (1, 2)), Axis("quantile", (0.1, 0.5, 0.9)))),
        Output("alarm", "b"),
    ),
    states=(State("hidden", "h", "next_h", (4,), 0),),
)


@pytest.mark.parametrize(
    "values",
    [
        [1.5, 2.0],
        [1.5, 2],
        {"ambient": 2.0, "load": 1.5},
        [[1.5, 2.0]],
        ((1.5, 2.0),),
        np.array([[1.5, 2.0]], np.float32),
    ],
)
def test_a_timestep_may_come_in_any_of_these_forms(values: Values) -> None:
    x = rows(SPEC, values)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, [[1.5, 2.0]])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([], "x has 0 numbers; the model takes 2"),
        ([1.0], "x has 1 numbers; the model takes 2"),
        ([1.0, 2.0, 3.0], "x has 3 numbers"),
        ([[1.0, 2.0], [1.0]], r"x\[1\] has 1 numbers"),
        ([[1.0, 2.0], 3.0], r"x\[1\] is a number"),
        ([1.0, [2.0]], "not a number"),
        ([1.0, None], "ambient is nan"),
        ([1.0, "warm"], "not a number"),
        ({"load": 1.0}, "x lacks ambient"),
        ({}, "x lacks load, ambient"),
        ({"load": 1.0, "ambient": 2.0, "mood": 3.0}, "x names mood, unknown"),
        ([1.0, float("nan")], "ambient is nan in timestep 1 of 1"),
        ([float("-inf"), 1.0], "load is -inf"),
        ([[1.0, 2.0], [1.0, 2e18]], r"ambient is 2e\+18 in timestep 2 of 2"),
        ([10**400, 1.0], "not a number"),
    ],
)
def test_what_is_wrong_is_named(values: Values, complaint: str) -> None:
    with pytest.raises(InvalidTimestep, match=complaint) as caught:
        rows(SPEC, values)
    assert caught.value.fields["expected_features"] == ["load", "ambient"]


@given(st.lists(st.floats() | st.integers(), min_size=2, max_size=2))
def test_exactly_the_believable_numbers_pass(values: list[float]) -> None:
    believable = all(abs(value) <= MAX_ABS for value in values)
    try:
        x = rows(SPEC, values)
    except InvalidTimestep:
        assert not believable
    else:
        assert believable
        np.testing.assert_array_equal(x, np.array([values], np.float64).astype(np.float32))


@pytest.mark.parametrize("lead", [(), (5,)])
def test_outputs_are_cut_apart_by_name(lead: tuple[int, ...]) -> None:
    flat = np.arange(np.prod(lead, dtype=int) * 7, dtype=np.float32).reshape(*lead, 7)
    parts = named(SPEC, flat)
    assert parts["oil"].shape == (*lead, 2, 3)
    assert parts["alarm"].shape == lead
    assert all(part.flags.c_contiguous for part in parts.values())
    np.testing.assert_array_equal(parts["oil"].reshape(*lead, 6), flat[..., :6])
    np.testing.assert_array_equal(parts["alarm"], flat[..., 6])
