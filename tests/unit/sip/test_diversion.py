"""aftertone.sip.diversion: for whom a call was meant, and who sent it on."""

from __future__ import annotations

import pytest

from aftertone.model import DivertReason
from aftertone.sip.diversion import MOST_ENTRIES, called_of, diversion_of
from aftertone.sip.identity import MAX_LIST
from aftertone.sip.message import Request


def asking(uri: str = "sip:box@192.0.2.1", **headers: str | list[str]) -> Request:
    lists = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in headers.items()}
    return Request("INVITE", uri, lists)


def called(request: Request) -> list[tuple[str, str]]:
    return [(one.user, one.header) for one in called_of(request)]


def diverted(request: Request) -> tuple[str, str, str] | None:
    found = diversion_of(request)
    return None if found is None else (found.by, found.reason.value, found.header)


def test_forwarding_leaves_traces() -> None:
    assert diverted(asking()) is None
    assert diverted(asking(diversion="<sip:1@x>;reason=no-answer")) == ("1", "no-answer", "Diversion")
    assert diverted(asking(history_info="<sip:1@x>;index=1")) is None
    busy = asking(history_info="<sip:1@x?Reason=SIP%3Bcause%3D486>;index=1")
    assert diverted(busy) == ("1", "user-busy", "History-Info")
    always = asking(history_info="<sip:1@x>;index=1, <sip:2@x;cause=302>;index=1.1")
    assert diverted(always) == ("1", "unconditional", "History-Info")
    assert diverted(asking(history_info="<sip:2@x>;index=1.1;mp=1")) == ("", "unknown", "History-Info")
    target = asking("sip:box@x;target=sip:1%40x;cause=408")
    assert diverted(target) == ("1", "no-answer", "request URI")
    assert diverted(asking("broken")) is None
    assert diverted(asking(diversion='"unreadable')) == ("", "unknown", "Diversion")


def test_the_names_come_in_their_order() -> None:
    request = asking(
        "sip:vm@192.0.2.1;target=sip:+15550101%40x;cause=408",
        to="<sip:+15550105@x>",
        p_called_party_id="<sip:+15550102@x>",
        diversion="<sip:later@x>;reason=user-busy, <sip:first@x>;reason=no-answer",
        history_info="<sip:h1@x>;index=1, <sip:h2@x;cause=486>;index=1.1",
    )
    assert called(request) == [
        ("+15550101", "target of the request URI"),
        ("vm", "request URI"),
        ("+15550102", "P-Called-Party-ID"),
        ("first", "Diversion"),
        ("later", "Diversion"),
        ("h1", "History-Info"),
        ("h1", "History-Info"),
        ("h2", "History-Info"),
        ("+15550105", "To"),
    ]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("sip:+1-202-555-0143%40pbx.example.net%3Buser%3Dphone", "+12025550143"),
        ("tel:%2B12025550143", "+12025550143"),
        ("anna", "anna"),
        ("+12025550143%40pbx.example.net", "+12025550143"),
        ("%00", ""),
        ("sip:", ""),
    ],
)
def test_the_target_of_rfc_4458(target: str, name: str) -> None:
    request = asking(f"sip:vm@192.0.2.1;target={target};cause=408")
    assert diverted(request) == (name, "no-answer", "request URI")


def test_the_last_entry_of_diversion_is_who_was_called_first() -> None:
    lines = ["<sip:third@x>;reason=unconditional", "<sip:second@x>;reason=user-busy, <sip:first@x>;reason=no-answer"]
    assert diverted(asking(diversion=lines)) == ("first", "no-answer", "Diversion")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (";reason=no-answer;counter=1;screen=no;privacy=off", "no-answer"),
        (';reason="NO-ANSWER"', "no-answer"),
        (";reason=user-busy", "user-busy"),
        (";reason=do-not-disturb", "do-not-disturb"),
        (";reason=no_answer", "no-answer"),
        (";reason=busy", "user-busy"),
        (";reason=my-own-words", "unknown"),
        (";reason=away;privacy=name", "away"),
        (";reason", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_reason_of_a_diversion(params: str, reason: str) -> None:
    assert diverted(asking(diversion=f"<sip:1@x>{params}")) == ("1", reason, "Diversion")


def test_who_wants_privacy_chooses_the_mailbox_and_is_not_shown() -> None:
    for hidden in (
        asking(diversion="<sip:200@x>;reason=no-answer;privacy=full"),
        asking(history_info="<sip:200@x?Privacy=history>;index=1, <sip:v@x;cause=408>;index=1.1;mp=1"),
    ):
        assert diverted(hidden) == ("", "no-answer", hidden_header(hidden))
        assert "200" in [user for user, _ in called(hidden)]


def hidden_header(request: Request) -> str:
    return "Diversion" if request.get("diversion") else "History-Info"


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("302", "unconditional"),
        ("486", "user-busy"),
        ("408", "no-answer"),
        ("487", "deflection"),
        ("480", "deflection"),
        ("503", "unavailable"),
        ("404", "unknown"),
        ("999", "unknown"),
        ("", "unknown"),
        ("1" * 5000, "unknown"),
        ("x", "unknown"),
    ],
)
def test_the_causes_of_rfc_4458(cause: str, reason: str) -> None:
    found = diverted(asking(f"sip:vm@x;target=tel:%2B15550101;cause={cause}"))
    assert found == ("+15550101", reason, "request URI")


