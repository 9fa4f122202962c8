"""The words of the house: ids, states, envelopes."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.errors import StateError
from aftertone.model import Action, Caller, DivertReason, Envelope, Origin, PayloadType, State, mint_id, next_state


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_an_id_is_a_uuid_of_version_7_that_begins_with_its_time(unix_ms: int, entropy: bytes) -> None:
    made = mint_id(unix_ms, entropy)
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == unix_ms


def test_ids_take_exactly_their_entropy() -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        mint_id(0, b"short")


@given(st.sampled_from(State), st.sampled_from(Action), st.booleans())
def test_each_action_is_idempotent_where_it_is_legal(state: State, action: Action, heard: bool) -> None:
    try:
        once = next_state(state, action, heard_before=heard)
    except StateError:
        assert state is State.DELETED
        assert action in (Action.HEAR, Action.UNHEAR)
        return
    assert next_state(once, action, heard_before=heard) is once


@pytest.mark.parametrize(("heard", "expected"), [(True, State.HEARD), (False, State.NEW)])
def test_restoring_gives_back_what_the_message_was(heard: bool, expected: State) -> None:
    assert next_state(State.DELETED, Action.RESTORE, heard_before=heard) is expected


texts = st.text(max_size=40)


@given(
    st.builds(
        Envelope,
        id=st.uuids().map(lambda u: UUID(int=u.int)),
        mailbox=texts,
        caller=st.builds(Caller, texts, texts),
        started_unix_ms=st.integers(0, 2**48),
        codec=texts,
        payload_types=st.lists(
            st.builds(PayloadType, st.integers(0, 127), texts, st.integers(1, 2**31)), max_size=4
        ).map(tuple),
        mailbox_reason=texts,
        forwarded=st.booleans(),
        call_id=texts,
        request_uri=texts,
        peer=texts,
        origin=st.builds(Origin, texts, texts, texts, texts, texts, st.none() | st.sampled_from(DivertReason)),
        identity=texts,
    )
)
def test_an_envelope_survives_its_json(envelope: Envelope) -> None:
    assert Envelope.from_json(json.loads(json.dumps(envelope.to_json()))) == envelope
