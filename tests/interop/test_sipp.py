"""sipp calls the machine: RFC 3665's basic flows, their failures, and what telephones do besides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from aftertone.audio.codec import decode, encode
from aftertone.audio.samples import Samples
from aftertone.model import Codec
from tests.support.disks import small_disk
from tests.support.machine import Machine, machine, speech, wait_until
from tests.support.sipp import Sipp, press, require_raw_sockets, start_sipp, talk, write_capture

SPEECH_S: Final = 2.0
TOLERANCE_MS: Final = 60
AT_ONCE: Final = 20
NO_RESENDING: Final = ("-nr",)
"""Makes sipp show retransmissions to the scenario instead of dealing with them."""

SPOKEN: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "basic": ("main", ()),
    "basic_by_tcp": ("main", ("-t", "t1")),
    "ringing": ("patient", ()),
    "late_offer": ("main", ()),
    "lost_ack": ("main", NO_RESENDING),
    "resent_invite": ("patient", NO_RESENDING),
    "hold": ("main", ()),
    "diverted": ("patient", ()),
    "hash_by_rtp": ("main", ()),
    "hash_by_info": ("main", ()),
}
"""Scenarios that leave a message, with mailbox and options; each calls from its own name."""

SILENT: Final = {
    "cancel": "patient",
    "unknown_codec": "main",
    "unsupported_require": "main",
    "unknown_user": "nobody",
    "unknown_method": "main",
    "options": "main",
}
"""Scenarios that leave nothing behind, with the mailbox that they ask for."""


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the captures that the scenarios name."""
    folder = tmp_path_factory.mktemp("sipp")
    first = talk(speech(SPEECH_S))
    write_capture(folder / "speech.pcap", first)
    write_capture(folder / "part_two.pcap", talk(speech(1.0), sequence=200, timestamp=4000 + 2500 * 8))
    after = 4000 + int(SPEECH_S * 8000)
    unheard = [(at_ms + 2200, packet) for at_ms, packet in talk(speech(0.5), sequence=207, timestamp=after + 1600)]
    write_capture(folder / "speech_hash.pcap", [*first, *press("#", 2000, sequence=200, timestamp=after), *unheard])
    return folder


@pytest.fixture(scope="module")
def calls(answering: Machine, captures: Path) -> Iterator[dict[str, Sipp]]:
    """All calls of ``SPOKEN``, started at the same time."""
    require_raw_sockets()
    started = {
        name: start_sipp(answering, captures, name.removesuffix("_by_tcp"), caller=name, user=user, options=options)
        for name, (user, options) in SPOKEN.items()
    }
    yield started
    for sipp in started.values():
        if sipp.process.poll() is None:
            sipp.process.kill()
            sipp.process.wait()


def _messages(machine: Machine, caller: str) -> list[dict[str, Any]]:
    return [message for message in machine.messages() if message["caller"]["number"] == caller]


def _message(machine: Machine, calls: dict[str, Sipp], name: str) -> dict[str, Any]:
    """Return the one message of a call that went as its scenario says."""
    calls[name].finish()
    found = wait_until(lambda: _messages(machine, name), f"the message of {name}")
    assert len(found) == 1
    assert found[0]["kind"] == "message"
    assert found[0]["codec"] == "PCMU"
    assert found[0]["lost_packets"] == 0
    assert found[0]["mailbox"] == SPOKEN[name][0]
    return found[0]


def _as_heard(samples: Samples) -> Samples:
    return decode(Codec.PCMU, encode(Codec.PCMU, samples, 8000))


@pytest.mark.parametrize(
    "name", ["basic", "basic_by_tcp", "ringing", "late_offer", "lost_ack", "resent_invite", "diverted"]
)
def test_a_call_leaves_one_message(answering: Machine, calls: dict[str, Sipp], name: str) -> None:
    message = _message(answering, calls, name)
    assert abs(message["duration_ms"] - SPEECH_S * 1000) <= TOLERANCE_MS
    assert message["end_reason"] == "caller_hung_up"
    assert message["forwarded"] == (name == "diverted")
    samples, rate_hz = answering.audio(message["id"])
    assert rate_hz == 8000
    np.testing.assert_array_equal(samples, _as_heard(speech(SPEECH_S)))


def test_hold_and_resume_leave_one_message(answering: Machine, calls: dict[str, Sipp]) -> None:
    message = _message(answering, calls, "hold")
    samples, rate_hz = answering.audio(message["id"])
    assert abs(message["duration_ms"] - 3500) <= TOLERANCE_MS
    assert rate_hz == 8000
    expected = np.concatenate([_as_heard(speech(SPEECH_S)), np.zeros(4000, np.int16), _as_heard(speech(1.0))])
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("name", ["hash_by_rtp", "hash_by_info"])
def test_a_hash_ends_the_recording(answering: Machine, calls: dict[str, Sipp], name: str) -> None:
    message = _message(answering, calls, name)
    assert message["end_reason"] == "key"
    assert abs(message["duration_ms"] - SPEECH_S * 1000) <= TOLERANCE_MS


@pytest.mark.parametrize("name", list(SILENT))
def test_the_answer_without_a_call(answering: Machine, captures: Path, name: str) -> None:
    """The scenario itself checks the answer: 487, 488, 420 with Unsupported, 404, 501 and 405 with Allow, 200."""
    start_sipp(answering, captures, name, caller=name, user=SILENT[name]).finish()


def test_twenty_at_once(answering: Machine, captures: Path) -> None:
    require_raw_sockets()
    start_sipp(answering, captures, "basic", caller="crowd", calls=AT_ONCE).finish()
    found = wait_until(
        lambda: found if len(found := _messages(answering, "crowd")) >= AT_ONCE else None, f"{AT_ONCE} messages"
    )
    assert len(found) == AT_ONCE
    assert {message["kind"] for message in found} == {"message"}
    assert [m for m in found if abs(m["duration_ms"] - SPEECH_S * 1000) > TOLERANCE_MS or m["lost_packets"]] == []


def test_a_call_that_cannot_be_kept_is_told_and_refused(tmp_path: Path) -> None:
    """The scenario itself checks what comes: an early dialog with a description, then 480 with Retry-After."""
    # The reserve and a journal file want more room than this disk has.
    with small_disk(tmp_path, 40, "tmpfs") as disk, machine(disk) as full:
        start_sipp(full, tmp_path, "refused_aloud", caller="told").finish()
        metrics = httpx.get(f"{full.base}/metrics").text
        assert "aftertone_line_calls_refused_aloud_total 1.0" in metrics
        assert float(re.findall(r"^aftertone_line_rtp_sent_packets_total (\S+)", metrics, re.MULTILINE)[0]) > 300
        assert "Traceback" not in full.log()


def test_the_books(answering: Machine) -> None:
    """Last of all, when whatever should not be there has had the time to come: calls that were refused left nothing."""
    assert answering.books()["in_progress"] == 0
    assert {message["caller"]["number"] for message in answering.messages()} <= {*SPOKEN, "crowd"}
