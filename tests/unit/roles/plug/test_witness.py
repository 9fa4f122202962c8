"""The witness: what it keeps, and what it does not put up with."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aftertone.errors import BusyError, EnvironmentFault, PeerError, StorageError, UsageError
from aftertone.roles.plug import book as books
from aftertone.roles.plug import link as links
from aftertone.roles.plug import witness as witnesses
from aftertone.roles.plug.book import Book, Run
from aftertone.roles.plug.link import Link
from aftertone.roles.plug.protocol import Counts, RunState, serialize
from aftertone.roles.plug.witness import Witness
from tests.support.machine import wait_until
from tests.unit.roles.plug.loopback import Running, running_witness

RUN, PLACE, BOOT = "a1" * 16, "b2" * 16, "c3" * 16
OTHER = "d4" * 16


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "acks.jsonl"


@pytest.fixture
def running(file: Path) -> Iterator[Running]:
    with running_witness(file) as made:
        yield made


def say(running: Running, *lines: bytes) -> bytes:
    """Send lines on a connection of their own; return all that is answered before the other side hangs up."""
    with socket.create_connection(("127.0.0.1", running.port), 5) as sock:
        sock.sendall(b"".join(lines))
        answer = b""
        while b"refused" not in answer and (data := sock.recv(4096)):
            answer += data
        return answer


def begin(run: str = RUN) -> bytes:
    return serialize("begin", run=run, place=PLACE, boot=BOOT)


# what it keeps


def test_a_run_from_begin_to_verdict_outlives_the_witness(file: Path) -> None:
    with running_witness(file) as running:
        with Link(running.address) as link:
            assert link.ask("", PLACE).state is RunState.NONE
            link.begin(RUN, PLACE, BOOT)
            for what, number in (("record", 8), ("file", 1), ("row", 1), ("record", 16), ("mark", 1)):
                link.acknowledge(what, number)
        wait_until(lambda: any("fell silent" in line for line in running.said), "the silence to be told")
    assert "16 records, 1 file, 1 row, 1 mark" in running.said[-1]
    with running_witness(file) as running, Link(running.address) as link:
        told = link.ask(RUN, OTHER)
        assert (told.run, told.boot, told.state, told.counts) == (RUN, BOOT, RunState.OPEN, Counts(16, 1, 1, 1))
        assert link.ask("", PLACE) == link.ask(OTHER, PLACE) == told
        link.judge(RUN, 3)
        assert link.ask(RUN, "").state is RunState.BAD
        assert link.ask("", PLACE).state is RunState.NONE
    assert "THE DISK LIED: 3 things are gone" in running.said[-1]


def test_a_run_that_is_stopped_is_not_a_cut(running: Running) -> None:
    with Link(running.address) as link:
        link.begin(RUN, PLACE, BOOT)
        link.acknowledge("record", 8)
        link.end()
    with Link(running.address) as link:
        assert link.ask(RUN, PLACE).state is RunState.ENDED
    assert not any("silent" in line for line in running.said)


def test_the_newest_open_run_of_a_place_is_found(file: Path) -> None:
    book = Book(file)
    for name in (RUN, OTHER):
        book.keep(Run(name, PLACE, BOOT))
    assert book.find("", PLACE) == Run(OTHER, PLACE, BOOT)
    book.keep(Run(OTHER, PLACE, BOOT, RunState.GOOD))
    assert book.find("", PLACE) == Run(RUN, PLACE, BOOT)
    assert book.find("", RUN) is None
    book.close()


def test_half_a_line_that_a_crash_left_is_cut_off(file: Path) -> None:
    book = Book(file)
    book.keep(Run(RUN, PLACE, BOOT, counts=Counts(record=5)))
    book.close()
    with file.open("ab") as torn:
        torn.write(b'{"at":"2026')
    for number in (6, 7):
        book = Book(file)
        assert book.runs[RUN].counts.record == number - 1
        book.keep(Run(RUN, PLACE, BOOT, counts=Counts(record=number)))
        book.close()


@pytest.mark.parametrize("content", [b"hello\n", b"[]\n", b'{"run":"x"}\n', b"\xff\n", b"[" * 5000 + b"\n"])
def test_a_file_that_is_no_book_is_left_alone(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError, match="is not a file of a witness"):
        Book(file)
    assert file.read_bytes() == content


def test_two_witnesses_do_not_share_a_file(running: Running, file: Path) -> None:
    with pytest.raises(UsageError, match="another witness keeps"):
        Book(file)


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="--file"):
        Book(tmp_path / "nowhere" / "acks.jsonl")


def test_a_port_that_is_taken(running: Running, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="--port"):
        Witness(tmp_path / "other.jsonl", running.port, lambda _: None, host="127.0.0.1")


# what it does not put up with


@pytest.mark.parametrize(
    "lines",
    [
        [b"GET / HTTP/1.1\r\n"],
        [b"x" * 100_000],
        [serialize("ack", what="record", n=1)],
        [begin(), serialize("ack", what="record", n=0)],
        [begin(), serialize("ack", what="record", n=9), serialize("ack", what="record", n=9)],
        [begin(), serialize("ack", what="everything", n=1)],
        [begin(), serialize("ack", what=["record"], n=1)],
        [begin(), serialize("ack", what="record", n=10**9)],
        [begin(), begin(OTHER)],
        [begin("")],
        [begin("../../../etc/passwd")],
        [serialize("end")],
        [serialize("verdict", run=RUN, lost=0)],
        [serialize("shutdown")],
        [b'{"v":9,"say":"ask"}\n'],
    ],
)
def test_what_cannot_be_is_refused_and_hung_up_on(running: Running, lines: list[bytes]) -> None:
    assert b'"say":"refused"' in say(running, *lines)
    with Link(running.address) as link:
        assert link.ask("", OTHER).state is RunState.NONE


def test_a_run_begins_once(running: Running) -> None:
    with Link(running.address) as link:
        link.begin(RUN, PLACE, BOOT)
    with Link(running.address) as link, pytest.raises(PeerError, match="with a name of its own"):
        link.begin(RUN, PLACE, BOOT)


def test_who_comes_second_is_told_to_wait(running: Running) -> None:
    with Link(running.address) as link:
        link.begin(RUN, PLACE, BOOT)
        with Link(running.address) as other, pytest.raises(BusyError, match="another machine"):
            other.ask("", PLACE)
        link.acknowledge("record", 1)
        link.end()


def test_a_machine_that_came_back_is_heard_although_its_old_connection_stands(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plug that was pulled closes no connection."""
    monkeypatch.setattr(witnesses, "SILENT_S", 0.0)
    with Link(running.address) as dead:
        dead.begin(RUN, PLACE, BOOT)
        dead.acknowledge("record", 8)
        with Link(running.address) as link:
            assert link.ask("", PLACE).counts == Counts(record=8)


