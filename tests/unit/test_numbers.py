"""Telephone numbers: which spellings are one number, and whose it is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.numbers import LONGEST, Likeness, NumberIndex, likeness, normal_number

SPELLINGS = ("+49 30 555 0100", "0049305550100", "030 5550100", "030/555-01.00", "555 0100", "+49 (0)30 5550100")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("+49 (0)30 5550100", "+49305550100"),
        ("0049 30 5550100", "+49305550100"),
        ("(0)30 5550100", "0305550100"),
        ("200", "200"),
        ("*97", "*97"),
        ("#31#", "#31#"),
        ("", ""),
        ("+", ""),
        ("++49", ""),
        ("ann", ""),
        ("12a", ""),
        ("٣٤٥", ""),
        ("1" * LONGEST, "1" * LONGEST),
        ("1" * (LONGEST + 1), ""),
        (" " * 10_000 + "1", ""),
    ],
)
def test_a_number_without_its_dress(text: str, normal: str) -> None:
    assert normal_number(text) == normal


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(SPELLINGS, 2)))
def test_spellings_of_one_number_are_alike(one: str, other: str) -> None:
    assert likeness(normal_number(one), normal_number(other)) is not Likeness.NONE


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("200", "1200"),
        ("4100", "5550100"),
        ("+49305550100", "+4305550100"),
        ("+15550100", "+4915550100"),
        ("*97", "97"),
        ("0000", "00000"),
        ("", ""),
    ],
)
def test_different_numbers_are_not(one: str, other: str) -> None:
    assert likeness(one, other) is Likeness.NONE


def test_a_number_is_found_by_its_end_unless_two_have_it() -> None:
    index = NumberIndex({"main": ["+49 30 5550100", "200"], "office": ["+1 555 555 0199"]})
    assert [index.owner(text) for text in SPELLINGS] == ["main"] * len(SPELLINGS)
    assert index.owner("200") == "main"
    assert index.owner("1200") is None
    assert index.owner("ann") is None
    assert index.owner("") is None
    twins = NumberIndex({"berlin": ["+49 30 5550100"], "bonn": ["+49 228 5550100"]})
    assert twins.owner("5550100") is None
    assert twins.owner("0228 5550100") == "bonn"


def test_the_same_spelling_goes_before_the_same_end() -> None:
    index = NumberIndex({"short": ["5550100"], "long": ["030 5550100"]})
    assert index.owner("5550100") == "short"
    assert index.owner("0305550100") == "long"
    assert index.owner("+49305550100") is None
    assert NumberIndex({"a": ["77777"], "b": ["77777"]}).owner("77777") is None


@given(st.text(max_size=60), st.text(alphabet="+0123456789*#-() ", max_size=40))
def test_no_text_raises_and_normal_is_normal(text: str, digits: str) -> None:
    for one in (text, digits):
        assert normal_number(normal_number(one)) == normal_number(one)
        assert NumberIndex({"x": [one]}).owner(one) == ("x" if normal_number(one) else None)


@given(st.integers(1, 999), st.text(alphabet="123456789", min_size=5, max_size=10))
def test_national_and_international_spellings_meet(country: int, local: str) -> None:
    index = NumberIndex({"x": [f"+{country}{local}"]})
    assert index.owner(f"00{country} {local}") == "x"
    assert index.owner(f"0{local}") == "x"
    assert index.owner(local) == "x"
