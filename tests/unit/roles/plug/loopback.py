"""A witness in this process, on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

from aftertone.roles.plug.book import Book
from aftertone.roles.plug.protocol import Counts
from aftertone.roles.plug.witness import Witness


class Running:
    """A witness on a thread of its own."""

    def __init__(self, file: Path) -> None:
        self.said: list[str] = []
        self.witness = Witness(file, 0, self.said.append, host="127.0.0.1")
        self.port = self.witness.port
        self.address = f"127.0.0.1:{self.port}"
        self._stop = Event()
        self._thread = Thread(target=self.witness.serve, args=[self._stop], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.witness.close()


@contextlib.contextmanager
def running_witness(file: Path) -> Iterator[Running]:
    """A witness that is gone afterwards, with its file closed."""
    running = Running(file)
    try:
        yield running
    finally:
        running.stop()


def counts_in(file: Path) -> Counts:
    """Return how far the newest run of a witness's file is."""
    copy = file.with_name("copy.jsonl")
    copy.write_bytes(file.read_bytes())
    book = Book(copy)
    try:
        return next(reversed(book.runs.values())).counts if book.runs else Counts()
    finally:
        book.close()