def test_nobody_stays_for_ever(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "IDLE_S", 0.0)
    assert b"took too long" in say(running)


def test_a_full_book_takes_no_new_run(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "MOST_RUNS", 1)
    with Link(running.address) as link:
        link.begin(RUN, PLACE, BOOT)
        link.end()
    with (
        Link(running.address) as link,
        pytest.raises(PeerError, match="is full: start the witness with another --file"),
    ):
        link.begin(OTHER, PLACE, BOOT)


def test_a_book_has_an_end(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with Link(running.address) as link:
        link.begin(RUN, PLACE, BOOT)
        monkeypatch.setattr(books, "FILE_BYTES", 400)
        with pytest.raises((EnvironmentFault, PeerError)):
            for number in range(1, 10_000):
                link.acknowledge("record", number)
                link.ask(RUN, PLACE)


# the other side


@pytest.mark.parametrize("address", ["", "host", "host:", ":7071", "host:0", "host:99999", "host:x"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        Link(address)


def test_a_witness_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(EnvironmentFault, match=r"cannot be reached: .*aftertone doctor --witness"):
            Link(f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", PeerError, "not of this protocol"),
        (b"", EnvironmentFault, "hung up"),
        (serialize("ready"), PeerError, "does not know"),
        (
            serialize("told", run="", boot="", state="strange", record=0, file=0, row=0, mark=0),
            PeerError,
            "does not know",
        ),
        (serialize("told", run="", boot="", state="open"), PeerError, "record must be"),
        (None, EnvironmentFault, "does not answer"),
    ],
)
def test_something_else_listens_there(
    answer: bytes | None, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "ANSWER_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, Link(f"127.0.0.1:{server.getsockname()[1]}") as link:
        peer, _ = server.accept()
        with peer:
            if answer is not None:
                peer.sendall(answer)
                peer.shutdown(socket.SHUT_WR)
            with pytest.raises(error, match=said):
                link.ask("", PLACE)
