"""aftertone.sip.scanners: who is known to look for systems to break into."""

from __future__ import annotations

import pytest

from aftertone.sip.message import Request, parse, salvage
from aftertone.sip.scanners import scanner_of
from tests.unit.sip.kit import request


def asked(extra: str = "", drop: str = "", method: str = "OPTIONS") -> Request:
    message = parse(request(method, extra=extra, drop=drop))
    assert isinstance(message, Request)
    return message


@pytest.mark.parametrize(
    "line",
    [
        "User-Agent: friendly-scanner",
        "User-Agent: Friendly-Scanner/2.0",
        "User-Agent: sipcli/v1.8",
        "User-Agent: VaxSIPUserAgent/3.1",
        "User-Agent: pplsip",
        "User-Agent: the sipvicious project",
    ],
)
def test_scanners_that_say_who_they_are(line: str) -> None:
    assert scanner_of(asked(line))


@pytest.mark.parametrize(
    "line",
    [
        'From: "sipvicious"<sip:100@1.1.1.1>;tag=6434396237',
        'From: "x" <sip:100@1.1.1.1>;tag=1',
        "From: <sip:100@1.1.1.1:5060>;tag=1",
    ],
)
def test_callers_that_are_nobody(line: str) -> None:
    assert scanner_of(asked(line, drop="From"))
    assert scanner_of(asked("To: <sip:100@1.1.1.1>", drop="To"))


@pytest.mark.parametrize(
    ("line", "drop"),
    [
        ("", ""),
        ("User-Agent: Yealink SIP-T46S 66.84.0.15", ""),
        ("User-Agent: Phone with smap and gulp in its name", ""),
        ("User-Agent: FRITZ!OS", ""),
        ("From: <sip:ann@1.1.1.10>;tag=1", "From"),
        ("From: <sip:ann@1.1.1.1.example.net>;tag=1", "From"),
        ('From: "me@1.1.1.1" <sip:ann@example.net>;tag=1', "From"),
    ],
)
def test_telephones_are_not_taken_for_scanners(line: str, drop: str) -> None:
    assert scanner_of(asked(line, drop)) == ""


def test_a_header_that_cannot_be_read_raises_nothing() -> None:
    broken = salvage(request("OPTIONS", drop="From", extra="From: <<sip:100@1.1.1.1"))
    assert broken is not None
    assert scanner_of(broken) == ""
