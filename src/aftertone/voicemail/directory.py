"""The directory: what the line knows about mailboxes and greetings, from its own disk.

Owns: the snapshot's file format, reading it, publishing it whole. Refuses to know: the catalog it was made from.

Theory of operation: the desk publishes ``directory.json`` beside the greetings it names: files first, each synced, then
the new snapshot under a temporary name, synced, renamed, the folder synced. So a reader sees the old machine or the new
one, never half of one, also after a power cut. The line keeps the last snapshot it could read and goes on with that.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aftertone.errors import DamagedError, StorageError
from aftertone.files import OS_FILES, Files, make_directories, write_whole
from aftertone.model import Mailbox
from aftertone.numbers import NumberIndex

FILE: Final = "directory.json"
GREETINGS: Final = "greetings"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Directory:
    """All mailboxes of the machine at one moment."""

    version: int = 0
    default_mailbox: str = "main"
    mailboxes: Mapping[str, Mailbox] = field(default_factory=lambda: {"main": Mailbox("main")})
    _names: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _numbers: NumberIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", {name.casefold(): name for name in self.mailboxes})
        numbers = {name: (name, *mailbox.numbers) for name, mailbox in self.mailboxes.items()}
        object.__setattr__(self, "_numbers", NumberIndex(numbers))

    def named(self, text: str) -> Mailbox | None:
        """Return the mailbox of that name, whatever its case, or of that number, however it is spelt; else None.

        A number counts when it is the same, or ends like the number of one mailbox alone (``aftertone.numbers``). A mailbox that has
        a number for its name is found by other spellings of it too.
        """
        name = self._names.get(text.casefold()) or self._numbers.owner(text)
        return None if name is None else self.mailboxes[name]

    def fallback(self, user: str) -> Mailbox | None:
        """Return the mailbox of a call in which nothing names one, or None (404). ``user`` is that of its request URI.

        A machine with a single mailbox takes every call for it, because a provider rings us under a number that we
        never heard of.
        """
        default = self.mailboxes.get(self.default_mailbox)
        return default if not user or len(self.mailboxes) == 1 else None


def to_json(directory: Directory) -> str:
    """Return the snapshot's text."""
    boxes = [
        {"name": m.name, "rings": m.rings, "greeting": m.greeting, "numbers": list(m.numbers)}
        for m in directory.mailboxes.values()
    ]
    value = {
        "v": VERSION,
        "version": directory.version,
        "default_mailbox": directory.default_mailbox,
        "mailboxes": boxes,
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Directory:
    """Read a snapshot. Raises DamagedError when it is none, or of a version that this program does not know."""
    try:
        value = json.loads(text)
        if value["v"] != VERSION:
            raise DamagedError(f"the directory has format version {value['v']}; this program reads {VERSION}")
        boxes = [
            # Numbers came later: a snapshot without them is an older desk's, and right.
            Mailbox(str(m["name"]), m.get("rings"), m.get("greeting"), tuple(map(str, m.get("numbers", ()))))
            for m in value["mailboxes"]
        ]
        if not all(_plain(m) for m in boxes):
            raise DamagedError("the directory names a greeting outside its folder or a malformed ring count")
        return Directory(int(value["version"]), str(value["default_mailbox"]), {m.name: m for m in boxes})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"the directory is not readable: {error!r}") from None


def _plain(mailbox: Mailbox) -> bool:
    greeting_ok = mailbox.greeting is None or (isinstance(mailbox.greeting, str) and "/" not in mailbox.greeting)
    return greeting_ok and (mailbox.rings is None or (isinstance(mailbox.rings, int) and 0 <= mailbox.rings <= 20))


def read(folder: Path) -> Directory:
    """Read the snapshot in ``folder``. Raises StorageError when there is none, DamagedError when it is not readable."""
    try:
        return from_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {folder / FILE}: {error}") from None


def publish(folder: Path, directory: Directory, greetings: Mapping[str, bytes], files: Files = OS_FILES) -> None:
    """Write ``greetings`` (file name to FLAC bytes) that are not there yet, then the snapshot. Durable on return.

    Greetings that the new snapshot no longer names are removed afterwards. Raises StorageError; then the old snapshot holds.
    """
    try:
        make_directories(files, folder)
        make_directories(files, folder / GREETINGS)
        for name, content in greetings.items():
            target = folder / GREETINGS / name
            if not target.exists() or target.stat().st_size != len(content):
                write_whole(files, target, content)
        # Also when all were there: whoever wrote them may have died before the sync of their names.
        files.sync_directory(folder / GREETINGS)
        write_whole(files, folder / FILE, to_json(directory).encode())
        _forget(files, folder / GREETINGS, (m.greeting for m in directory.mailboxes.values()))
    except OSError as error:
        raise StorageError(f"cannot publish the directory in {folder}: {error}") from None


def settle(folder: Path, files: Files = OS_FILES) -> None:
    """Make the names of a snapshot durable that is there already. Raises StorageError."""
    try:
        files.sync_directory(folder / GREETINGS)
        files.sync_directory(folder)
    except OSError as error:
        raise StorageError(f"cannot sync the directory in {folder}: {error}") from None


def _forget(files: Files, folder: Path, named: Iterable[str | None]) -> None:
    keep = set(named)
    for path in folder.iterdir():
        if path.name not in keep:
            # A reader that is just opening it keeps the file; one that comes later has the new snapshot.
            with contextlib.suppress(FileNotFoundError):
                files.unlink(path)
