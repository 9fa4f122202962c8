"""Keys in session descriptions: which lines are taken, which are passed over, and that no key shows."""

from __future__ import annotations

import base64

import pytest

from aftertone.model import MasterKey, Suite
from aftertone.sdp.crypto import (
    MAX_LINES,
    OFFERED,
    CryptoLine,
    Keys,
    Secrecy,
    accepted,
    answer_line,
    choose,
    offer_lines,
    parse_line,
    parse_lines,
    serialize_line,
)

SECRET = base64.b64encode(bytes(range(30))).decode()
CM = "AES_CM_128_HMAC_SHA1_80"


def _entropy(size: int) -> bytes:
    return bytes(range(50, 50 + size))


def _line(suite: Suite, tag: int = 1) -> CryptoLine:
    return CryptoLine(tag, MasterKey(suite, bytes(suite.key_bytes), bytes(suite.salt_bytes)))


@pytest.mark.parametrize(
    ("value", "mki"),
    [
        (f"1 {CM} inline:{SECRET}", b""),
        (f"1  {CM}\tinline:{SECRET}", b""),
        (f"1 {CM.lower()} INLINE:{SECRET}", b""),
        (f"1 {CM} inline:{SECRET}|2^20", b""),
        (f"1 {CM} inline:{SECRET}|2^48", b""),
        (f"1 {CM} inline:{SECRET}|1048576", b""),
        (f"1 {CM} inline:{SECRET}|1:4", b"\0\0\0\x01"),
        (f"1 {CM} inline:{SECRET}|2^31|1066:2", b"\x04\x2a"),
        (f"1 {CM} inline:{SECRET}|2^31|1:128", bytes(127) + b"\x01"),
        (f"1 {CM} inline:{SECRET} WSH=64 -FANCY -KDR=3", b""),
    ],
)
def test_lines_that_are_taken(value: str, mki: bytes) -> None:
    expected = MasterKey(Suite.AES_128_CM_80, bytes(range(16)), bytes(range(16, 30)), mki)
    assert parse_line(value) == CryptoLine(1, expected)


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"1 {CM}",
        f"x {CM} inline:{SECRET}",
        f"-1 {CM} inline:{SECRET}",
        f"1000000000 {CM} inline:{SECRET}",
        f"1 F8_128_HMAC_SHA1_80 inline:{SECRET}",
        f"1 AEAD_AES_128_GCM inline:{SECRET}",
        f"1 {CM} uri:{SECRET}",
        f"1 {CM} {SECRET}",
        f"1 {CM} inline:{SECRET[:-4]}",
        f"1 {CM} inline:{SECRET}AAAA",
        f"1 {CM} inline:{SECRET[:-1]}*",
        f"1 {CM} inline:{SECRET[:-1]}é",
        f"1 {CM} inline:{SECRET}===",
        f"1 {CM} inline:{SECRET};inline:{SECRET}",
        f"1 {CM} inline:{SECRET}|2^19",
        f"1 {CM} inline:{SECRET}|2^49",
        f"1 {CM} inline:{SECRET}|2^",
        f"1 {CM} inline:{SECRET}|0",
        f"1 {CM} inline:{SECRET}|281474976710657",
        f"1 {CM} inline:{SECRET}|soon",
        f"1 {CM} inline:{SECRET}|1:4|2^20",
        f"1 {CM} inline:{SECRET}|1:4|1:4",
        f"1 {CM} inline:{SECRET}|2^20|1:4|",
        f"1 {CM} inline:{SECRET}|1:0",
        f"1 {CM} inline:{SECRET}|1:129",
        f"1 {CM} inline:{SECRET}|256:1",
        f"1 {CM} inline:{SECRET}|:1",
        f"1 {CM} inline:{SECRET}|{'9' * 5000}:1",
        f"1 {CM} inline:{SECRET} KDR=3",
        f"1 {CM} inline:{SECRET} UNENCRYPTED_SRTP",
        f"1 {CM} inline:{SECRET} UNENCRYPTED_SRTCP",
        f"1 {CM} inline:{SECRET} UNAUTHENTICATED_SRTP",
        f"1 {CM} inline:{SECRET} FEC_ORDER=FEC_SRTP",
        f"1 {CM} inline:{SECRET} WSH=63",
        f"1 {CM} inline:{SECRET} WSH=",
        f"1 {CM} inline:{SECRET} FANCY",
        f"1 {CM} inline:{SECRET} {'-X ' * 600}",
    ],
)
def test_lines_that_are_passed_over(value: str) -> None:
    assert parse_line(value) is None


