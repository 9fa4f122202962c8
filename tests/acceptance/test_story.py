"""The story's scenes, from outside, on the real program with a real SIP caller."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest

from aftertone.audio.g711 import ULAW_TO_LINEAR, encode_ulaw
from aftertone.model import Codec
from tests.support.callers import Party, wish
from tests.support.machine import Machine, machine, speech, speech_file, wait_until

LOSS_MS = 250


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One machine for the scenes that do not kill it, with a short greeting."""
    folder = tmp_path_factory.mktemp("house")
    with machine(folder / "var", CALLS__RINGS="3", CALLS__RING_S="0.3") as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(folder / "greeting.wav", 0.5)))
        yield made


def by_number(rows: list[dict[str, Any]], number: str) -> dict[str, Any]:
    found = [row for row in rows if row["caller"]["number"] == number]
    assert len(found) == 1, rows
    return found[0]


def test_scene_1_away_for_a_month(house: Machine) -> None:
    """Two messages; he plays the first, and plays it once more: nothing changes but the mark."""
    for number in ("first", "second"):
        with Party([wish(house.uri, number, 2.0)]) as party:
            assert party.outcomes()[0].bye_status == 200
    house.wait_for_messages(2)
    house.stop()
    house.start()
    rows = house.messages(state="new")
    assert [row["caller"]["number"] for row in rows] == ["second", "first"]
    assert rows[0]["started_at"] > rows[1]["started_at"]
    assert [row["duration_ms"] for row in rows] == [2000, 2000]
    first = rows[1]
    sounds = []
    with house.client() as client:
        for _ in range(2):
            audio = client.get(f"/messages/{first['id']}/audio")
            sounds.append(hashlib.sha256(audio.content).hexdigest())
            client.post(f"/messages/{first['id']}/heard").raise_for_status()
        after = client.get(f"/messages/{first['id']}").json()
    assert sounds[0] == sounds[1]
    assert after["heard_at"] is not None
    assert {**after, "state": "new", "heard_at": None} == first
    assert by_number(house.messages(), "second") == rows[0]
    assert house.books()["ok"]


def test_scene_4_a_borrowed_phone(house: Machine) -> None:
    """It rings, a greeting, a beep; she speaks for a minute and hangs up without a key: whole, from first word to last."""
    began_s = time.monotonic()
    with Party([wish(house.uri, "borrowed", 60.0)]) as party:
        wait_until(lambda: party.testers and party.testers[0].outcome.ringing, "the machine to ring")
        wait_until(lambda: party.testers[0].outcome.answered, "the machine to answer")
        assert time.monotonic() - began_s >= 3 * 0.3
        outcome = party.outcomes(120)[0]
    assert outcome.beep_heard
    assert outcome.bye_status == 200
    row = wait_until(
        lambda: next((m for m in house.messages() if m["caller"]["number"] == "borrowed"), None), "her message", 5
    )
    assert (row["kind"], row["state"], row["cut_off"], row["lost_packets"]) == ("message", "new", False, 0)
    assert row["duration_ms"] == 60_000
    samples, rate_hz = house.audio(row["id"])
    said = ULAW_TO_LINEAR[encode_ulaw(speech(60.0))]
    assert rate_hz == 8000
    assert np.array_equal(samples, said)


@pytest.mark.parametrize("target", ["line", "everything"])
def test_scene_6_the_power_fails_while_she_is_speaking(tmp_path: Path, target: str) -> None:
    with machine(tmp_path / "var") as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(tmp_path / "greeting.wav", 0.3)))
        with Party([wish(made.uri, "earlier", 1.0)]) as party:
            party.outcomes()
        earlier = made.wait_for_messages(1)[0]
        with Party([wish(made.uri, "cut", 20.0, Codec.PCMA)]) as party:
            wait_until(lambda: party.testers and len(party.testers[0].sent_ns) >= 150, "three seconds of speech")
            if target == "line":
                made.kill_role("line")
            else:
                made.kill()
            arrived_ms = party.sent_ms()[0]
        if target == "everything":
            made.start()
        rows = made.wait_for_messages(2, 20)
        row = by_number(rows, "cut")
        assert row["cut_off"] is True
        assert row["end_reason"] == "cut_off"
        assert arrived_ms - LOSS_MS <= row["audio_ms"] <= arrived_ms + 60
        samples, _ = made.audio(row["id"])
        assert abs(len(samples) / 8 - row["audio_ms"]) <= 1
        assert by_number(rows, "earlier") == earlier
        assert len(rows) == 2
        wait_until(lambda: made.run("verify", check=False).returncode == 0, "the books to balance")


def test_scene_6_the_power_fails_a_second_after_she_hung_up(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as made:
        with Party([wish(made.uri, "done", 2.0)]) as party:
            assert party.outcomes()[0].bye_status == 200
        time.sleep(1.0)
        made.kill()
        made.start()
        row = made.wait_for_messages(1)[0]
        assert (row["cut_off"], row["duration_ms"], row["end_reason"]) == (False, 2000, "caller_hung_up")


def test_scene_6_the_power_fails_the_moment_her_hang_up_is_confirmed(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as made:
        with Party([wish(made.uri, "done", 1.0)]) as party:
            wait_until(lambda: party.testers and party.testers[0].outcome.bye_status == 200, "the answer to BYE", 60)
            made.kill()
        made.start()
        row = made.wait_for_messages(1)[0]
        assert (row["cut_off"], row["duration_ms"]) == (False, 1000)


def test_scene_6_the_power_fails_while_the_greeting_is_being_changed(tmp_path: Path) -> None:
    """At several moments of the change: afterwards the old greeting or the new one, whole, and the same everywhere."""
    files = [speech_file(tmp_path / f"{n}.wav", 1.0 + n) for n in range(2)]
    with machine(tmp_path / "var") as made:
        made.run("mailbox", "greeting", "set", "main", str(files[0]))
        with made.client() as client:
            known = {hashlib.sha256(client.get("/mailboxes/main/greeting").content).hexdigest()}
        for attempt, after_s in enumerate((0.0, 0.02, 0.05, 0.1, 0.2)):
            newest = files[(attempt + 1) % 2].read_bytes()
            _put_greeting_and_kill(made, newest, after_s)
            made.start()
            with made.client() as client:
                answer = client.get("/mailboxes/main/greeting")
                answer.raise_for_status()
                sound = hashlib.sha256(answer.content).hexdigest()
            known.add(sound)
            snapshot = list((made.data / "directory" / "greetings").glob("*.flac"))
            assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in snapshot] == [sound]
        assert len(known) <= 2


def _put_greeting_and_kill(made: Machine, content: bytes, after_s: float) -> None:
    def put() -> None:
        try:
            with made.client() as client:
                client.put("/mailboxes/main/greeting", content=content)
        except httpx.HTTPError:
            return

    thread = Thread(target=put)
    thread.start()
    time.sleep(after_s)
    made.kill()
    thread.join(10)


def test_scene_6_the_power_fails_while_a_message_is_being_marked_as_heard(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as made:
        with Party([wish(made.uri, "marked", 1.0)]) as party:
            party.outcomes()
        row = made.wait_for_messages(1)[0]
        with made.client() as client:
            client.post(f"/messages/{row['id']}/heard").raise_for_status()
            made.kill()
        made.start()
        assert made.messages()[0]["state"] == "heard"
