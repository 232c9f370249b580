"""Records as bytes beside sessions as objects: whatever happens to both, they say the same.

A batch advances its records as columns of one matrix and takes none apart; the model here advances each session as a
named tuple. And of bytes that were tampered with, nothing is believed but what a record of some session could say.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.core import record
from service.core.columns import Columns, Floats, Layout
from service.core.errors import InvalidRecord
from service.core.session import ModelRef, Session
from service.core.spec import Axis, Feature, ModelSpec, Output, State
from tests.budget import examples

u64 = st.integers(0, 2**64 - 1)
names = st.text(st.characters(codec="utf-8"), max_size=30)
refs = st.builds(ModelRef, names, names, st.binary(min_size=8, max_size=8))
SESSIONS = 4


def floats(*shape: int) -> st.SearchStrategy[Floats]:
    """All finite float32, subnormal numbers and both zeros among them."""
    return npst.arrays(np.float32, shape, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def spec(state_sizes: list[int], output_sizes: list[int]) -> ModelSpec:
    return ModelSpec(
        features=(Feature("load"),),
        outputs=tuple(
            Output(f"y{i}", f"y{i}", axes=(Axis("point", tuple(range(size))),)) for i, size in enumerate(output_sizes)
        ),
        states=tuple(State(f"s{i}", f"s{i}", f"next_s{i}", (size,), 0) for i, size in enumerate(state_sizes)),
    )


class Records(RuleBasedStateMachine):
    """Sessions of one model: `records` went through the columns, `sessions` through nothing."""

    @initialize(
        ref=refs,
        state_sizes=st.lists(st.integers(1, 5), min_size=1, max_size=2),
        output_sizes=st.lists(st.integers(1, 5), min_size=1, max_size=2),
        data=st.data(),
    )
    def open(self, ref: ModelRef, state_sizes: list[int], output_sizes: list[int], data: st.DataObject) -> None:
        self.layout = Layout(ref, spec(state_sizes, output_sizes))
        self.sessions = [
            Session(
                model=ref,
                epoch=data.draw(u64),
                step=0,
                nonce=data.draw(u64),
                updated_at_ms=data.draw(st.integers(0, 2**53)),
                ttl_s=data.draw(st.integers(0, 2**32 - 1)),
                state=data.draw(floats(sum(state_sizes))).tobytes(),
                outputs=b"",
            )
            for _ in range(SESSIONS)
        ]
        self.records = [record.encode(session) for session in self.sessions]

    @rule(
        rows=st.lists(st.integers(0, SESSIONS - 1), min_size=1, unique=True),
        timesteps=st.integers(1, 512),
        nonce=u64,
        now_ms=st.integers(0, 2**53),
        data=st.data(),
    )
    def advance(self, rows: list[int], timesteps: int, nonce: int, now_ms: int, data: st.DataObject) -> None:
        state = data.draw(floats(len(rows), self.layout.spec.state_size))
        outputs = data.draw(floats(len(rows), self.layout.spec.output_size))
        before = [self.records[row] for row in rows]
        columns = Columns.of(self.layout, self.layout.rows(before))
        assert columns.step.tolist() == [self.sessions[row].step for row in rows]
        assert columns.state.tobytes() == b"".join(self.sessions[row].state for row in rows)
        assert self.layout.states(before).tobytes() == columns.state.tobytes()
        new = columns.advance(timesteps, state, outputs, nonce=nonce, now_ms=now_ms)
        few = self.layout.advance(before, timesteps, state, outputs, nonce=nonce, now_ms=now_ms)
        assert few == [record.tobytes() for record in new]
        for i, row in enumerate(rows):
            self.records[row] = new[i].tobytes()
            self.sessions[row] = self.sessions[row]._replace(
                step=self.sessions[row].step + timesteps,
                nonce=nonce,
                updated_at_ms=now_ms,
                state=state[i].tobytes(),
                outputs=outputs[i].tobytes(),
            )

    @rule(row=st.integers(0, SESSIONS - 1), epoch=u64)
    def reset(self, row: int, epoch: int) -> None:
        zeros = bytes(len(self.sessions[row].state))
        self.sessions[row] = self.sessions[row]._replace(epoch=epoch, step=0, state=zeros, outputs=b"")
        self.records[row] = record.encode(self.sessions[row])

    @invariant()
    def both_say_the_same(self) -> None:
        for session, content in zip(self.sessions, self.records, strict=True):
            assert record.encode(session) == content
            assert record.decode(content) == session
            assert self.layout.fits(content)
            self.layout.require(session)
            assert record.kind_of(content) == record.kind_of(self.records[0])
        stepped = [content for session, content in zip(self.sessions, self.records, strict=True) if session.step]
        assert not stepped or self.layout.are_sound(self.layout.rows(stepped))


TestRecords = Records.TestCase
TestRecords.settings = examples(40, steps=12)


def sessions() -> st.SearchStrategy[Session]:
    tensors = st.integers(0, 6).flatmap(floats).map(np.ndarray.tobytes)
    return st.builds(
        Session,
        model=refs,
        epoch=u64,
        step=u64,
        nonce=u64,
        updated_at_ms=u64,
        ttl_s=st.integers(0, 2**32 - 1),
        state=tensors,
        outputs=tensors,
    )


@st.composite
def tampered(draw: st.DrawFn) -> bytes:
    """A record in which bytes were changed, cut out, put in or doubled, at a few places."""
    content = bytearray(record.encode(draw(sessions())))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 8)))
        # As often as not as many bytes as there were: a wrong length is the first thing that is noticed.
        size = stop - start
        instead = draw(st.one_of(st.binary(min_size=size, max_size=size), st.binary(max_size=8)))
        content[start:stop] = instead
    return bytes(content)


@given(tampered())
@examples(1000)
def test_of_tampered_bytes_nothing_is_believed_that_no_session_says(content: bytes) -> None:
    kind = record.kind_of(content)  # what is asked of bytes that were not read yet must bear any
    try:
        session = record.decode(content)
    except InvalidRecord:
        return
    assert record.encode(session) == content
    assert record.kind_of(record.encode(session)) == kind
    assert record.readable(content, session.model.name) == session
