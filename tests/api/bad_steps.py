"""Steps that must be refused, as bytes on the wire. `SESSION` stands where the session's id goes, if there is one."""

import json
from typing import NamedTuple

from tests.api.wire import FEATURES, readings

ROW = json.dumps(readings(1)[0])
NAMED = json.dumps(dict(zip(FEATURES, readings(1)[0], strict=True)))
HUGE = "9" * 400


class BadStep(NamedTuple):
    """A message of one session's step, the error's code, and what its `detail` must say."""

    what: str
    message: str | bytes
    code: str
    says: tuple[str, ...]
    status: int = 422

    @property
    def text(self) -> str:
        return self.message if isinstance(self.message, str) else self.message.decode("latin-1")


def _row(first: str) -> str:
    """A good timestep but for its first number."""
    return f'{{"x": [{first}, 2, 3, 4, 5, 6, 7, 8]}}'


def _x(x: str) -> str:
    return f'{{"x": {x}}}'


def _with(fields: str) -> str:
    return f'{{"x": {ROW}, {fields}}}'


_REQUEST = "invalid_request"
_TIMESTEP = "invalid_timestep"
_NOT_JSON = "the message is not JSON"
_WIDTH = "the model takes 8 per timestep"

BAD_STEPS = [
    # Not JSON at all
    BadStep("an empty message", "", _REQUEST, (_NOT_JSON, "truncated")),
    BadStep("half a message", '{"x": [1, 2', _REQUEST, (_NOT_JSON, "truncated")),
    BadStep("something after the message", _x(ROW) + " x", _REQUEST, (_NOT_JSON, "trailing characters")),
    BadStep("bytes that are not UTF-8", b"\xff\xfe", _REQUEST, (_NOT_JSON, "byte 0")),
    BadStep("a NaN", _row("NaN"), _REQUEST, (_NOT_JSON, "invalid character")),
    BadStep("an Infinity", _row("-Infinity"), _REQUEST, (_NOT_JSON, "invalid")),
    BadStep("half a surrogate pair", '{"\\ud800": 1}', _REQUEST, (_NOT_JSON,)),
    # Of another type than the wire's
    BadStep("null", "null", _REQUEST, ("Expected `object`, got `null`", "the fields are x, step, outputs")),
    BadStep("a string", '"x"', _REQUEST, ("Expected `object`, got `str`",)),
    BadStep("no x", "{}", _REQUEST, ("missing required field `x`",)),
    BadStep("x that is null", _x("null"), _REQUEST, ("got `null`", "$.x")),
    BadStep("x that is a number", _x("5"), _REQUEST, ("Expected `object | array`", "$.x")),
    BadStep("x that is a string", _x('"1,2"'), _REQUEST, ("got `str`", "$.x")),
    BadStep("null for a number", _row("null"), _REQUEST, ("got `null`", "$.x[0]")),
    BadStep("a boolean for a number", _row("true"), _REQUEST, ("got `bool`", "$.x[0]")),
    BadStep("a string for a number", _row('"1"'), _REQUEST, ("got `str`", "$.x[0]")),
    BadStep("a boolean in a chunk", f'{{"x": [{ROW}, [false]]}}', _REQUEST, ("got `bool`", "$.x[1][0]")),
    BadStep("a string by name", _x(NAMED.replace("}", ', "load": "much"}')), _REQUEST, ("got `str`", "$.x[...]")),
    BadStep("a chunk of chunks", _x(f"[[{ROW}]]"), _REQUEST, ("Expected `float`, got `array`", "$.x[0][0]")),
    BadStep("deep nesting", _x("[" * 50_000), _REQUEST, ("$.x[0][0]",)),
    BadStep("an unknown field", _with('"y": 1'), _REQUEST, ("unknown field `y`", "the fields are x, step, outputs")),
    BadStep("an unknown kind of outputs", _with('"outputs": "first"'), _REQUEST, ("'first'", "$.outputs")),
    BadStep("outputs that are null", _with('"outputs": null'), _REQUEST, ("got `null`", "$.outputs")),
    *(
        BadStep(f"step {number[:16]}", _with(f'"step": {number}'), _REQUEST, (says, "$.step"))
        for number, says in {
            "0": ">= 1",
            "-1": ">= 1",
            "1.5": "got `float`",
            "true": "got `bool`",
            '"1"': "got `str`",
            "9007199254740992": "<= 9007199254740991",
            HUGE: "$.step",
        }.items()
    ),
    # Of another size or name than the model's, or beyond belief
    BadStep("an empty x", _x("[]"), _TIMESTEP, ("x has 0 numbers", _WIDTH)),
    BadStep("a chunk of nothing", _x("[[]]"), _TIMESTEP, ("x[0] has 0 numbers", _WIDTH)),
    BadStep("a timestep that is too narrow", _x("[1, 2, 3]"), _TIMESTEP, ("x has 3 numbers", _WIDTH)),
    BadStep("a timestep that is too wide", _x(ROW.replace("]", ", 9]")), _TIMESTEP, ("x has 9 numbers", _WIDTH)),
    BadStep("a ragged chunk", _x(f"[{ROW}, [1, 2], {ROW}]"), _TIMESTEP, ("x[1] has 2 numbers", _WIDTH)),
    BadStep("a number among rows", _x(f"[{ROW}, 2]"), _TIMESTEP, ("x[1] is a number", "lists of numbers")),
    BadStep("a row among numbers", _x("[1, 2, 3, 4, 5, 6, 7, [8]]"), _TIMESTEP, ("x holds something", "not a number")),
    BadStep("no names", _x("{}"), _TIMESTEP, ("x lacks load, ambient, top_oil",)),
    BadStep("a missing name", _x(NAMED.replace('"load"', '"lode"')), _TIMESTEP, ("x lacks load",)),
    BadStep("an unknown name", _x(NAMED.replace("}", ', "wind": 1}')), _TIMESTEP, ("x names wind", "unknown")),
    BadStep("a number beyond belief", _row("2e18"), _TIMESTEP, ("load is 2e+18", "timestep 1 of 1", "1e+18")),
    BadStep(
        "one of them in a chunk", f'{{"x": [{ROW}, [1, -2e18, 3, 4, 5, 6, 7, 8]]}}', _TIMESTEP, ("ambient is -2e",)
    ),
    BadStep("a number beyond float64", _row("1e999"), _REQUEST, ("out of range", "$.x[0]")),
    BadStep("digits beyond float64", _row(HUGE), _REQUEST, ("out of range", "$.x[0]")),
    BadStep("a duplicate key, of which the last counts", _x(ROW)[:-1] + ', "x": [1]}', _TIMESTEP, ("x has 1 numbers",)),
    BadStep("too long a chunk", _x("[" + ", ".join([ROW] * 513) + "]"), _REQUEST, ("513 timesteps", "at most 512")),
    # Out of order
    BadStep("a step after a missing one", _with('"step": 4'), "step_gap", ("step 4", "at step 2", "next is 3"), 409),
    BadStep("a step long consumed", _with('"step": 1'), "step_conflict", ("step 1", "at step 2", "next is 3"), 409),
]
"""Each is sent to a session at step 2."""
