"""An answer to many steps that is encoded piece by piece is what it would have been in one."""

from itertools import pairwise

import numpy as np
import pytest

from service.api.encodings import JSON, MSGPACK, Encoding


@pytest.mark.parametrize("encoding", [JSON, MSGPACK], ids=["json", "msgpack"])
@pytest.mark.parametrize(
    "ends", [[], [1], [15], [16], [7, 15], [8, 16], [1, 2, 40], [300], [40_000, 65_535], [40_000, 65_536]], ids=str
)
def test_pieces_make_the_array_that_their_answers_make(encoding: Encoding, ends: list[int]) -> None:
    answers = [{"step": i, "outputs": {"y": np.float32([i / 3])}} for i in range(ends[-1] if ends else 0)]
    pieces = [encoding.encode_items(answers[start:stop]) for start, stop in pairwise([0, *ends])]
    whole = encoding.array_of(pieces, len(answers))
    assert whole == encoding.encode(answers)
    assert encoding.encode({"results": encoding.fragment(whole)}) == encoding.encode({"results": answers})
