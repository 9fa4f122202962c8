"""Sound of every kind over real calls, by a telephone that shares no code with the machine: packet times, pauses, reports, floods."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from aftertone.audio.g711 import ULAW_TO_LINEAR, encode_ulaw
from aftertone.model import Codec
from tests.support.bare_phone import Phone, Said, voice
from tests.support.baresip import baresip
from tests.support.machine import Machine, speech, wait_until

RUN: Final = encode_ulaw(speech(3.0)).tobytes()
PACKET_TIMES_MS: Final = (10, 20, 30, 40, 60)
NOISE: Final = b"\x3c"
PAUSE_S: Final = 4.0
CHANGING_MS: Final = (10, 60, 20, 30, 40)


def cut(run: bytes, packet_ms: int) -> list[bytes]:
    return [run[at : at + 8 * packet_ms] for at in range(0, len(run), 8 * packet_ms)]


def changing() -> list[Said]:
    """Packets of another length each time."""
    said: list[Said] = []
    at_ms = 0
    while at_ms * 8 < len(RUN):
        length_ms = CHANGING_MS[len(said) % len(CHANGING_MS)]
        said.append(Said(at_ms / 1000, 0, at_ms * 8, RUN[at_ms * 8 : (at_ms + length_ms) * 8]))
        at_ms += length_ms
    return said


def pausing() -> list[Said]:
    """A second of speech, comfort noise, nothing for a while, and a second of speech."""
    before = voice(cut(RUN[:8000], 20), 20)
    noise = [Said(1.0 + n, 13, 8000 * (n + 1), NOISE) for n in range(2)]
    return [
        *before,
        *noise,
        *voice(cut(RUN[8000:16_000], 20), 20, begin_s=1 + PAUSE_S, ticks=round(8000 * (1 + PAUSE_S))),
    ]


@pytest.fixture(scope="module")
def phones(answering: Machine) -> Iterator[dict[str, Phone]]:
    """All of them call at the same time."""
    port = int(answering.uri.rpartition(":")[2])
    made = {
        f"ptime{ms}": Phone(port, f"ptime{ms}", voice(cut(RUN, ms), ms), lines=(f"a=ptime:{ms}",), mux=ms == 20)
        for ms in PACKET_TIMES_MS
    }
    made["maxptime"] = Phone(port, "maxptime", voice(cut(RUN, 10), 10), lines=("a=ptime:30", "a=maxptime:10"))
    made["changing"] = Phone(port, "changing", changing())
    made["pausing"] = Phone(port, "pausing", pausing(), formats="0 13", mux=True, missed=2)
    made["apart"] = Phone(port, "apart", pausing(), formats="0 13", missed=1)
    for phone in made.values():
        phone.start()
    for phone in made.values():
        phone.finish()
    yield made


def message(machine: Machine, number: str) -> dict[str, Any]:
    found = wait_until(
        lambda: [m for m in machine.messages() if m["caller"]["number"] == number], f"{number}'s message"
    )
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("number", [*(f"ptime{ms}" for ms in PACKET_TIMES_MS), "maxptime", "changing"])
def test_what_was_said_in_packets_of_any_length_is_what_is_kept(
    answering: Machine, phones: dict[str, Phone], number: str
) -> None:
    assert phones[number].bye_status == 200
    found = message(answering, number)
    assert (found["lost_packets"], found["notes"]) == (0, [])
    kept, rate_hz = answering.audio(found["id"])
    assert rate_hz == 8000
    assert np.array_equal(kept, ULAW_TO_LINEAR[np.frombuffer(RUN, np.uint8)])


@pytest.mark.parametrize(("number", "packet_ms"), [*((f"ptime{ms}", ms) for ms in PACKET_TIMES_MS), ("maxptime", 10)])
def test_the_greeting_comes_in_packets_of_the_length_that_was_asked_for(
    phones: dict[str, Phone], number: str, packet_ms: int
) -> None:
    greeting = phones[number].heard[: 300 // packet_ms]
    assert {len(one.payload) for one in greeting} == {8 * packet_ms}
    assert greeting[0].marker
    assert np.diff([one.timestamp for one in greeting]).tolist() == [8 * packet_ms] * (len(greeting) - 1)
    took_s = greeting[-1].at_s - greeting[0].at_s
    assert abs(took_s - (len(greeting) - 1) * packet_ms / 1000) < 0.15


@pytest.mark.parametrize("number", ["pausing", "apart"])
def test_a_pause_that_was_not_sent_is_silence_of_its_length(
    answering: Machine, phones: dict[str, Phone], number: str
) -> None:
    assert phones[number].bye_status == 200
    found = message(answering, number)
    assert (found["kind"], found["lost_packets"], found["notes"]) == ("message", 0, [])
    kept, _ = answering.audio(found["id"])
    spoken = ULAW_TO_LINEAR[np.frombuffer(RUN[:16_000], np.uint8)]
    assert np.array_equal(
        kept, np.concatenate([spoken[:8000], np.zeros(round(PAUSE_S * 8000), np.int16), spoken[8000:]])
    )


@pytest.mark.parametrize("number", ["pausing", "apart"])
def test_the_line_never_falls_silent_towards_the_caller(phones: dict[str, Phone], number: str) -> None:
    heard = phones[number].heard
    assert max(np.diff([one.at_s for one in heard])) < 3.5
    noise = [one for one in heard if one.kind == 13]
    assert noise
    assert all(len(one.payload) == 1 for one in noise)


@pytest.mark.parametrize(("number", "missed"), [("pausing", 2), ("apart", 1)])
def test_both_sides_know_how_good_the_line_was(
    answering: Machine, phones: dict[str, Phone], number: str, missed: int
) -> None:
    phone = phones[number]
    assert phone.reports[-1].goodbye
    told = [report for report in phone.reports if report.blocks and not report.goodbye]
    assert told, "a call of seven seconds has a report after the caller spoke"
    assert all(block.lost == 0 for report in told for block in report.blocks)
    assert {report.cname for report in phone.reports} == {phone.reports[0].cname}
    senders = [report for report in phone.reports if report.kind == "SR"]
    assert all(0 < report.packets <= len(phone.heard) for report in senders)
    found = message(answering, number)
    assert found["peer_lost"] == missed
    # Between two sockets of one machine: what it takes a busy one to wake up.
    assert 0 <= found["round_trip_ms"] < 1000
    assert found["jitter_ms"] is not None


def test_a_flood_to_the_port_of_a_call_disturbs_nobody(answering: Machine) -> None:
    port = int(answering.uri.rpartition(":")[2])
    lead = encode_ulaw(np.zeros(8000, np.int16)).tobytes()
    victim, other = (Phone(port, name, voice(cut(lead + RUN, 20), 20)).start() for name in ("flooded", "calm"))
    over = threading.Event()

    def flood() -> None:
        assert victim.speaking.wait(20)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            while not over.wait(0.02):
                for _ in range(300):
                    stranger.sendto(b"\x80\x00junk" * 10, victim.target)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    victim.finish()
    other.finish()
    over.set()
    thread.join()
    for number in ("flooded", "calm"):
        kept, _ = answering.audio(message(answering, number)["id"])
        said = ULAW_TO_LINEAR[np.frombuffer(RUN, np.uint8)]
        # The flood begins in the second of silence before the words, and costs a moment of that.
        assert np.array_equal(kept[-len(said) :], said)
        assert len(kept) > len(said)


def test_a_softphone_reads_our_reports_and_we_read_its(answering: Machine, tmp_path: Path) -> None:
    """A round trip is known only when it has taken the time of our report into one of its own."""
    with baresip(answering, tmp_path / "phone", Codec.PCMU, speech(13.0), caller="reporting") as phone:
        phone.finish()
    found = message(answering, "reporting")
    assert found["peer_lost"] == 0
    assert 0 <= found["round_trip_ms"] < 1000
