"""Adopts recordings that have no row: after the catalog was deleted, or when a delivery stopped between blob and row.

Owns: finding them and making their rows. Refuses to know: audio files; how to read tags is handed in.

Theory of operation: every message's audio carries its envelope, so a row can always be made again; it is new then, since what
an owner did to a message is known to the catalog alone. Adopting twice changes nothing. A file that tells nothing, or that
the disk does not give, is left where it is and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final
from uuid import UUID

from aftertone.errors import EnvironmentFault, UsageError
from aftertone.store.blobs import DirectoryBlobs
from aftertone.store.catalog import Catalog
from aftertone.store.faults import storage_faults
from aftertone.store.tags import unpack_tags

PREFIX: Final = "messages/"
SUFFIX: Final = ".flac"


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was found."""

    added: int
    strangers: tuple[str, ...]
    """Keys of audio files that do not say which message they are."""
    unread: tuple[str, ...] = ()
    """Keys of audio files that the disk did not give; another try may."""


def adopt(
    catalog: Catalog,
    blobs: DirectoryBlobs,
    read_tags: Callable[[BinaryIO], Mapping[str, str]],
    unix_ms: Callable[[], int],
) -> Adopted:
    """Make a row for each message blob that has none; durable on return.

    ``read_tags`` reads an open audio file and may raise UsageError. Costs a listing and one query, and one read of each
    blob that is adopted. Raises StorageError when the folder or the catalog is away; doing it again goes on.
    """
    known = catalog.message_ids()
    added = 0
    strangers: list[str] = []
    unread: list[str] = []
    for key in blobs.list(PREFIX):
        message_id = id_of(key)
        if message_id in known or not key.endswith(SUFFIX):
            continue
        try:
            with blobs.open(key) as file, storage_faults("reading a recording", blobs.root / key):
                tags = read_tags(file)
            message = unpack_tags(
                tags, blob=key, sha256=blobs.sha256(key), size=blobs.size(key), delivered_unix_ms=unix_ms()
            )
        except (UsageError, EnvironmentFault) as error:
            # Whatever is wrong with this one file must not keep all others, and the messages to come, from their rows.
            (unread if error.retry else strangers).append(key)
            continue
        try:
            added += catalog.record_delivery(message)
        except UsageError:
            strangers.append(key)
    return Adopted(added, tuple(strangers), tuple(unread))


def id_of(key: str) -> UUID | None:
    """Return the message id in a key such as ``messages/9f/<id>.flac``, None when there is none."""
    stem = key.rpartition("/")[2].partition(".")[0]
    try:
        return UUID(stem)
    except ValueError:
        return None
