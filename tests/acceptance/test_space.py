"""A disk without room, or without a journal that can be written: who is refused, what they hear, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from aftertone.model import Codec
from aftertone.roles import caller as callers
from aftertone.roles.clips import REFUSED, Clips
from aftertone.roles.folder import Folder
from tests.support.callers import Party, wish
from tests.support.disks import Glutton, fill, read_only, small_disk
from tests.support.machine import Machine, machine, speech_file, wait_until

SMALL = {
    "STORAGE__LOW_WATER_MB": "10",
    "STORAGE__LOW_WATER_PERCENT": "50",
    "STORAGE__RESERVE_MB": "4",
    "JOURNAL__SEGMENT_MB": "1",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, 60) as point:
        yield point


def greet_briefly(made: Machine, folder: Path) -> None:
    made.run("mailbox", "greeting", "set", "main", str(speech_file(folder / "greeting.wav", 0.3)))


def segments(made: Machine) -> list[str]:
    return sorted(path.name for path in (made.data / "journal").glob("*.journal"))


@pytest.fixture(scope="module")
def sentence() -> list[bytes]:
    """What a refused caller hears in PCMU, frame by frame."""
    return list(Clips().frames(REFUSED, "main", Codec.PCMU))


def health(made: Machine) -> int:
    """Return what a probe is answered; 0 when nobody answers."""
    try:
        return httpx.get(f"{made.base}/healthz", timeout=2).status_code
    except httpx.HTTPError:
        return 0


def metric(made: Machine, name: str) -> float:
    lines = httpx.get(f"{made.base}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def alarm_of(made: Machine, code: str) -> str:
    with made.client() as client:
        alarms = client.get("/health").json()["alarms"]
    return str(next(alarm["text"] for alarm in alarms if alarm["code"] == code))


def call(made: Machine, number: str) -> tuple[callers.Outcome, callers.TestCaller]:
    with Party([wish(made.uri, number, 1.0)]) as party:
        return party.outcomes()[0], party.testers[0]


def row_of(made: Machine, number: str) -> dict[str, Any]:
    return wait_until(
        lambda: next((m for m in made.messages() if m["caller"]["number"] == number), None), f"the message of {number}"
    )


def must_be_refused_aloud(made: Machine, number: str, status: int, sentence: list[bytes]) -> None:
    outcome, tester = call(made, number)
    assert (outcome.answered, outcome.status) == (False, status)
    assert outcome.early_ms == 20 * len(tester.early)
    assert tester.early == sentence


def test_a_disk_without_room_refuses_new_calls_aloud_and_says_so(
    disk: Path, tmp_path: Path, sentence: list[bytes]
) -> None:
    with machine(disk, **SMALL) as made:
        greet_briefly(made, tmp_path)
        wait_until(lambda: metric(made, "aftertone_line_reserve_bytes") >= 4e6, "the reserve")
        assert metric(made, "aftertone_line_low_water_bytes") == 10e6
        ballast = fill(disk, 6_000_000)
        wait_until(lambda: health(made) == 503, "the machine to notice")
        must_be_refused_aloud(made, "late", 480, sentence)
        assert "storage.low_water_mb = 10" in alarm_of(made, "storage")
        assert "storage.low_water_mb = 10" in made.run("doctor", check=False).stdout
        assert metric(made, "aftertone_taking_calls") == 0
        assert metric(made, "aftertone_line_calls_refused_480_total") == 1
        assert metric(made, "aftertone_line_calls_refused_aloud_total") == 1
        assert "call refused" in made.log()
        assert metric(made, "aftertone_line_reserve_bytes") >= 4e6, "room that nobody speaks into is not used"
        ballast.unlink()
        wait_until(lambda: health(made) == 200, "the machine to take calls again")
        assert call(made, "later")[0].bye_status == 200
        row_of(made, "later")
        assert made.books()["refused"] == 1


def test_a_disk_that_fills_up_during_calls_lets_them_go_on(disk: Path, tmp_path: Path, sentence: list[bytes]) -> None:
    """Journal files of 1 MB, sixteen callers, and somebody who takes every block that is given back."""
    calls, seconds = 16, 16.0
    with machine(disk, **SMALL) as made:
        greet_briefly(made, tmp_path)
        wait_until(lambda: metric(made, "aftertone_line_reserve_bytes") >= 4e6, "the reserve")
        with Party([wish(made.uri, f"n{n}", seconds) for n in range(calls)]) as party:
            wait_until(lambda: party.speaking() == calls, "everybody to speak", 60)
            with Glutton(disk):
                wait_until(lambda: health(made) == 503, "the machine to notice")
                must_be_refused_aloud(made, "late", 480, sentence)
                outcomes = party.outcomes(90)
                assert metric(made, "aftertone_line_reserve_bytes") == 0, "the calls were to need the reserve"
                assert metric(made, "aftertone_line_journal_ok") == 1
        assert [o.bye_status for o in outcomes] == [200] * calls
        rows = made.wait_for_messages(calls, 30)
        assert {(row["end_reason"], row["lost_packets"]) for row in rows} == {("caller_hung_up", 0)}
        assert all(row["duration_ms"] == seconds * 1000 for row in rows)
        wait_until(lambda: metric(made, "aftertone_line_reserve_bytes") >= 4e6, "the reserve to be made anew")
        wait_until(lambda: len(segments(made)) == 1, "what is delivered to leave the journal", 2)
        assert segments(made)[0] >= "e00000001-n00000003.journal", "the calls were to need several files"
        wait_until(lambda: made.run("verify", check=False).returncode == 0, "the books to balance")
        assert call(made, "afterwards")[0].bye_status == 200


def test_when_the_reserve_is_used_up_callers_hear_an_apology_and_keep_what_they_said(tmp_path: Path) -> None:
    """Journal files of 1 MB, a reserve of as much, thirty callers, no room for more; in memory, as on ext4."""
    calls = 30
    with (
        small_disk(tmp_path, 60, "tmpfs") as disk,
        machine(disk, **{**SMALL, "STORAGE__RESERVE_MB": "1"}) as made,
    ):
        greet_briefly(made, tmp_path)
        wait_until(lambda: metric(made, "aftertone_line_reserve_bytes") >= 1e6, "the reserve")
        with Party([wish(made.uri, f"n{n}", 60.0) for n in range(calls)]) as party:
            wait_until(lambda: party.speaking() == calls, "everybody to speak", 60)
            ballast = fill(disk)
            outcomes = party.outcomes(90)
        assert all(o.bye_status is None for o in outcomes), "the machine hung up"
        assert all(o.sent_ms < 60_000 for o in outcomes)
        assert alarm_of(made, "storage")
        assert metric(made, "aftertone_line_journal_ok") == 0
        ballast.unlink()
        rows = made.wait_for_messages(calls, 30)
        assert {row["end_reason"] for row in rows} == {"storage"}
        assert all(row["audio_ms"] >= 1000 for row in rows)
        wait_until(lambda: made.run("verify", check=False).returncode == 0, "the books to balance")
        assert call(made, "afterwards")[0].bye_status == 200


def test_a_line_that_starts_on_a_full_disk_refuses_aloud_until_there_is_room(
    disk: Path, tmp_path: Path, sentence: list[bytes]
) -> None:
    with machine(disk, **SMALL) as made:
        greet_briefly(made, tmp_path)
        assert call(made, "before")[0].bye_status == 200
        row_of(made, "before")
        made.kill()
        with Glutton(disk):
            # Whether SQLite opens without a free block depends on what it left behind; the phone does not.
            made.start(until_it_says="line refuses calls")
            line = made.role_pid("line")
            must_be_refused_aloud(made, "late", 480, sentence)
            assert "New calls are refused: " in made.run("doctor", check=False).stdout
            assert "cannot be opened: [Errno 28] No space left on device; make room" in made.log()
            assert health(made) == 503, "probes are answered, whether the desk is open or waits"
        wait_until(lambda: health(made) == 200, "the machine to take calls")
        wait_until(lambda: made.log().count("Aftertone is ready") == 2, "the desk to open")
        assert call(made, "later")[0].bye_status == 200
        row_of(made, "later")
        assert made.role_pid("line") == line, "the same line all the time"
        wait_until(lambda: made.run("verify", check=False).returncode == 0, "the books to balance")


def test_a_line_whose_journal_is_read_only_refuses_aloud_until_it_is_not(tmp_path: Path, sentence: list[bytes]) -> None:
    with machine(tmp_path / "var", **SMALL) as made:
        greet_briefly(made, tmp_path)
        made.stop()
        with read_only(made.data / "journal"):
            made.start()
            must_be_refused_aloud(made, "late", 503, sentence)
            assert "Read-only file system" in alarm_of(made, "storage")
            assert health(made) == 503
        wait_until(lambda: health(made) == 200, "the machine to take calls")
        assert call(made, "later")[0].bye_status == 200
        row_of(made, "later")


def test_a_machine_that_starts_on_a_read_only_disk_refuses_aloud_until_it_is_not(
    tmp_path: Path, sentence: list[bytes]
) -> None:
    with machine(tmp_path / "var", **SMALL) as made:
        greet_briefly(made, tmp_path)
        made.stop()
        with read_only(made.data):
            made.start(until_it_says="line refuses calls")
            must_be_refused_aloud(made, "late", 503, sentence)
            wait_until(lambda: health(made) == 503, "the desk to answer")
        wait_until(lambda: health(made) == 200, "the machine to take calls")
        wait_until(lambda: made.log().count("Aftertone is ready") == 2, "the desk to open")
        assert call(made, "later")[0].bye_status == 200
        row_of(made, "later")
        assert "in use by another machine" in made.run("serve", check=False).stderr


def test_a_machine_that_starts_for_the_first_time_on_a_full_disk_refuses_aloud_until_there_is_room(
    disk: Path, sentence: list[bytes]
) -> None:
    """With the folders made, as an installer does; they take room too."""
    made = Machine(disk, {f"AFTERTONE_{name}": value for name, value in SMALL.items()})
    Folder(disk).make()
    try:
        with Glutton(disk):
            made.start(until_it_says="line refuses calls")
            must_be_refused_aloud(made, "late", 480, sentence)
            wait_until(lambda: health(made) == 503, "the desk to answer")
            doctor = made.run("doctor", check=False).stdout
            assert "0 MB are free" in doctor
            assert "because the disk is full" in doctor
            assert "role ended" not in made.log()
        wait_until(lambda: health(made) == 200, "the machine to take calls")
        wait_until(lambda: "Aftertone is ready" in made.log(), "the desk to open")
        assert call(made, "later")[0].bye_status == 200
        row_of(made, "later")
    finally:
        if made.process is not None:
            made.kill()
