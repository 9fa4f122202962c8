"""The words of the inbox."""

from __future__ import annotations

import pytest

from aftertone.model import Caller, Clock, DivertReason, EndReason, Origin
from aftertone.web.present import CLOCK_NOT_SET, NOBODY, clean, clock_length, item_of, spoken_length, who
from aftertone.web.schemas import rfc3339
from tests.support.messages import a_message
from tests.unit.web.world import World


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (Caller("+49301", "Anna"), ("Anna", "+49301")),
        (Caller("+49301", ""), ("+49301", "")),
        (Caller("+49301", "+49301"), ("+49301", "")),
        (Caller("", ""), (NOBODY, "")),
        (Caller("anonymous", "Anonymous"), (NOBODY, "")),
        (Caller("+49301", "Anonymous"), ("+49301", "")),
        (Caller("", "\u202e\u0000 \n"), (NOBODY, "")),
    ],
)
def test_who(caller: Caller, expected: tuple[str, str]) -> None:
    assert who(caller) == expected


def test_what_cannot_be_seen_is_removed_from_names() -> None:
    assert clean("An\u202ena\x00\x1b[31m \t Weber\u2066") == "Anna[31m Weber"
    assert (
        clean("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645") == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )
    assert len(clean("x" * 5000)) == 120


@pytest.mark.parametrize(
    ("duration_ms", "clock", "spoken"),
    [
        (0, "0:01", "1 second"),
        (42_400, "0:42", "42 seconds"),
        (61_000, "1:01", "1 minute 1 second"),
        (120_000, "2:00", "2 minutes"),
        (3_723_000, "1:02:03", "62 minutes 3 seconds"),
    ],
)
def test_lengths(duration_ms: int, clock: str, spoken: str) -> None:
    assert clock_length(duration_ms) == clock
    assert spoken_length(duration_ms) == spoken


def test_every_ending_has_words(world: World) -> None:
    for reason in EndReason:
        item = item_of(world.deliver(end_reason=reason, lost_packets=1, notes=("clock not trusted",)))
        assert item.facts[0].endswith(".")
        assert "1 packet lost" in item.facts[1]
        assert item.facts[2] == "clock not trusted"


def test_a_time_of_a_clock_that_was_not_set_is_a_guess(world: World) -> None:
    unsure, sure = (item_of(world.deliver(clock=clock)) for clock in (Clock.UNSURE, Clock.TRUSTED))
    assert unsure.started_text == "about 22 Nov 2026, 16:55 UTC"
    assert (unsure.is_time_unsure, sure.is_time_unsure) == (True, False)
    assert unsure.facts == (CLOCK_NOT_SET, *sure.facts)


@pytest.mark.parametrize(("unix_ms", "text"), [(0, "1970-01-01T00:00:00.000Z"), (10**18, "1970-01-01T00:00:00.000Z")])
def test_a_clock_beyond_every_calendar_does_not_break_a_page(unix_ms: int, text: str) -> None:
    assert rfc3339(unix_ms) == text


def test_how_good_the_line_was_is_told_where_it_is_worth_a_word() -> None:
    item = item_of(a_message(1, jitter_ms=3, peer_lost=1, round_trip_ms=45))
    assert "The caller missed 1 packet of what we said." in item.facts
    assert "The line: 45 ms to the caller and back, 3 ms of jitter." in item.facts
    assert item_of(a_message(1, jitter_ms=3, peer_lost=0)).facts == item_of(a_message(1)).facts
    assert "The line: 20 ms of jitter." in item_of(a_message(1, jitter_ms=20)).facts


def test_a_hold_and_the_last_word_of_the_peer_are_told() -> None:
    item = item_of(a_message(1, holds=((12_000, 19_500),), end_detail="Q.850;cause=16"))
    assert "On hold from 0:12 to 0:20." in item.facts
    assert "The caller's side said why: Q.850;cause=16." in item.facts


def test_who_forwarded_the_call_and_why_is_told() -> None:
    origin = Origin("trunk", "pbx", "From", "TN-Validation-Failed", "200", DivertReason.NO_ANSWER)
    facts = item_of(a_message(1, forwarded=True, origin=origin, mailbox_reason="Diversion")).facts
    assert facts[1:5] == (
        "The call was forwarded on no answer from 200.",
        "It came by the trunk pbx.",
        "The mailbox was chosen by: Diversion.",
        "The phone company says that the caller's number may be forged.",
    )
    hidden = item_of(a_message(1, forwarded=True, origin=Origin(), mailbox_reason="request URI")).facts
    assert hidden[1] == "The call was forwarded to the machine."
    passed = item_of(a_message(1, forwarded=False, origin=Origin(verstat="TN-Validation-Passed-A"))).facts
    assert "The phone company says that it checked the caller's number." in passed


@pytest.mark.parametrize("reason", DivertReason)
def test_every_reason_to_forward_has_words(reason: DivertReason) -> None:
    fact = item_of(a_message(1, forwarded=True, origin=Origin(diverted_by="200", divert_reason=reason))).facts[1]
    assert fact.startswith("The call was forwarded")
    assert fact.endswith(" from 200.")


def test_encryption_is_told() -> None:
    assert "Encrypted on its way (AEAD_AES_128_GCM)." in item_of(a_message(1, srtp="AEAD_AES_128_GCM")).facts
    assert not any("ncrypted" in fact for fact in item_of(a_message(1)).facts)
