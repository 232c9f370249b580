"""Rows of timesteps side by side: whichever are picked, each keeps its home."""

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.abreast import Abreast, Span
from service.core.columns import Floats
from service.core.session import SessionKey
from service.pending import Pending
from tests.budget import examples


class Home:
    """Notes what it is told of its rows."""

    def __init__(self, name: int, size: int) -> None:
        self.keys = [SessionKey(str(name), str(i)) for i in range(size)]
        self.told: list[int] = []

    def answer(self, start: int, steps: Sequence[int], _outputs: Mapping[str, Floats]) -> None:
        self.told += range(start, start + len(steps))

    def step(self, i: int) -> Pending:
        raise NotImplementedError


def owners(abreast: Abreast) -> list[SessionKey]:
    """Return whose the rows are by their spans."""
    return [
        span.home.keys[i] for span in abreast.spans if isinstance(span.home, Home) for i in range(span.start, span.stop)
    ]


@st.composite
def lined_up(draw: st.DrawFn) -> Abreast:
    homes = [Home(name, draw(st.integers(2, 8))) for name in range(draw(st.integers(1, 4)))]
    spans = []
    for home in homes:
        start = draw(st.integers(0, len(home.keys) - 1))
        spans.append(Span(home, start, draw(st.integers(start + 1, len(home.keys)))))
    keys = [home.keys[i] for home, (_, start, stop) in zip(homes, spans, strict=True) for i in range(start, stop)]
    return Abreast(keys, np.arange(len(keys), dtype=float)[:, None], np.arange(len(keys), dtype=np.uint64), spans)


@given(lined_up(), st.data())
@examples(200)
def test_whatever_is_picked_keeps_its_home(abreast: Abreast, data: st.DataObject) -> None:
    assert owners(abreast) == abreast.keys
    rows = sorted(data.draw(st.sets(st.integers(0, len(abreast) - 1))))
    picked = abreast.pick(rows)
    assert picked.keys == owners(picked) == [abreast.keys[i] for i in rows]
    assert picked.x[:, 0].tolist() == picked.numbers.tolist() == rows
    start = data.draw(st.integers(0, len(abreast)))
    part = abreast[start : data.draw(st.integers(start, len(abreast)))]
    assert part.keys == owners(part)