def test_padding_may_be_missing() -> None:
    secret = base64.b64encode(bytes(46)).decode()
    assert secret.endswith("==")
    assert parse_line(f"1 AES_256_CM_HMAC_SHA1_80 inline:{secret.rstrip('=')}") is not None


def test_only_so_many_lines_are_read() -> None:
    lines = [("crypto", "1 UNKNOWN inline:x")] * MAX_LINES + [("crypto", f"1 {CM} inline:{SECRET}")]
    assert parse_lines(lines) == ()
    assert len(parse_lines(lines[1:])) == 1
    assert parse_lines([("cryptos", f"1 {CM} inline:{SECRET}")]) == ()


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ([Suite.AES_128_CM_32, Suite.AES_128_CM_80, Suite.AES_128_GCM], Suite.AES_128_GCM),
        ([Suite.AES_128_CM_80, Suite.AES_128_GCM, Suite.AES_256_GCM], Suite.AES_128_GCM),
        ([Suite.AES_128_CM_32, Suite.AES_256_CM_80, Suite.AES_128_CM_80], Suite.AES_256_CM_80),
        ([Suite.AES_128_CM_32], Suite.AES_128_CM_32),
        ([], None),
    ],
)
def test_gcm_first_then_longer_tags_then_the_order_of_the_offer(offered: list[Suite], taken: Suite | None) -> None:
    chosen = choose([_line(suite) for suite in offered])
    assert (chosen.master.suite if chosen else None) == taken


@pytest.mark.parametrize("suite", list(Suite))
def test_an_answer_has_a_key_of_its_own_and_the_same_identifier(suite: Suite) -> None:
    offered = CryptoLine(9, MasterKey(suite, bytes(suite.key_bytes), bytes(suite.salt_bytes), b"\0\x07"))
    ours = answer_line(offered, Secrecy("optional", _entropy))
    assert ours.tag == 9 and ours.master.suite is suite
    assert ours.master.key == _entropy(suite.key_bytes) != offered.master.key
    name, value = serialize_line(ours)
    assert name == "crypto" and value.startswith(f"9 {suite} inline:") and value.endswith("|7:2")
    assert parse_line(value) == ours


def test_a_key_that_is_offered_again_gets_ours_again_and_another_one_a_new_one() -> None:
    offered = _line(Suite.AES_128_GCM, 3)
    ours = answer_line(offered, Secrecy("optional", _entropy))
    later = Secrecy("optional", lambda size: b"n" * size, Keys(ours.master, offered.master, "RTP/SAVP"))
    assert answer_line(offered, later) == ours
    assert answer_line(CryptoLine(3, _other(offered.master)), later).master.key == b"n" * 16
    assert offer_lines(later) == (CryptoLine(1, ours.master),)


def _other(master: MasterKey) -> MasterKey:
    return MasterKey(master.suite, master.key[::-1][:-1] + b"x", master.salt)


def test_an_offer_has_a_key_for_each_suite() -> None:
    calls = iter(range(100))
    lines = offer_lines(Secrecy("required", lambda size: bytes((next(calls),)) * size))
    assert [line.tag for line in lines] == [1, 2, 3, 4, 5]
    assert tuple(line.master.suite for line in lines) == OFFERED
    assert len({line.master.key[:1] + line.master.salt[:1] for line in lines}) == len(lines)
    assert parse_lines(map(serialize_line, lines)) == lines


def test_an_answer_must_name_tag_and_suite_of_what_it_takes() -> None:
    offered = offer_lines(Secrecy("required", _entropy))
    theirs = _line(offered[2].master.suite, 3)
    assert accepted(offered, [_line(Suite.AES_128_CM_80, 1), theirs]) == (offered[2].master, theirs.master)
    assert accepted(offered, [_line(Suite.AES_128_CM_80, 7)]) is None
    assert accepted(offered, []) is None


def test_a_line_does_not_show_its_key() -> None:
    line = CryptoLine(1, MasterKey(Suite.AES_128_GCM, b"K" * 16, b"S" * 12))
    assert "KKK" not in repr(line) and "SSS" not in repr(line)
