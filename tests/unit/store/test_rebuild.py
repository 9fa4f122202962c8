"""A file says whose it is; a file that does not is left alone."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from aftertone.errors import DamagedError, StorageError, UsageError
from aftertone.model import Caller, DivertReason, Envelope, Origin, PayloadType, State
from aftertone.store.blobs import DirectoryBlobs, message_key
from aftertone.store.catalog import Catalog
from aftertone.store.rebuild import adopt, id_of
from aftertone.store.tags import DELIVERY_TAG, ENVELOPE_TAG, pack_tags, unpack_tags
from tests.support.messages import a_message

ORIGIN = Origin("trunk", "pbx", "From", "", "200", DivertReason.BUSY)
MESSAGE = a_message(1, caller=Caller("1", 'Zoë "\u0000"'), origin=ORIGIN)
ENVELOPE = Envelope(
    id=MESSAGE.id,
    mailbox=MESSAGE.mailbox,
    caller=MESSAGE.caller,
    started_unix_ms=MESSAGE.started_unix_ms,
    codec="PCMU",
    payload_types=(PayloadType(0, "PCMU", 8000),),
    mailbox_reason=MESSAGE.mailbox_reason,
    forwarded=MESSAGE.forwarded,
    origin=ORIGIN,
)
TAGS = pack_tags(ENVELOPE, MESSAGE)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "aftertone.db")
    yield opened
    opened.close()


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "blobs")


def _unpack(tags: Mapping[str, str]) -> object:
    return unpack_tags(
        tags,
        blob=MESSAGE.blob,
        sha256=MESSAGE.blob_sha256,
        size=MESSAGE.blob_bytes,
        delivered_unix_ms=MESSAGE.delivered_unix_ms,
    )


def test_tags_hold_a_whole_message() -> None:
    assert _unpack(TAGS) == MESSAGE
    assert _unpack({name.lower(): value for name, value in TAGS.items()}) == MESSAGE
    assert all("\0" not in value for value in TAGS.values())


@pytest.mark.parametrize("tag", [ENVELOPE_TAG, DELIVERY_TAG])
@pytest.mark.parametrize("value", ["", "{", "[]", "null", "{}", "[" * 100_000, '{"notes": 5}'])
def test_tags_that_no_version_wrote_are_damage(tag: str, value: str) -> None:
    with pytest.raises(DamagedError, match="does not carry the tags"):
        _unpack({**TAGS, tag: value})
    with pytest.raises(DamagedError):
        _unpack({name: text for name, text in TAGS.items() if name != tag})


def test_blobs_without_a_row_are_adopted_once(catalog: Catalog, blobs: DirectoryBlobs) -> None:
    key = message_key(MESSAGE.id)
    blobs.put(key, b"sound")
    blobs.put(message_key(MESSAGE.id, "rtpdump"), b"packets")
    blobs.put("greetings/00.flac", b"hello")
    assert adopt(catalog, blobs, lambda _: TAGS, lambda: 5).added == 1
    found = catalog.message(MESSAGE.id)
    assert (found.blob, found.blob_bytes, found.blob_sha256) == (key, 5, blobs.sha256(key))
    assert (found.state, found.delivered_unix_ms) == (State.NEW, 5)
    assert adopt(catalog, blobs, _fail, lambda: 6).added == 0


def test_strangers_are_named_and_the_others_adopted(catalog: Catalog, blobs: DirectoryBlobs) -> None:
    def read(file: BinaryIO) -> Mapping[str, str]:
        content = file.read()
        if content == b"not audio":
            raise UsageError("this is not audio")
        return TAGS if content == b"sound" else {}

    blobs.put("messages/00/stranger.flac", b"not audio")
    blobs.put("messages/01/untagged.flac", b"music")
    blobs.put(message_key(MESSAGE.id), b"sound")
    found = adopt(catalog, blobs, read, lambda: 5)
    assert found.added == 1
    assert found.strangers == ("messages/00/stranger.flac", "messages/01/untagged.flac")


@pytest.mark.parametrize("fault", [StorageError("unreadable"), OSError(errno.EIO, "bad block")])
def test_a_disk_that_fails_is_no_stranger_and_keeps_nobody_waiting(
    catalog: Catalog, blobs: DirectoryBlobs, fault: Exception
) -> None:
    other = a_message(2)

    def read(file: BinaryIO) -> Mapping[str, str]:
        if file.read() == b"sound":
            return TAGS
        raise fault

    blobs.put(message_key(MESSAGE.id), b"sound")
    blobs.put(message_key(other.id), b"spoilt")
    found = adopt(catalog, blobs, read, lambda: 5)
    assert (found.added, found.strangers, found.unread) == (1, (), (message_key(other.id),))
    assert catalog.has_message(MESSAGE.id)


def _fail(file: BinaryIO) -> Mapping[str, str]:
    raise StorageError("unreadable")


def test_ids_in_keys() -> None:
    assert id_of(message_key(MESSAGE.id)) == MESSAGE.id
    assert id_of(message_key(MESSAGE.id, "rtpdump")) == MESSAGE.id
    assert id_of("messages/00/stranger.flac") is None
