"""The small registrar: RFC 3261 section 10.3, rule by rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.sip.checks import Refusal
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.message import Request, parse
from aftertone.sip.registrar import MAX_CONTACTS, Registrar
from tests.unit.sip.kit import FLOW, TCP_FLOW, S, request

OUTBOUND = 'Contact: <sip:ann@10.0.0.9:5071>;+sip.instance="<urn:uuid:1>";reg-id={}\r\nSupported: path, outbound\r\n'


def register(extra: str, *, cseq: int = 1, call_id: str = "reg@phone") -> Request:
    message = parse(request("REGISTER", extra=extra, cseq=cseq, call_id=call_id, drop="Contact"))
    assert isinstance(message, Request)
    return message


def contact(number: int, expires: str = "") -> str:
    return f"Contact: <sip:ann@192.0.2.{number}:5062>{expires}\r\n"


class Book:
    """A registrar, and what ``ann`` has in it."""

    def __init__(self) -> None:
        self.registrar = Registrar()
        self.now_ns = 0

    def send(self, extra: str, cseq: int = 1, call_id: str = "reg@phone", flow: Flow = FLOW) -> Refusal:
        return self.registrar.register("ann", register(extra, cseq=cseq, call_id=call_id), flow, self.now_ns)

    def hosts(self) -> list[str]:
        return [binding.uri.partition("@")[2] for binding in self.registrar.contacts("ann")]


def test_a_phone_registers_asks_refreshes_and_leaves() -> None:
    book = Book()
    ok = book.send(contact(7) + "Expires: 600\r\n")
    assert ok == Refusal(200, (("Contact", "<sip:ann@192.0.2.7:5062>;expires=600"),))
    book.now_ns = 100 * S
    assert book.send("", 2).fields == (("Contact", "<sip:ann@192.0.2.7:5062>;expires=500"),)
    assert book.send(contact(7), 3).fields == (("Contact", "<sip:ann@192.0.2.7:5062>;expires=3600"),)
    assert book.send(contact(7, ";expires=0"), 4) == Refusal(200)
    assert len(book.registrar) == 0


def test_a_contact_that_nobody_refreshes_is_gone() -> None:
    book = Book()
    book.send(contact(7, ";expires=60"))
    book.registrar.expire(60 * S - 1)
    assert book.hosts() == ["192.0.2.7:5062"]
    book.registrar.expire(60 * S)
    assert book.hosts() == []


@pytest.mark.parametrize(("asked", "granted"), [("", 3600), (";expires=90", 90), (";expires=9999999", 86400),
                                               (";expires=99999999999999", 86400), (";expires=soon", 3600)])  # fmt: skip
def test_how_long_a_contact_stays(asked: str, granted: int) -> None:
    assert Book().send(contact(7, asked)).fields[0][1].endswith(f";expires={granted}")


def test_too_short_a_time_is_423_and_changes_nothing() -> None:
    book = Book()
    refused = book.send(contact(7) + contact(8, ";expires=10"))
    assert refused == Refusal(423, (("Min-Expires", "60"),))
    assert book.hosts() == []


def test_an_older_request_of_the_same_call_changes_nothing() -> None:
    book = Book()
    book.send(contact(7), 5)
    assert book.send(contact(7, ";expires=0"), 5).status == 500
    assert book.send(contact(8) + contact(7, ";expires=0"), 4).status == 500
    assert book.hosts() == ["192.0.2.7:5062"]
    # Another call of the phone, after a restart of it, counts from anew.
    assert book.send(contact(7, ";expires=0"), 1, "other@phone").status == 200
    assert book.hosts() == []


def test_the_star_takes_everything_and_stands_alone() -> None:
    book = Book()
    book.send(contact(7) + contact(8))
    assert book.send("Contact: *\r\n", 2).status == 400
    assert book.send("Contact: *\r\nExpires: 60\r\n", 2).status == 400
    assert book.send("Contact: *\r\n" + contact(9) + "Expires: 0\r\n", 2).status == 400
    assert book.send("Contact: *\r\nExpires: 0\r\n", 1).status == 500
    assert len(book.hosts()) == 2
    assert book.send("Contact: *\r\nExpires: 0\r\n", 2) == Refusal(200)
    assert book.hosts() == []


def test_one_contact_more_takes_the_place_of_the_one_that_would_go_first() -> None:
    book = Book()
    for number in range(1, MAX_CONTACTS + 1):
        book.send(contact(number, f";expires={100 * number}"), number)
    book.send(contact(99, ";expires=60"), 10)
    assert book.hosts() == [f"192.0.2.{n}:5062" for n in (2, 3, 4, 5, 99)]
    assert book.send("".join(contact(n) for n in range(20, 26)), 11).status == 403


def test_the_same_place_by_another_spelling_is_one_contact() -> None:
    book = Book()
    book.send("Contact: <sip:ann@Phone.Example:5062;transport=UDP>\r\n", 1)
    book.send("Contact: <sip:ann@phone.example:5062;transport=udp;ob>\r\n", 2)
    assert len(book.registrar) == 1


def test_the_path_is_kept_and_said() -> None:
    book = Book()
    ok = book.send("Path: <sip:p1;lr>, <sip:p2;lr>\r\nSupported: path\r\n" + contact(7))
    assert ("Path", "<sip:p1;lr>") in ok.fields
    assert book.registrar.contacts("ann")[0].path == ("<sip:p1;lr>", "<sip:p2;lr>")
    assert book.send("Path: <sip:p;lr>\r\n" * 9 + contact(7), 2).status == 403


def test_a_phone_that_keeps_its_flow_has_one_contact_for_each() -> None:
    book = Book()
    ok = book.send(OUTBOUND.format(1), flow=TCP_FLOW)
    assert ("Require", "outbound") in ok.fields
    assert ok.fields[0][1] == '<sip:ann@10.0.0.9:5071>;expires=3600;+sip.instance="<urn:uuid:1>";reg-id=1'
    again = Flow("TCP", ("192.0.2.7", 41000), TCP_FLOW.local)
    book.send(OUTBOUND.format(1).replace("5071", "5099"), 1, "after-restart@phone", again)
    assert [(b.uri, b.flow) for b in book.registrar.contacts("ann")] == [("sip:ann@10.0.0.9:5099", again)]
    book.send(OUTBOUND.format(2), 2, "after-restart@phone", TCP_FLOW)
    assert len(book.registrar) == 2
    book.registrar.flow_lost(again)
    assert [b.flow for b in book.registrar.contacts("ann")] == [TCP_FLOW]


def test_a_phone_finds_its_own_contact_by_its_instance() -> None:
    ok = Book().send('Contact: <sip:ann@192.0.2.7>;+sip.instance="<urn:uuid:1>"\r\n')
    assert ok.fields == (("Contact", '<sip:ann@192.0.2.7>;expires=3600;+sip.instance="<urn:uuid:1>"'),)
    with pytest.raises(ParseError):
        Book().send(f'Contact: <sip:ann@192.0.2.7>;+sip.instance="{"x" * 300}"\r\n')


def test_after_a_lost_connection_a_phone_is_reached_at_its_address_if_it_has_one() -> None:
    book = Book()
    came = Flow("TCP", ("192.0.2.7", 40_001), TCP_FLOW.local)
    book.send("Contact: <sip:ann@192.0.2.7:5062;transport=tcp>\r\nContact: <sip:ann@phone.example>\r\n", flow=came)
    book.registrar.flow_lost(came)
    assert [(b.flow.transport, b.flow.remote) for b in book.registrar.contacts("ann")] == [("TCP", ("192.0.2.7", 5062))]


@pytest.mark.parametrize("extra", ["Contact: <mailto:a@b>\r\n", "Contact: <sip:a@b\r\n", OUTBOUND.format("x"),
                                   "Path: nowhere\r\n" + contact(7)])  # fmt: skip
def test_what_cannot_be_read_changes_nothing(extra: str) -> None:
    book = Book()
    with pytest.raises(ParseError):
        book.send(extra)
    assert len(book.registrar) == 0


def test_what_an_earlier_process_knew_gives_way_to_the_phone_itself() -> None:
    book, earlier = Book(), Book()
    earlier.send(contact(7) + contact(8))
    book.send(contact(7), 9)
    for binding in earlier.registrar.contacts("ann"):
        book.registrar.restore("ann", binding)
    assert book.hosts() == ["192.0.2.8:5062", "192.0.2.7:5062"]
    assert book.registrar.contacts("ann")[1].cseq == 9


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["", ";expires=0", ";expires=60", ";expires=5"]),
                          st.integers(1, 20), st.integers(0, 40)), max_size=40))  # fmt: skip
def test_whatever_comes_a_phone_has_few_contacts_and_each_ends(steps: list[tuple[int, str, int, int]]) -> None:
    book = Book()
    for number, expires, cseq, seconds in steps:
        book.now_ns += seconds * S
        answer = book.send(contact(number, expires), cseq, f"call{cseq % 3}")
        assert answer.status in (200, 423, 500)
        assert len(book.hosts()) == len(set(book.hosts())) <= MAX_CONTACTS
        if answer.status == 200:
            said = [value for name, value in answer.fields if name == "Contact"]
            assert len(said) == len(book.hosts())
    book.registrar.expire(book.now_ns + 3600 * S)
    assert len(book.registrar) == 0
