"""The frame of a record and the payloads of the small kinds."""

from __future__ import annotations

from uuid import UUID

import pytest

from aftertone.errors import DamagedError
from aftertone.journal.entry import unpack
from aftertone.journal.record import (
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Begin,
    End,
    Event,
    Kind,
    Record,
    Refused,
    Signalling,
    extend_crc,
    pack_header,
    parse_header,
    parse_record,
)
from aftertone.model import Caller

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def test_the_checksum_is_crc_32c() -> None:
    # the check value of RFC 3720 appendix B.4: 32 bytes of zeros
    assert extend_crc(0, bytes(32)) == 0x8A9136AA


def test_the_layout_is_the_documented_one() -> None:
    header = pack_header(Kind.EVENT, b"payload", seed=0x12345678, epoch=2, sequence=3, durable=1)
    assert len(header) == HEADER_BYTES == 40
    assert header[:32].hex() == "f541746a07000000020000000301000003000000000000000100000000000000"
    header_crc = extend_crc(0x12345678, header[:32])
    assert header[32:36] == header_crc.to_bytes(4, "little")
    assert header[36:40] == extend_crc(header_crc, b"payload").to_bytes(4, "little")


def test_a_record_belongs_to_one_segment_and_one_epoch() -> None:
    data = b"??" + pack_header(Kind.EVENT, b"payload", seed=7, epoch=2, sequence=3, durable=1)
    header = parse_header(data, 2, seed=7, epoch=2)
    assert header is not None
    assert parse_record(header, b"payload") == Record(Kind.EVENT, 2, 3, 1, b"payload")
    assert parse_record(header, b"payloaD") is None
    assert parse_record(header, b"payloa") is None
    assert parse_header(data, 2, seed=8, epoch=2) is None
    assert parse_header(data, 2, seed=7, epoch=3) is None
    assert parse_header(data, 1, seed=7, epoch=2) is None
    assert parse_header(data[:-1], 2, seed=7, epoch=2) is None


def test_the_length_is_bounded_both_ways() -> None:
    with pytest.raises(ValueError, match="at most 4194304 bytes"):
        pack_header(Kind.EVENT, bytes(MAX_PAYLOAD_BYTES + 1), seed=0, epoch=1, sequence=1, durable=0)
    fine = bytes(MAX_PAYLOAD_BYTES)
    assert parse_header(pack_header(1, fine, seed=0, epoch=1, sequence=1, durable=0), 0, seed=0, epoch=1) is not None


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        (Kind.BEGIN, Begin(ID, 2**32 - 1, b'{"v":1}', b"INVITE sip:a@b SIP/2.0\r\n\r\n", -1, 1_700_000_000_000)),
        (Kind.BEGIN, Begin(ID, 0, b"", b"", 0, 0)),
        (Kind.EVENT, Event(5, 2**62, "digit", "#")),
        (Kind.EVENT, Event(5, 0, "Zeichen: ü")),
        (Kind.END, End(5, 17, 1_700_000_000_000, "silence", 16)),
        (Kind.REFUSED, Refused(ID, 12, 486, "busy", Caller("+4930", "Öl & Co"), "sip:x@y")),
        (Kind.SIGNALLING, Signalling(ID, 2**32 - 1, b'{"v":1}')),
    ],
)
def test_entries_round_trip_and_every_truncation_is_declared(
    kind: Kind, entry: Begin | Event | End | Refused | Signalling
) -> None:
    payload = entry.pack()
    assert unpack(Record(kind, 1, 1, 0, payload)) == entry
    for length in range(len(payload)):
        with pytest.raises(DamagedError):
            unpack(Record(kind, 1, 1, 0, payload[:length]))
    with pytest.raises(DamagedError):
        unpack(Record(kind, 1, 1, 0, payload + b"x"))


def test_unknown_kinds_and_versions_are_refused_by_name() -> None:
    with pytest.raises(DamagedError, match=r"record 9 of epoch 4 has kind 77 in version 1.*read it with the version"):
        unpack(Record(77, 4, 9, 0, b""))
    with pytest.raises(DamagedError, match="kind 3 in version 2"):
        unpack(Record(Kind.EVENT, 4, 9, 0, b"", version=2))
    with pytest.raises(DamagedError, match="UTF-8"):
        unpack(Record(Kind.EVENT, 4, 9, 0, Event(1, 1, "abc").pack().replace(b"abc", b"a\xffc")))
