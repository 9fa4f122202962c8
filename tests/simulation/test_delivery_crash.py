"""Delivery dies at every single step, in every way; afterwards each call has exactly one row and one recording."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aftertone.errors import StorageError
from aftertone.model import EndReason, Kind
from tests.support.desk import Shop
from tests.support.recorder import Recorder
from tests.support.recordings import an_envelope, rows_of

STEPS = ("clean_temporary", "message_ids", "poll", "has_message", "put", "record_delivery", "record_refusal", "remove")
"""Everything that delivery does to the world, and the reading between."""


class Killed(BaseException):
    """The process is gone: nothing may catch it."""


@dataclass
class Fault:
    """Strikes at the n-th step, before or after it took effect."""

    at: int
    after: bool
    make: Callable[[], BaseException]
    count: int = 0

    def strike(self, *, after: bool) -> None:
        if not after:
            self.count += 1
        if self.count == self.at and after == self.after:
            raise self.make()


class Faulty:
    """Passes everything on to a part of delivery, and lets the fault strike around its steps."""

    def __init__(self, part: object, fault: Fault) -> None:
        self._part = part
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name not in STEPS:
            return found
        if name == "poll":
            return lambda: self._poll(found)

        def step(*args: Any, **kwargs: Any) -> Any:
            self._fault.strike(after=False)
            result = found(*args, **kwargs)
            self._fault.strike(after=True)
            return result

        return step

    def _poll(self, poll: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        items = poll()
        while True:
            self._fault.strike(after=False)
            item = next(items, None)
            if item is None:
                return
            yield item


def _write_journal(folder: Path) -> None:
    """Five calls and a refusal over several segments and two epochs."""
    line = Recorder(folder, segment_bytes=20_480)
    line.begin(an_envelope(seed=1), 1)
    line.packets(rows_of(seconds=0.4), 1, each=20)
    line.begin(an_envelope(seed=2), 2)
    line.packets([(*row[:5], b"\xff" * 160) for row in rows_of(seconds=0.2)], 2)
    line.end(2, EndReason.SILENCE)
    line.refuse(1)
    line.end(1)
    line.begin(an_envelope(seed=3), 3)
    line.end(3)
    line.begin(an_envelope(seed=4), 4)
    line.packets(rows_of(seconds=0.2, ssrc=4), 4)
    line.stop()
    line = Recorder(folder, segment_bytes=20_480)
    line.recording(an_envelope(seed=5), [(*row[:4], 77, row[5]) for row in rows_of(seconds=0.2)], 1)
    line.stop()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    shop = Shop(root)
    shop.close()
    _write_journal(shop.journal)
    return root


def _faulty(shop: Shop, fault: Fault) -> Any:
    parts = {"reader": shop.reader(), "blobs": shop.blobs, "catalog": shop.catalog}
    return shop.deliverer(**{name: Faulty(part, fault) for name, part in parts.items()})


def _check(shop: Shop) -> None:
    found = {message.id: message for message in shop.catalog.messages()}
    assert set(found) == {an_envelope(seed=seed).id for seed in range(1, 6)}
    kinds = [found[an_envelope(seed=seed).id].kind for seed in range(1, 6)]
    assert kinds == [Kind.MESSAGE, Kind.HANGUP, Kind.HANGUP, Kind.MESSAGE, Kind.MESSAGE]
    assert [found[an_envelope(seed=seed).id].audio_ms for seed in range(1, 5)] == [400, 200, 0, 200]
    audio = [key for key in shop.blobs.list() if key.endswith(".flac")]
    assert sorted(audio) == sorted(message.blob for message in found.values() if message.blob)
    assert [refusal.id.int for refusal in shop.catalog.refusals()] == [1]
    books = shop.books()
    assert books.ok, books.to_json()
    assert (books.pending, books.messages, books.hangups, books.refused) == (0, 3, 2, 1)
    assert not list(shop.root.rglob(".tmp-*"))
    assert len(shop.segments()) == 1, "the journal forgot all but its newest segment"
    told = [change.message_id for change in shop.catalog.changes(0) if change.what == "message"]
    assert len(told) == len(set(told)) == 5, "each message was announced once"


def _count_steps(root: Path, template: Path) -> int:
    shutil.copytree(template, root)
    shop, fault = Shop(root), Fault(0, after=False, make=Killed)
    shop.run(_faulty(shop, fault))
    _check(shop)
    shop.close()
    return fault.count


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_killed_delivery_starts_again_from_what_is_there(template: Path, tmp_path: Path, after: bool) -> None:
    steps = _count_steps(tmp_path / "clean", template)
    assert steps > 25
    struck = 0
    for at in range(1, steps + 1):
        root = tmp_path / str(at)
        shutil.copytree(template, root)
        shop = Shop(root)
        try:
            shop.run(_faulty(shop, Fault(at, after=after, make=Killed)))
        except Killed:
            struck += 1
        shop.close()
        shop = Shop(root)
        shop.run(shop.deliverer())
        _check(shop)
        shop.close()
        shutil.rmtree(root)
    assert struck > steps // 3


@pytest.mark.parametrize(
    ("kind", "after"), [(StorageError, False), (StorageError, True), (RuntimeError, False)], ids=str
)
def test_a_step_that_fails_is_made_up_for_by_the_same_process(
    template: Path, tmp_path: Path, kind: type[Exception], after: bool
) -> None:
    for at in range(1, _count_steps(tmp_path / "clean", template) + 1):
        root = tmp_path / str(at)
        shutil.copytree(template, root)
        shop = Shop(root)
        fault = Fault(at, after=after, make=lambda: kind("injected"))
        deliverer = _faulty(shop, fault)
        try:
            shop.run(deliverer)
            # The last thing may have been the one that failed; what is left is tidied a little later.
            shop.run(deliverer)
        except RuntimeError:
            # Only reading may fail like this, where no disk is to blame; the role starts a new deliverer.
            shop.run(shop.deliverer())
        shop.run(shop.deliverer())
        _check(shop)
        shop.close()
        shutil.rmtree(root)
