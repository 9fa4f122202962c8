"""aftertone.sip.identity: who called, and for whom."""

from __future__ import annotations

import pytest

from aftertone.model import Caller
from aftertone.sip.identity import MAX_NAME, caller_of, forwarded_from, number_of, target_user
from aftertone.sip.message import Request


def asking(uri: str = "sip:box@192.0.2.1", **headers: str) -> Request:
    return Request("INVITE", uri, {name.replace("_", "-"): [value] for name, value in headers.items() if value})


@pytest.mark.parametrize(
    ("value", "number", "name"),
    [
        ('"Ann Lee" <sip:+49-30.12(3)@x>;tag=1', "+4930123", "Ann Lee"),
        ("<sip:ann.lee@x>", "ann.lee", ""),
        ("J\udcfcrgen <sip:j%C3%BCrgen@x;user=phone>", "jürgen", "Jürgen"),
        ('"Anonymous" <sip:anonymous@anonymous.invalid>', "", "Anonymous"),
        ("<tel:+1-201-555-0123;phone-context=+1>", "+12015550123", ""),
        ("<sip:123;isub=9@x>", "123", ""),
        ("<mailto:a@b>", "", ""),
        ("broken", "", ""),
        ("", "", ""),
        ('"bell\\\x07 \\"x\\"" <sip:a@b>', "a", 'bell "x"'),
    ],
)
def test_the_caller_as_from_names_it(value: str, number: str, name: str) -> None:
    headers = {"from": [value]} if value else {}
    caller = caller_of(Request("INVITE", "sip:a@b", headers))
    assert caller == Caller(number, name)


def test_a_name_is_not_longer_than_a_screen() -> None:
    caller = caller_of(Request("INVITE", "sip:a@b", {"from": [f'"{"x" * 999}" <sip:{"1" * 999}@b>']}))
    assert caller == Caller("1" * MAX_NAME, "x" * MAX_NAME)


def test_an_asserted_identity_counts_only_from_those_we_trust() -> None:
    asserted = '"Real" <sip:+49301@x>, <tel:+49301>'
    request = Request(
        "INVITE", "sip:a@b", {"from": ["<sip:anonymous@anonymous.invalid>"], "p-asserted-identity": [asserted]}
    )
    assert caller_of(request) == Caller("", "")
    assert caller_of(request, trust_asserted=True) == Caller("+49301", "Real")
    request.headers["privacy"] = ["critical; ID"]
    assert caller_of(request, trust_asserted=True) == Caller("", "")
    broken = Request("INVITE", "sip:a@b", {"from": ["<sip:1@x>"], "p-asserted-identity": ['"x <sip:2@x>']})
    assert caller_of(broken, trust_asserted=True) == Caller("1", "")


def test_forwarding_leaves_traces() -> None:
    assert forwarded_from(asking()) is None
    assert forwarded_from(asking(diversion="<sip:1@x>;reason=no-answer")) == "Diversion"
    assert forwarded_from(asking(history_info="<sip:1@x>;index=1")) is None
    assert forwarded_from(asking(history_info="<sip:1@x?Reason=SIP%3Bcause%3D486>;index=1")) == "History-Info"
    assert forwarded_from(asking(history_info="<sip:1@x>;index=1, <sip:2@x;cause=302>;index=1.1")) == "History-Info"
    assert forwarded_from(asking(history_info="<sip:2@x>;index=1.1;mp=1")) == "History-Info"
    assert forwarded_from(asking("sip:box@x;target=sip:1%40x;cause=408")) == "Request-URI"
    assert forwarded_from(asking("broken")) is None


def test_the_target_is_the_user_of_the_request_line() -> None:
    assert target_user(asking("sip:fam%69ly;x=1@192.0.2.1")) == "family"
    assert target_user(asking("sip:192.0.2.1")) == ""
    assert target_user(asking("tel:+4930")) == "+4930"
    assert target_user(asking("http://x")) == ""
    assert number_of("nonsense") == ""
