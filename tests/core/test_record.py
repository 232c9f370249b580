"""The record: what goes in comes out, and nothing else is believed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core import record
from service.core.errors import InvalidRecord
from service.core.session import ModelRef, Session

u64 = st.integers(0, 2**64 - 1)
name = st.text(st.characters(codec="utf-8"), max_size=20)
floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20).map(
    lambda values: np.array(values, np.float32).tobytes()
)
sessions = st.builds(
    Session,
    model=st.builds(ModelRef, name, name, st.binary(min_size=8, max_size=8)),
    epoch=u64,
    step=u64,
    nonce=u64,
    updated_at_ms=st.integers(0, 2**53),
    ttl_s=st.integers(0, 2**32 - 1),
    state=floats,
    outputs=floats,
)


@given(sessions)
def test_a_session_survives_its_record(session: Session) -> None:
    assert record.decode(record.encode(session)) == session


@given(sessions)
def test_the_version_stands_where_the_script_in_the_store_looks(session: Session) -> None:
    version = b"".join(part.to_bytes(8, "little") for part in (session.epoch, session.step, session.nonce))
    assert record.encode(session)[record.VERSION_SLICE] == version


@given(sessions)
def test_what_is_asked_of_a_record_without_reading_it_is_what_it_says(session: Session) -> None:
    whole = record.encode(session)
    assert record.step_of(whole) == session.step
    assert record.ttl_s_of(whole) == session.ttl_s
    assert whole[record.EPOCH_SLICE] == session.epoch.to_bytes(8, "little")
    assert whole[record.NONCE_SLICE] == session.nonce.to_bytes(8, "little")


@given(sessions, sessions)
def test_records_are_of_one_kind_if_they_are_of_one_model_file(one: Session, other: Session) -> None:
    kind = record.kind_of(record.encode(one))
    assert record.kind_of(record.encode(other._replace(model=one.model))) == kind
    assert (record.kind_of(record.encode(other)) == kind) == (other.model == one.model)


@given(sessions, st.data())
def test_a_record_that_was_cut_or_grew_is_refused(session: Session, data: st.DataObject) -> None:
    whole = record.encode(session)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for broken in (whole[:cut], whole + b"\0"):
        with pytest.raises(InvalidRecord):
            record.decode(broken)


@given(st.binary(max_size=200))
def test_bytes_from_anywhere_are_refused_or_are_a_record(content: bytes) -> None:
    try:
        session = record.decode(content)
    except InvalidRecord:
        return
    assert record.encode(session) == content


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    state = np.array([1.0, bad], np.float32).tobytes()
    session = Session(ModelRef("m", "1", bytes(8)), 1, 1, 1, 0, 1, state, b"")
    with pytest.raises(InvalidRecord, match="not finite"):
        record.decode(record.encode(session))


def test_another_format_is_named() -> None:
    session = Session(ModelRef("m", "1", bytes(8)), 1, 1, 1, 0, 1, b"", b"")
    newer = bytearray(record.encode(session))
    newer[3] = 2
    with pytest.raises(InvalidRecord, match="format is 2"):
        record.decode(bytes(newer))