@pytest.mark.parametrize(
    ("history", "by", "reason"),
    [
        # RFC 7044: alice's phone did not answer, her proxy mapped the call to the machine.
        (
            (
                "<sip:alice@example.com>;index=1,"
                "<sip:alice@192.0.2.4?Reason=SIP%3Bcause%3D408>;index=1.1;rc=1,"
                "<sip:vm@example.com;cause=408>;index=1.2;mp=1"
            ),
            "alice",
            DivertReason.NO_ANSWER,
        ),
        # The entries in another order say the same: the index counts.
        (
            "<sip:vm@example.com;cause=486>;index=1.10;mp=1.2,<sip:bob@example.com>;index=1.2,<sip:x@example.com>;index=1",
            "bob",
            DivertReason.BUSY,
        ),
        # Carriers (3GPP TS 24.604): forwarded twice, the first one is who was called.
        (
            (
                "<sip:+15550101@ims.example.net;user=phone>;index=1,"
                "<sip:+15550102@ims.example.net;user=phone;cause=302>;index=1.1;mp=1,"
                "<sip:+15550103@ims.example.net;user=phone;cause=408>;index=1.1.1;mp=1.1"
            ),
            "+15550101",
            DivertReason.UNCONDITIONAL,
        ),
        # RFC 4244 had no mp: the entry before is who sent it on, and its URI holds the response it gave.
        (
            "<sip:200@pbx?Reason=SIP%3Bcause%3D486%3Btext%3D%22Busy%20Here%22>;index=1,<sip:vm@pbx>;index=2",
            "200",
            DivertReason.BUSY,
        ),
        ("<sip:200@pbx?Reason=Q.850%3Bcause%3D19>;index=1,<sip:vm@pbx>;index=1.1", "200", DivertReason.NO_ANSWER),
        # np means that nothing changed; a 2xx and a missing cause say nothing either.
        ("<sip:200@pbx>;index=1,<sip:200@pbx>;index=1.1;np=1", None, None),
        ("<sip:200@pbx?Reason=SIP%3Bcause%3D200>;index=1,<sip:vm@pbx>;index=2", None, None),
        ("<sip:200@pbx?Reason=SIP>;index=1,<sip:vm@pbx>;index=2", None, None),
        # Nonsense in the index still leaves the order in which the entries came.
        ("<sip:200@pbx>;index=x,<sip:vm@pbx;cause=408>;index=1.x", "200", DivertReason.NO_ANSWER),
        ("<sip:200@pbx>,<sip:vm@pbx;cause=408>", "200", DivertReason.NO_ANSWER),
        ("<sip:200@pbx>;index=1,<sip:vm@pbx;cause=408>;index=1.1;mp=9.9.9", "200", DivertReason.NO_ANSWER),
    ],
)
def test_history_says_who_was_left_behind(history: str, by: str | None, reason: DivertReason | None) -> None:
    found = diversion_of(asking(history_info=history))
    assert (None if found is None else (found.by, found.reason)) == (None if by is None else (by, reason))


def test_one_line_that_cannot_be_read_does_not_spoil_the_others() -> None:
    request = asking(diversion=['"open <sip:x@y>', "nonsense, <sip:200@x>;reason=no-answer"])
    assert diverted(request) == ("200", "no-answer", "Diversion")


def test_a_way_without_end_is_read_to_a_limit() -> None:
    long = ", ".join(f"<sip:{number}@x>;reason=no-answer" for number in range(200))
    names = called(asking(diversion=long))
    assert names[1] == ("199", "Diversion"), "the first who forwarded stands last"
    assert len(names) == 1 + MOST_ENTRIES
    endless = [f"<sip:a@x>;x={'y' * MAX_LIST}", "<sip:200@x>;reason=no-answer"]
    assert diverted(asking(diversion=endless)) == ("200", "no-answer", "Diversion")
    deep = asking(history_info=f"<sip:1@x>;index={'1.' * 2000}1")
    assert called(deep)[1] == ("1", "History-Info")
