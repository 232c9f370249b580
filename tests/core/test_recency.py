"""Things come out in the order in which they were touched last, however often, and the log of touches stays short."""

import tracemalloc
from collections import OrderedDict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.recency import Recency
from tests.budget import examples

TOUCHES = 20_000


@given(st.integers(1, 300), st.integers(1, 400), st.integers(0, 2**32))
@examples(20)
def test_the_order_is_that_of_the_last_touches(things: int, at_once: int, seed: int) -> None:
    random = Random(seed)
    recency, order = Recency(), OrderedDict[int, None]()
    for _ in range(TOUCHES // at_once):
        some = [random.randrange(things) for _ in range(at_once)]
        recency.touch(some)
        for thing in some:
            order[thing] = None
            order.move_to_end(thing)
        for _ in range(random.choice([0, 0, 1, 3])):
            if order:
                if random.random() < 0.5:
                    assert recency.oldest() == next(iter(order))
                gone = random.choice([*order])
                recency.forget(gone)
                del order[gone]
    while order:
        recency.forget(recency.oldest())
        order.popitem(last=False)
        if order:
            assert recency.oldest() == next(iter(order))
    with pytest.raises(IndexError):
        recency.oldest()


@given(st.integers(1, 3000), st.integers(1, 2000), st.integers(0, 2**32))
@examples(20)
def test_what_is_void_is_cleared_away(things: int, at_once: int, seed: int) -> None:
    random = Random(seed)
    recency = Recency()
    last: dict[int, int] = {}
    for number in range(TOUCHES):
        thing = random.randrange(things)
        last[thing] = number
        if number % at_once:
            recency.touch([thing])
        else:
            recency.touch([thing, thing])
    assert recency.length <= 4 * things + 4 * 1024
    assert recency.oldest() == min(last, key=last.__getitem__)


def test_things_that_come_one_by_one_take_no_more_memory_than_many_at_once() -> None:
    things = 5000
    recency = Recency()
    recency.touch(range(things))
    tracemalloc.start()
    try:
        for _ in range(4 * things):
            oldest = recency.oldest()
            recency.forget(oldest)
            recency.touch([oldest])
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 100 * things, "a touch is a dozen bytes, and there are a few for each thing"
