"""The test of a disk: a process that is killed while it writes, honest disks, and disks that lie."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aftertone.errors import EnvironmentFault, StorageError, StorageFullError, UsageError
from aftertone.model import Action
from aftertone.roles.plug import trial
from aftertone.roles.plug.book import Book, Run
from aftertone.roles.plug.evidence import Scratch, file, find_losses, message_id, record
from aftertone.roles.plug.link import Link
from aftertone.roles.plug.load import Load
from aftertone.roles.plug.protocol import KINDS, Counts, RunState
from aftertone.roles.plug.trial import PlugTest
from aftertone.store.blobs import message_key
from aftertone.store.catalog import Catalog
from tests.support.machine import wait_until
from tests.unit.roles.plug.loopback import Running, counts_in, running_witness

RUN = "a1" * 16


class Cut(NamedTuple):
    """What a killed run left."""

    folder: Path
    early: Path
    """The folder as it was a moment before."""
    place: str
    file: Path
    """The witness's."""
    counts: Counts


def rounds(count: int) -> Callable[[], bool]:
    """Say go on for so many rounds."""
    left = iter(range(count))
    return lambda: next(left, None) is not None


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """A run that was killed while it wrote, with a copy of its folder from the middle of it."""
    root = tmp_path_factory.mktemp("cut")
    folder, file = root / "disk", root / "acks.jsonl"
    folder.mkdir()
    with running_witness(file) as running:
        command = [
            sys.executable,
            "-m",
            "aftertone",
            "doctor",
            "--pull-the-plug",
            running.address,
            "--data",
            str(folder),
        ]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AFTERTONE_")}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean, cwd=root)
        wait_until(lambda: counts_in(file).mark >= 4, "the first confirmations")
        shutil.copytree(folder, root / "early")
        early = counts_in(file)
        wait_until(
            lambda: counts_in(file).mark >= early.mark + 6 and counts_in(file).record > early.record, "some more"
        )
        process.send_signal(signal.SIGKILL)
        printed, _ = process.communicate()
        wait_until(lambda: "fell silent" in running.said[-1], "the witness to notice")
    assert "Pull the plug of this machine now" in printed
    return Cut(folder, root / "early", trial._place(folder), file, counts_in(file))


class After:
    """A copy of the cut run, to be looked at."""

    def __init__(self, cut: Cut, tmp_path: Path) -> None:
        self.cut, self.folder, self.file = cut, tmp_path / "disk", tmp_path / "acks.jsonl"
        shutil.copytree(cut.folder, self.folder)
        shutil.copyfile(cut.file, self.file)
        self.scratch = Scratch(self.folder / "plug-test")
        self.said = ""

    def look(self) -> bool:
        said: list[str] = []
        with running_witness(self.file) as running:
            good = PlugTest(self.folder, running.address, said.append).run()
        self.said = "\n".join(said)
        return good

    @property
    def state(self) -> RunState:
        book = Book(self.file)
        book.close()
        return next(reversed(book.runs.values())).state


@pytest.fixture
def after(cut: Cut, tmp_path: Path) -> After:
    return After(cut, tmp_path)


# honest disks


def test_all_that_was_confirmed_is_there_after_a_kill(after: After) -> None:
    assert after.look()
    assert f"Nothing that was acknowledged is missing: {after.cut.counts}." in after.said
    assert "not started anew" in after.said, "a kill is no cut, and that has to be said"
    assert not after.scratch.root.exists()
    assert after.state is RunState.GOOD


