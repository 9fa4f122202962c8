"""Properties of the SIP parsers: they give back what was written, and raise nothing but ParseError."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftertone.sip import headers
from aftertone.sip.checks import read_whole, refusal, transaction_key
from aftertone.sip.diversion import called_of, diversion_of
from aftertone.sip.identity import claims_of
from aftertone.sip.message import ParseError, Request, Response, parse, salvage, serialize
from aftertone.sip.settings import AgentSettings
from aftertone.sip.stream import StreamSplitter
from aftertone.sip.uri import parse_uri
from tests.unit.sip.kit import request

TOKENS = st.text(alphabet="abcXYZ019-.!%*_+`'~", min_size=1, max_size=12)
VALUES = st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")), max_size=40).map(
    lambda text: text.strip(" \t")
)
HEADERS = st.dictionaries(
    TOKENS.map(lambda name: f"x-{name}".lower()), st.lists(VALUES, min_size=1, max_size=3), max_size=8
)
SETTINGS = AgentSettings()
SEEDS = (
    request(),
    request("BYE", to_tag="x"),
    request("ACK"),
    request("OPTIONS", extra="Require: a, b\r\nAccept: x/y"),
)


@given(TOKENS, TOKENS, HEADERS, st.binary(max_size=60))
def test_a_request_survives_writing_and_reading(
    method: str, user: str, fields: dict[str, list[str]], body: bytes
) -> None:
    message = Request(method, f"sip:{user}", dict(fields), body)
    again = parse(serialize(message))
    assert isinstance(again, Request)
    assert (again.method, again.uri, again.body) == (method, message.uri, body)
    assert {name: values for name, values in again.headers.items() if name != "content-length"} == fields
    assert again.get("content-length") == str(len(body))


@given(st.integers(100, 699), VALUES, HEADERS, st.binary(max_size=60))
def test_a_response_survives_writing_and_reading(
    status: int, reason: str, fields: dict[str, list[str]], body: bytes
) -> None:
    again = parse(serialize(Response(status, reason, dict(fields), body)))
    assert isinstance(again, Response)
    assert (again.status, again.reason, again.body) == (status, reason, body)


@given(
    VALUES, TOKENS, st.dictionaries(TOKENS.map(str.lower), st.none() | TOKENS | VALUES.map(headers.quote), max_size=4)
)
def test_an_address_survives_writing_and_reading(name: str, user: str, params: dict[str, str | None]) -> None:
    written = f"{headers.quote(name)} <sip:{user}>{headers.serialize_params(params)}"
    address = headers.parse_address(written)
    assert (address.display, address.uri, address.params) == (name, f"sip:{user}", params)
    assert headers.split_list(f"{written},{written} , {written}") == [written] * 3


@given(st.text(alphabet='",<>;\\ =a@:sip[]/\t%0', max_size=60))
def test_values_are_read_or_refused(value: str) -> None:
    for reading in (
        headers.parse_address,
        headers.parse_via,
        headers.parse_cseq,
        headers.parse_params,
        headers.parse_media_type,
        headers.parse_host_port,
        headers.split_list,
        parse_uri,
    ):
        try:
            reading(value)
        except ParseError:
            continue


def use(data: bytes) -> None:
    """Parse and read everything that an agent or application reads; only ParseError may come out."""
    try:
        message = parse(data)
    except ParseError:
        salvaged = salvage(data)
        assert salvaged is None or salvaged.via
        return
    if isinstance(message, Request):
        # These never raise: an odd header is no reason to lose a message.
        claims_of(message, trusted=True)
        diversion_of(message)
        list(called_of(message))
        try:
            read_whole(message)
            transaction_key(message, message.method)
            refusal(message, SETTINGS)
        except ParseError:
            return


@given(st.binary(max_size=300))
def test_noise_is_parsed_or_refused(data: bytes) -> None:
    use(data)


@given(st.integers(0, 2**32))
@settings(max_examples=300)
def test_damaged_messages_are_parsed_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randrange(1, 12)):
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.choice(b'\r\n\0"<>;,:\\ \xff[]%9')
        elif kind == 1:
            del data[at : at + rng.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        else:
            data[at:at] = bytes([rng.randrange(256)])
        if not data:
            return
    use(bytes(data))


@given(st.lists(st.sampled_from([*SEEDS, b"\r\n", b"\r\n\r\n"]), max_size=6), st.randoms(use_true_random=False))
def test_a_stream_is_cut_the_same_however_it_arrives(pieces: list[bytes], rng: random.Random) -> None:
    whole = b"".join(pieces)
    splitter = StreamSplitter()
    out: list[bytes] = []
    at = 0
    while at < len(whole):
        size = rng.randrange(1, 200)
        out += splitter.feed(whole[at : at + size])
        at += size
    assert out == [piece for piece in pieces if piece.strip()]
    assert splitter.failed == ""


class CountingText(str):
    """Text that counts the characters that searches and cuts walk over: the work of a scanner, without a clock."""

    __slots__ = ()
    work: ClassVar[int] = 0

    def _seen(self, count: int) -> None:
        CountingText.work += max(0, count)

    def find(self, sub: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        stop = len(self) if end is None else end
        found = super().find(sub, start, stop)
        self._seen((found if found >= 0 else stop) - start + 1)
        return found


@pytest.mark.parametrize(
    "shape",
    [
        lambda n: '"' + "\\" * n + '"',
        lambda n: '"' + "\\" * n,
        lambda n: '"' + "\\a" * n + '"',
        lambda n: '"' * n,
        lambda n: '"",' * n + "x",
        lambda n: "<>," * n + "x",
        lambda n: "<" * n,
        lambda n: '"a\\"<,' * n,
    ],
)
def test_the_scanners_walk_over_each_character_a_fixed_number_of_times(shape: Callable[[int], str]) -> None:
    for size in (100, 1000, 8000):
        text = CountingText(shape(size))
        for reading in (headers.split_list, lambda value: headers.closing_quote(value, 1)):
            CountingText.work = 0
            with contextlib.suppress(ParseError):
                reading(text)
            assert CountingText.work <= 4 * len(text) + 8
