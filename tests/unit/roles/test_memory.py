"""What is remembered of phones over a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aftertone.roles.memory import Memory, Watch
from aftertone.sip.events import DialogId
from aftertone.sip.registrar import Binding
from aftertone.sip.subscriptions import Kept
from tests.support.clerk import AtOnce
from tests.unit.sip.kit import FLOW, TCP_FLOW, S

BINDING = Binding("sip:a@b", "call", 7, 600 * S, TCP_FLOW, ("<sip:p;lr>",), ('"<urn:uuid:1>"', "1"), '"<urn:uuid:1>"')
KEPT = Kept(DialogId("c", "us", "them"), "<sip:l>;tag=us", "<sip:r>;tag=them", ("<sip:p;lr>",), "sip:a@b", FLOW, 5, 2,
            "message-summary;id=1", "main", 500 * S)  # fmt: skip
WATCH = Watch(("main", "office"), "sip:main@b", "phone hall", ("192.0.2.7", 5062))


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "phones.json"
    Memory(path, boot_id=b"1", clerk=AtOnce()).write([("hall", BINDING)], [(KEPT, WATCH)], 100 * S)
    assert Memory(path, boot_id=b"1", clerk=AtOnce()).read(200 * S) == ([("hall", BINDING)], [(KEPT, WATCH)])
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_over_is_not(tmp_path: Path) -> None:
    path = tmp_path / "phones.json"
    Memory(path, boot_id=b"1", clerk=AtOnce()).write([("hall", BINDING)], [(KEPT, WATCH)], 100 * S)
    assert Memory(path, boot_id=b"1", clerk=AtOnce()).read(500 * S) == ([("hall", BINDING)], [])


def test_after_a_reboot_as_much_is_left_as_when_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "phones.json"
    Memory(path, boot_id=b"1", clerk=AtOnce()).write([("hall", BINDING)], [(KEPT, WATCH)], 100 * S)
    bindings, subscriptions = Memory(path, boot_id=b"2", clerk=AtOnce()).read(3 * S)
    assert bindings == [("hall", replace(BINDING, expires_ns=503 * S))]
    assert subscriptions == [(replace(KEPT, expires_ns=403 * S), WATCH)]


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "phones.json"
    memory = Memory(path, boot_id=b"1", clerk=AtOnce())
    memory.write([("hall", BINDING)], [], 100 * S)
    path.unlink()
    memory.write([("hall", BINDING)], [], 200 * S)
    assert not path.exists()
    memory.write([], [], 200 * S)
    assert path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v": 2}', '{"v": 1, "boot": "31", "written_ns": 1, "bindings": [[1]]}',
                                  '{"v": 1, "boot": "31", "written_ns": 1, "bindings": [], "subscriptions": [[{}, {}]]}'])  # fmt: skip
def test_what_cannot_be_read_is_forgotten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "phones.json"
    path.write_text(text)
    assert Memory(path, boot_id=b"1", clerk=AtOnce()).read(1) == ([], [])


def test_a_disk_that_does_not_take_it_costs_the_memory_alone(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "missing" / "phones.json", boot_id=b"1", clerk=AtOnce())
    memory.write([("hall", BINDING)], [], 1)
    assert memory.read(1) == ([], [])