def test_after_a_boot_the_verdict_stands_by_itself(after: After, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_boot", lambda: "e5" * 16)
    assert after.look()
    assert "not started anew" not in after.said
    assert "two or three times more" in after.said


def test_what_was_not_confirmed_may_be_there_or_not(after: After) -> None:
    with max(after.scratch.journal.glob("*.journal")).open("ab") as segment:
        segment.write(b"\0" * 5000)
    (after.scratch.blobs / "messages" / ".tmp-1-1").write_bytes(b"half")
    assert after.look()


# disks that lie


def lose_the_end_of_the_journal(scratch: Scratch) -> None:
    segment = max(scratch.journal.glob("*.journal"))
    content = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(content[: len(content) // 2])


def forget_a_segment(scratch: Scratch) -> None:
    max(scratch.journal.glob("*.journal")).unlink()


def turn_a_block_into_zeros(scratch: Scratch) -> None:
    segment = max(scratch.journal.glob("*.journal"))
    content = bytearray(segment.read_bytes())
    content[8192:12288] = bytes(4096)
    segment.write_bytes(content)


def a_file(scratch: Scratch) -> Path:
    return scratch.blobs / message_key(message_id(scratch.run(), 3))


def forget_a_file(scratch: Scratch) -> None:
    a_file(scratch).unlink()


def keep_a_name_without_its_bytes(scratch: Scratch) -> None:
    a_file(scratch).write_bytes(b"")


def turn_a_bit(scratch: Scratch) -> None:
    content = bytearray(a_file(scratch).read_bytes())
    content[7] ^= 1
    a_file(scratch).write_bytes(content)


def forget_the_log_of_the_catalog(scratch: Scratch) -> None:
    scratch.catalog.with_name("aftertone.db-wal").unlink()


def damage_the_catalog(scratch: Scratch) -> None:
    for name in ("aftertone.db-wal", "aftertone.db-shm"):
        scratch.catalog.with_name(name).unlink()
    scratch.catalog.write_bytes(b"\xa5" * 40_000)


def forget_a_mark(scratch: Scratch) -> None:
    catalog = Catalog.open(scratch.catalog)
    catalog.act(message_id(scratch.run(), 2), Action.UNHEAR, 0)
    catalog.close()


def forget_the_catalog(scratch: Scratch) -> None:
    shutil.rmtree(scratch.catalog.parent)


def forget_the_blobs(scratch: Scratch) -> None:
    shutil.rmtree(scratch.blobs)


def forget_the_journal(scratch: Scratch) -> None:
    shutil.rmtree(scratch.journal)


@pytest.mark.parametrize(
    ("lie", "lost"),
    [
        (lose_the_end_of_the_journal, {"record"}),
        (forget_a_segment, {"record"}),
        (turn_a_block_into_zeros, {"record"}),
        (forget_a_file, {"file"}),
        (keep_a_name_without_its_bytes, {"file"}),
        (turn_a_bit, {"file"}),
        (forget_the_log_of_the_catalog, {"row", "mark"}),
        (damage_the_catalog, {"row", "mark"}),
        (forget_the_catalog, {"row", "mark"}),
        (forget_a_mark, {"mark"}),
        (forget_the_blobs, {"file"}),
        (forget_the_journal, {"record"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_lie_is_told(after: After, lie: Callable[[Scratch], None], lost: set[str]) -> None:
    lie(after.scratch)
    assert not after.look()
    assert "THE DISK LIED: " in after.said
    assert "Do not keep messages on it" in after.said
    named = after.said.partition("THE DISK LIED: ")[2].partition("\n")[0]
    assert {kind for kind in KINDS if f"{kind} " in named.partition("(first: ")[2].replace(")", " ")} == lost
    assert after.scratch.root.exists(), "it is evidence"
    assert after.state is RunState.BAD


def test_a_disk_that_went_back_in_time(after: After) -> None:
    shutil.rmtree(after.scratch.root)
    shutil.copytree(after.cut.early / "plug-test", after.scratch.root)
    assert not after.look()
    named = after.said.partition("(first: ")[2].partition(")")[0]
    assert {word for word in named.replace(",", "").split() if not word.isdigit()} == set(KINDS)


def test_a_disk_that_forgot_everything_is_found_out_by_the_place(after: After, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_place", lambda _: after.cut.place)
    shutil.rmtree(after.scratch.root)
    assert not after.look()
    assert "THE DISK LIED" in after.said
    assert "If you removed it, this verdict means nothing" in after.said


def test_the_next_test_waits_until_somebody_has_looked(after: After) -> None:
    forget_a_file(after.scratch)
    assert not after.look()
    with pytest.raises(UsageError, match="kept from a run that lost something"):
        after.look()


def test_a_witness_that_knows_nothing_of_it_gives_no_verdict(after: After) -> None:
    after.file.unlink()
    with pytest.raises(UsageError, match="does not know"):
        after.look()
    assert after.scratch.root.exists()


@pytest.mark.parametrize("state", [RunState.GOOD, RunState.ENDED])
def test_a_disk_that_went_back_to_the_folder_of_an_earlier_run_is_found_out(
    after: After, monkeypatch: pytest.MonkeyPatch, state: RunState
) -> None:
    """The run of the folder is over, and the folder was removed before the run began that was cut."""
    monkeypatch.setattr(trial, "_place", lambda _: after.cut.place)
    named = after.scratch.run()
    after.file.unlink()
    book = Book(after.file)
    book.keep(Run(named, after.cut.place, "", state, Counts(9, 9, 9, 9)))
    book.keep(Run(RUN, after.cut.place, "", RunState.OPEN, Counts(3, 3, 3, 3)))
    book.close()
    assert not after.look()
    assert "whose folder was removed" in after.said
    assert "THE DISK LIED" in after.said


@pytest.mark.parametrize("told", [Counts(3, 3, 3, 3), Counts()])
def test_a_folder_of_another_run_accuses_no_disk(after: After, monkeypatch: pytest.MonkeyPatch, told: Counts) -> None:
    """One witness still waits for a run whose folder was removed; the folder that is there is of another witness's run."""
    monkeypatch.setattr(trial, "_place", lambda _: after.cut.place)
    after.file.unlink()
    book = Book(after.file)
    book.keep(Run(RUN, after.cut.place, "", RunState.OPEN, told))
    book.close()
    named = after.scratch.run()
    with pytest.raises(UsageError, match=f"is of run {named[:8]}, which the witness .* does not know") as caught:
        after.look()
    assert RUN[:8] in str(caught.value)
    assert after.state is RunState.OPEN
    assert after.scratch.run() == named, "it may be what another witness waits for"


# writing


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with running_witness(tmp_path / "acks.jsonl") as made:
        yield made


def one_run(folder: Path, running: Running) -> tuple[bool, str]:
    said: list[str] = []
    good = PlugTest(folder, running.address, said.append).run()
    return good, "\n".join(said)


def test_a_run_that_nobody_cuts_ends_and_leaves_nothing(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LONGEST_S", 0.3)
    monkeypatch.setattr(trial, "PROGRESS_EVERY_S", 0.1)
    good, said = one_run(tmp_path, running)
    assert good
    assert "confirmed: " in said
    assert "a sync takes" in said
    assert "Nobody pulled the plug" in said
    assert "nothing is proven" in said
    assert not (tmp_path / "plug-test").exists()
    assert "without a cut" in running.said[-1]


def test_ctrl_c_ends_it_politely(tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(PlugTest, "_goes_on", lambda *_: interrupt)
    good, said = one_run(tmp_path, running)
    assert (good, "Stopped without a cut" in said) == (True, True)
    assert not (tmp_path / "plug-test").exists()


def test_a_cut_before_anything_was_confirmed_proves_nothing(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Link(running.address) as link:
        link.begin(RUN, trial._place(tmp_path), "")
    monkeypatch.setattr(trial, "LONGEST_S", 0.1)
    _, said = one_run(tmp_path, running)
    assert "proves nothing; a new one begins" in said


def test_a_disk_that_fills_up_is_another_test(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LEFT_BYTES", 1 << 60)
    _, said = one_run(tmp_path, running)
    assert "MB are left" in said


def test_a_disk_without_room_is_not_begun_with(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(StorageFullError, match="make room"):
        one_run(tmp_path, running)
    assert not any("began" in line for line in running.said)


def test_a_folder_that_is_not_there(tmp_path: Path, running: Running) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        one_run(tmp_path / "nowhere", running)


def test_a_folder_that_cannot_be_written(tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="may not write"):
        one_run(tmp_path, running)


@pytest.mark.parametrize("full", [True, False])
def test_a_disk_that_fails_is_told(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """A full disk ends the run. One that is gone was perhaps pulled out, and its run is looked at when it is back."""

    def fail(load: Load, _: object) -> None:
        load._confirmed("file", 1)
        raise StorageFullError("no room") if full else StorageError("storing a recording: Input/output error")

    monkeypatch.setattr(Load, "run", fail)
    with pytest.raises(
        StorageError, match="no room$" if full else "Input/output error. When the disk is back, run the"
    ):
        one_run(tmp_path, running)
    assert (tmp_path / "plug-test").exists() is not full
    assert ("without a cut" in running.said[-1]) is full
    if not full:
        assert one_run(tmp_path, running)[0] is False, "the file is not there"


def test_a_folder_that_cannot_be_made_is_no_cut(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, mode: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(StorageError, match="Read-only file system"):
        one_run(tmp_path, running)
    assert "without a cut" in running.said[-1]


def test_without_the_witness_the_run_ends_and_keeps_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "acks.jsonl"
    with running_witness(file) as running:
        done = False

        def say(text: str) -> None:
            nonlocal done
            if "Pull the plug" in text and not done:
                done = True
                assert running.witness._peer is not None
                running.witness._peer.sock.shutdown(2)

        with pytest.raises(EnvironmentFault, match=r"was lost: .*run the same command again"):
            PlugTest(tmp_path, running.address, say).run()
    assert Scratch(tmp_path / "plug-test").run()


# load and evidence by themselves


def test_only_what_is_durable_is_confirmed_and_all_of_it_is_found(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "plug-test")
    scratch.make(RUN)
    confirmed: dict[str, list[int]] = {kind: [] for kind in KINDS}
    load = Load(scratch, RUN, lambda what, number: confirmed[what].append(number))
    load.run(rounds(5))
    assert confirmed["file"] == confirmed["row"] == confirmed["mark"] == [1, 2, 3, 4, 5]
    assert confirmed["record"][-1] == 40
    assert confirmed["record"] == sorted(confirmed["record"])
    p50_ms, p99_ms = load.sync_ms()
    assert 0 < p50_ms <= p99_ms
    assert find_losses(scratch, RUN, Counts(40, 5, 5, 5)).total == 0
    losses = find_losses(scratch, RUN, Counts(42, 6, 7, 8))
    assert losses.counts == Counts(2, 1, 2, 3)
    assert losses.first == (("record", 41), ("file", 6), ("row", 6), ("mark", 6))
    assert find_losses(scratch, "b2" * 16, Counts(40, 5, 5, 5)).counts == Counts(40, 5, 5, 5)


def test_nothing_is_confirmed_that_is_not_there_yet(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "plug-test")
    scratch.make(RUN)
    seen: dict[str, int] = {}

    def confirmed(what: str, number: int) -> None:
        losses = find_losses(scratch, RUN, Counts(**{what: number}))
        seen[what] = losses.counts.of(what) + seen.get(what, 0)

    Load(scratch, RUN, confirmed).run(rounds(3))
    assert seen == dict.fromkeys(KINDS, 0)


def test_a_file_with_its_name_but_not_its_bytes_is_a_lie_although_nobody_was_told(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "plug-test")
    scratch.make(RUN)
    Load(scratch, RUN, lambda *_: None).run(rounds(2))
    (scratch.blobs / message_key(message_id(RUN, 2))).write_bytes(b"")
    losses = find_losses(scratch, RUN, Counts(16, 1, 1, 1))
    assert (losses.total, losses.counts) == (1, Counts())
    assert "not whole" in losses.reasons[0]


def test_content_follows_from_run_and_number() -> None:
    assert record(RUN, 1) == record(RUN, 1)
    assert len({record(RUN, 1), record(RUN, 2), record("b2" * 16, 1), file(RUN, 1)}) == 4
    assert all(160 <= len(record(RUN, n)) <= 1600 for n in range(50))
    assert all(1000 <= len(file(RUN, n)) <= 32_000 for n in range(50))


@pytest.mark.parametrize("text", [None, "", "{}", '{"run": 7}', '{"run": "../x"}', "[]", "\udcff"])
def test_a_folder_that_does_not_say_whose_it_is(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text, errors="surrogateescape")
    assert Scratch(tmp_path).run() == ""
