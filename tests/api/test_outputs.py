"""Outputs on the wire, whatever their shape."""

import msgspec
import numpy as np
import orjson
import pytest

from service.api.encodings import JSON, MSGPACK, Encoding
from service.api.messages import rest_answer
from service.core.roster import Roster
from service.core.session import Result, SessionKey
from service.frame import Answers


@pytest.mark.parametrize("output", [np.float32(0.1), np.array(0.1, np.float32)], ids=["a row's", "a replay's"])
def test_an_output_without_axes_is_a_number(output: object) -> None:
    assert orjson.loads(JSON.encode({"total": output})) == {"total": 0.1}
    packed = msgspec.msgpack.decode(MSGPACK.encode({"total": output}))
    assert packed == {"total": {"shape": [], "data": np.float32(0.1).tobytes()}}


@pytest.mark.parametrize("encoding", [JSON, MSGPACK], ids=["JSON", "MessagePack"])
def test_answers_to_a_roster_are_those_to_each(encoding: Encoding) -> None:
    roster = Roster([SessionKey("t", name) for name in ("a", 'b"', "ü")])
    load, level = np.arange(12, dtype=np.float32).reshape(3, 2, 2), np.array([0.5, 0.25, 0.1], np.float32)
    for outputs in ({"load": load}, {"level": level}, {"load": load, "level": level}):
        each = [
            rest_answer(name, Result(7 + i, {output: rows[i].copy() for output, rows in outputs.items()}))
            for i, name in enumerate(roster.session_ids)
        ]
        together = encoding.encode_answers(roster, Answers(0, [7, 8, 9], outputs))
        assert together == encoding.encode_items(each)
        assert encoding.array_of([together], 3) == encoding.encode(each)


def test_what_is_no_number_is_a_defect() -> None:
    for encoding in (JSON, MSGPACK):
        with pytest.raises(TypeError):
            encoding.encode({"total": object()})
