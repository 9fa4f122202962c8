"""The lamp's words, built and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.sip.faults import ParseError
from aftertone.sip.mwi import MAX_COUNT, Summary, Told, build, parse

COUNTS = st.integers(0, MAX_COUNT)


def test_it_reads_as_phones_expect_it() -> None:
    assert build(Summary(2, 8, 0, 2), "sip:main@192.0.2.1") == (
        b"Messages-Waiting: yes\r\nMessage-Account: sip:main@192.0.2.1\r\nVoice-Message: 2/8 (0/2)\r\n"
    )
    assert build(Summary(0, 8)) == b"Messages-Waiting: no\r\nVoice-Message: 0/8 (0/0)\r\n"


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_what_was_built_is_read(new: int, old: int, urgent_new: int, urgent_old: int) -> None:
    summary = Summary(new, old, urgent_new, urgent_old)
    assert parse(build(summary, "sip:a@b")) == Told(new > 0, "sip:a@b", summary)


def test_numbers_beyond_the_grammar_stay_at_its_end() -> None:
    assert parse(build(Summary(2**40))).summary.new == MAX_COUNT


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"Messages-Waiting: no\r\n", Told(False, "", Summary())),
        (b"messages-waiting : YES\r\nVOICE-MESSAGE: 4 / 1\r\n", Told(True, "", Summary(4, 1))),
        (b"Messages-Waiting: yes\r\nFax-Message: 1/0\r\nVoice-Message:2/8 ( 1/ 0 )", Told(True, "", Summary(2, 8, 1))),
        (b"Messages-Waiting: yes\r\n\r\nTo: <sip:a@b>\r\nno header", Told(True, "", Summary())),
    ],
)
def test_other_peers_spellings_are_read(body: bytes, told: Told) -> None:
    assert parse(body) == told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Messages-Waiting: perhaps",
        b"Voice-Message: 1/0",
        b"Messages-Waiting: yes\r\nVoice-Message: 1",
        b"Messages-Waiting: yes\r\nVoice-Message: 1/-1",
        b"Messages-Waiting: yes\r\nVoice-Message: 1/0 (0/0",
        b"Messages-Waiting: yes\r\nVoice-Message: 1/0 (0/0) x",
        b"Messages-Waiting: yes\r\nMessages-Waiting: no",
        b"Messages-Waiting: yes\r\n" + b"x-message: 1/0\r\n" * 70,
    ],
)
def test_what_is_no_summary_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse(body)


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise_anything_else(body: bytes) -> None:
    try:
        parse(body)
    except ParseError:
        return


def test_two_mailboxes_are_one_lamp() -> None:
    assert Summary(1, 2, 1, 0) + Summary(0, 3, 0, 1) == Summary(1, 5, 1, 1)
