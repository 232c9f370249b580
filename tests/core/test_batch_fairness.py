"""The batch former while some send more than their share; `test_rounds.py` has the tenants' rounds by themselves."""

from collections import Counter
from itertools import count
from operator import attrgetter

from hypothesis import given
from hypothesis import strategies as st

from service.core.batch import BatchFormer
from service.core.session import SessionKey
from tests.budget import examples
from tests.core.plain_step import Step

MAX_TURN = 8


def of_tenants(**options: int) -> BatchFormer[str, Step]:
    """A former of sessions that are called for their tenant's first letter and a number."""
    return BatchFormer(tenant_of=lambda key: key[0], **options)


def taken(former: BatchFormer[str, Step], now: float = 0.0) -> list[str]:
    batch = former.take(now)
    assert batch is not None
    former.done(batch)
    return [turn.key for turn in batch.turns]


def test_a_tenant_that_floods_takes_no_place_from_its_neighbour() -> None:
    former = of_tenants(max_sessions=16, max_turn=4)
    for number in range(100):
        former.add(f"a{number}", Step(number))
    for number in range(5):
        former.add(f"b{number}", Step(number))
    assert [key for key in taken(former) if key[0] == "b"] == [f"b{number}" for number in range(5)]


def test_tenants_share_in_timesteps_and_not_in_turns() -> None:
    former = of_tenants(max_sessions=4, max_turn=4)
    for session in range(8):
        former.add(f"a{session}", Step(0, length=4))
    for session in range(32):
        former.add(f"b{session}", Step(0))
    order = [key[0] for _ in range(10) for key in taken(former)]
    assert order[:20] == ["a", *"bbbb"] * 4


def test_a_tenant_with_nothing_else_to_do_gets_all_that_is_left() -> None:
    former = of_tenants(max_sessions=16, max_turn=4)
    for number in range(40):
        former.add(f"a{number}", Step(number))
    former.add("b0", Step(0))
    assert len(taken(former)) == 16


def test_batches_are_smaller_while_tenants_share() -> None:
    former = of_tenants(max_sessions=256)
    for number in range(1000):
        former.add(f"a{number}", Step(number))
    assert len(taken(former)) == 256
    former.add("b0", Step(0))
    assert len(taken(former)) == 32
    assert len(taken(former, 0.5)) == 32, "the neighbour may come again at any moment"
    assert len(taken(former, 1.6)) == 256


def test_the_waiting_timesteps_of_each_tenant_are_known() -> None:
    former = of_tenants(max_sessions=2)
    for number in range(3):
        former.add(f"a{number}", Step(number, length=2))
    former.add("b0", Step(9))
    assert (former.waiting_of("a"), former.waiting_of("b"), former.waiting_of("c")) == (6, 1, 0)
    assert (former.tenants("a"), former.tenants("c")) == (2, 3)
    batch = former.take(0.0)
    assert batch is not None
    assert (former.waiting_of("a"), former.waiting) == (4, 4)
    former.done(batch, again=batch.turns)
    assert (former.waiting_of("a"), former.waiting) == (6, 7)
    former.abandon()
    assert (former.waiting_of("a"), former.tenants("a")) == (0, 1)


@given(
    greedy=st.integers(1, 8),
    backlog=st.integers(1, 30),
    max_sessions=st.integers(1, 4),
    arrives=st.integers(0, 20),
)
@examples(60)
def test_a_flood_holds_up_a_modest_session_by_no_more_than_one_turn_of_each(
    greedy: int, backlog: int, max_sessions: int, arrives: int
) -> None:
    former: BatchFormer[SessionKey, Step] = BatchFormer(max_sessions=max_sessions, max_turn=MAX_TURN)
    numbers = count(1)
    modest = SessionKey("modest", "only")
    flood = [SessionKey("greedy", str(i)) for i in range(greedy)]
    for key in flood * backlog:
        former.add(key, Step(next(numbers)))
    for batches in range(arrives + greedy + 1):
        if batches == arrives:
            former.add(modest, Step(next(numbers)))
        batch = former.take(0.0)
        assert batch is not None
        if any(turn.key == modest for turn in batch.turns):
            assert batches - arrives <= -(-greedy // max_sessions)
            return
        former.done(batch)
        for turn in batch.turns:  # the flood does not abate
            former.add(turn.key, Step(next(numbers)))
    raise AssertionError("the modest session starves")


@given(
    sessions=st.integers(1, 6),
    steps=st.integers(1, 64),
    at_once=st.booleans(),
    max_sessions=st.sampled_from([1, 4, 16, 64]),
)
@examples(60)
def test_a_tenant_with_long_turns_takes_no_more_than_its_share(
    sessions: int, steps: int, at_once: bool, max_sessions: int
) -> None:
    """Few sessions with many steps each, which wait behind the turn in flight or come when that has ended."""
    former: BatchFormer[SessionKey, Step] = BatchFormer(max_sessions=max_sessions, tenant_of=attrgetter("tenant"))
    numbers = count(1)
    few = [SessionKey("few", str(i)) for i in range(sessions)]
    many = [SessionKey("many", str(i)) for i in range(2 * max_sessions)]
    for key in [*few * steps * (1 + at_once), *many]:
        former.add(key, Step(next(numbers)))
    taken: Counter[str] = Counter()
    for now in range(50):
        batch = former.take(now / 1000)
        assert batch is not None
        former.done(batch)
        for turn in batch.turns:
            taken[turn.key.tenant] += len(turn.steps)
            for _ in turn.steps:
                former.add(turn.key, Step(next(numbers)))
    assert taken["few"] <= taken["many"] + 64 + 16, "a turn and a quantum ahead at most"
