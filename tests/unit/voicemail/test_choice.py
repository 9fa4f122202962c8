"""Whose mailbox: the rule of the line, then the names in their order, then the default."""

from __future__ import annotations

from collections.abc import Iterator

from aftertone.model import Mailbox
from aftertone.voicemail.choice import choose
from aftertone.voicemail.directory import Directory

SEVERAL = Directory(1, "main", {"main": Mailbox("main"), "200": Mailbox("200", numbers=("+49 30 5550100",))})
ONE = Directory(1, "main", {"main": Mailbox("main")})
NAMES = [("voicemail", "request URI"), ("0305550100", "Diversion"), ("main", "To")]


def chosen(directory: Directory, names: list[tuple[str, str]], **rest: str | tuple[str, str]) -> tuple[str, str] | None:
    found = choose(directory, names, user=str(rest.get("user", "x")), rule=rest.get("rule", ("", "")))  # type: ignore[arg-type]
    return None if found is None else (found.mailbox.name, found.reason)


def test_the_first_name_that_is_a_mailbox_wins_and_says_why() -> None:
    assert chosen(SEVERAL, NAMES) == ("200", "Diversion")
    assert chosen(SEVERAL, NAMES[::-1]) == ("main", "To")


def test_the_rule_of_a_line_goes_before_what_a_request_says() -> None:
    assert chosen(SEVERAL, NAMES, rule=("MAIN", "trunk pbx")) == ("main", "trunk pbx")
    assert chosen(SEVERAL, NAMES, rule=("gone", "trunk pbx")) == ("200", "Diversion")


def test_nothing_that_is_known_means_the_default_or_nobody() -> None:
    assert chosen(SEVERAL, [("nobody", "To")]) is None
    assert chosen(SEVERAL, [("nobody", "To")], user="") == ("main", "default mailbox")
    assert chosen(ONE, [("+4922255501", "request URI")]) == ("main", "default mailbox")
    assert choose(Directory(1, "gone", {"main": Mailbox("main")}), [], user="") is None


def test_names_are_read_no_further_than_needed() -> None:
    def names() -> Iterator[tuple[str, str]]:
        yield "main", "request URI"
        raise AssertionError("the first one was enough")

    assert choose(SEVERAL, names(), user="main") is not None
