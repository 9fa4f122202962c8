"""aftertone.sip.identity: who called, as headers claim it and peers confirm it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.model import Caller
from aftertone.sip.diversion import called_of, diversion_of
from aftertone.sip.identity import MAX_IDENTITY, MAX_NAME, Claims, caller_of, claims_of, number_of, target_user
from aftertone.sip.message import Request

HEADERS = ("from", "to", "p-asserted-identity", "remote-party-id", "privacy", "diversion", "history-info", "identity")


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


def test_the_target_is_the_user_of_the_request_line() -> None:
    assert target_user(asking("sip:fam%69ly;x=1@192.0.2.1")) == "family"
    assert target_user(asking("sip:192.0.2.1")) == ""
    assert target_user(asking("tel:+4930")) == "+4930"
    assert target_user(asking("http://x")) == ""
    assert number_of("nonsense") == ""


def claims(headers: Mapping[str, str | list[str]], *, trusted: bool = True) -> Claims:
    lists = {name: [value] if isinstance(value, str) else value for name, value in headers.items()}
    return claims_of(Request("INVITE", "sip:a@b", lists), trusted=trusted)


@pytest.mark.parametrize(
    ("display", "name"),
    [
        ("=?UTF-8?Q?J=C3=BCrgen_K=C3=B6hler?=", "Jürgen Köhler"),
        ("=?utf-8?B?SsO8cmdlbg==?=", "Jürgen"),
        ("=?utf-8?B?SsO8cmdlbg?=", "Jürgen"),
        ("=?iso-8859-1?q?J=FCrgen?=", "Jürgen"),
        ("=?UTF-8?Q?Ann?= =?UTF-8?Q?Lee?=", "AnnLee"),
        ("Dr. =?UTF-8?Q?Lee?=", "Dr. Lee"),
        ("=?UTF-8?Q?a=00=0D=0AX=2DEvil?=", "aX-Evil"),
        ("=?utf-8?B?!!!!?=", "=?utf-8?B?!!!!?="),
        ("=?zip?Q?x?=", "=?zip?Q?x?="),
        ("=?utf-8?Q?=FF?=", "=?utf-8?Q?=FF?="),
        ("=?" * 500, ("=?" * 500)[:MAX_NAME]),
    ],
)
def test_encoded_words_are_decoded_as_peers_in_the_wild_send_them(display: str, name: str) -> None:
    assert claims({"from": f'"{display}" <sip:1@x>'}).caller.name == name


@pytest.mark.parametrize(
    "value",
    [
        "<sip:anonymous@anonymous.invalid>",
        '"Anonymous" <sip:Anonymous@192.0.2.1>',
        "<sip:anonymous@carrier.example.net;user=phone>",
        "<sip:unavailable@unknown.invalid>",
        "<sip:restricted@192.0.2.1>",
        "<sip:thisis@anonymous.invalid>",
        "<sip:192.0.2.1>",
        "<tel:anonymous>",
    ],
)
def test_who_withholds_a_number_has_none(value: str) -> None:
    assert claims({"from": value}).caller.number == ""


def test_the_header_that_named_the_number_is_told() -> None:
    rpid = '"Bob" <sip:+15550101@pbx>;party=calling;screen=yes;privacy=off, <sip:+15550199@pbx>;party=called'
    sent = {"from": '"Ann" <sip:ann@x>', "remote-party-id": rpid, "p-preferred-identity": "<sip:+15550103@x>"}
    assert claims(sent) == Claims(Caller("+15550101", "Bob"), "Remote-Party-ID")
    assert claims(sent, trusted=False) == Claims(Caller("ann", "Ann"), "From")
    asserted = {**sent, "p-asserted-identity": "<sip:ann@x>, <tel:+1-555-0102>"}
    assert claims(asserted) == Claims(Caller("+15550102", "Bob"), "P-Asserted-Identity")
    assert claims({"from": "nonsense"}) == Claims(Caller())


@pytest.mark.parametrize(
    "headers",
    [
        {"privacy": "id", "p-asserted-identity": "<tel:+15550101>"},
        {"privacy": "user;id", "p-asserted-identity": "<tel:+15550101>"},
        {"privacy": ["none", "id"], "p-asserted-identity": "<tel:+15550101>"},
        {"remote-party-id": "<sip:+15550101@pbx>;party=calling;privacy=full"},
        {"remote-party-id": '<sip:+15550101@pbx>;privacy="uri"'},
    ],
)
def test_who_asks_for_privacy_is_not_shown(headers: dict[str, str | list[str]]) -> None:
    found = claims({"from": '"Ann" <sip:+15550101@x>', **headers})
    assert (found.caller, found.header) == (Caller(), "")


def test_a_wish_for_privacy_of_other_headers_hides_what_was_asserted_alone() -> None:
    found = claims({"from": "<sip:ann@x>", "privacy": "header", "p-asserted-identity": "<tel:+15550101>"})
    assert (found.caller, found.header) == (Caller("ann"), "From")


@pytest.mark.parametrize(
    "address",
    [
        "<sip:+15550101;verstat=TN-Validation-Passed@x;user=phone>",
        "<sip:+15550101@x;user=phone;verstat=TN-Validation-Passed>",
        "<tel:+15550101;verstat=TN-Validation-Passed>",
        "<sip:+15550101@x>;verstat=TN-Validation-Passed",
    ],
)
def test_what_a_trusted_peer_says_of_having_checked_is_kept(address: str) -> None:
    identity = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln;info=<https://cert.example.net/a.pem>;alg=ES256;ppt=shaken"
    sent = {"from": address, "identity": identity}
    trusted, stranger = claims(sent), claims(sent, trusted=False)
    assert (trusted.caller.number, trusted.verstat, trusted.identity) == ("+15550101", "TN-Validation-Passed", identity)
    assert (stranger.caller.number, stranger.verstat, stranger.identity) == ("+15550101", "", "")
    assert claims({"p-asserted-identity": address, "from": "<sip:1@x>"}).verstat == "TN-Validation-Passed"


def test_a_part_of_a_signature_and_a_verdict_that_is_no_word_are_worth_nothing() -> None:
    assert claims({"identity": "x" * MAX_IDENTITY}).identity == "x" * MAX_IDENTITY
    assert claims({"identity": "x" * (MAX_IDENTITY + 1)}).identity == ""
    assert claims({"from": f"<sip:1@x;verstat={'a' * 65}>"}).verstat == ""
    assert claims({"from": '<sip:1@x>;verstat="a b"'}).verstat == ""


HOSTILE = st.text(alphabet='",<>;:@=?%&+=Q.1a\\ \udcff\u202e', max_size=80)


@given(st.dictionaries(st.sampled_from(HEADERS), st.lists(HOSTILE, max_size=3)), HOSTILE, st.booleans())
def test_no_header_raises_and_nothing_grows(headers: dict[str, list[str]], uri: str, trusted: bool) -> None:
    request = Request("INVITE", uri, headers)
    found = claims_of(request, trusted=trusted)
    assert max(len(found.caller.number), len(found.caller.name)) <= MAX_NAME
    assert len(found.verstat) <= 64
    f"{found.caller}{found.identity}".encode()
    list(called_of(request))
    diversion = diversion_of(request)
    if diversion is not None:
        diversion.by.encode()
