"""Outputs on the wire, whatever their shape."""

import msgspec
import numpy as np
import orjson
import pytest

from service.api.encodings import JSON, MSGPACK


@pytest.mark.parametrize("output", [np.float32(0.1), np.array(0.1, np.float32)], ids=["a row's", "a replay's"])
def test_an_output_without_axes_is_a_number(output: object) -> None:
    assert orjson.loads(JSON.encode({"total": output})) == {"total": 0.1}
    packed = msgspec.msgpack.decode(MSGPACK.encode({"total": output}))
    assert packed == {"total": {"shape": [], "data": np.float32(0.1).tobytes()}}


def test_rows_are_what_single_outputs_are() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    for encoding in (JSON, MSGPACK):
        assert encoding.encode(list(encoding.rows(rows))) == encoding.encode([row.copy() for row in rows])
    scalars = np.array([0.5, 0.25], np.float32)
    assert JSON.encode(list(JSON.rows(scalars))) == b"[0.5,0.25]"
    assert [each["shape"] for each in MSGPACK.rows(scalars)] == [(), ()]


def test_what_is_no_number_is_a_defect() -> None:
    for encoding in (JSON, MSGPACK):
        with pytest.raises(TypeError):
            encoding.encode({"total": object()})
