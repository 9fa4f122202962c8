"""sipp calls the machine and changes its mind: PRACK, UPDATE, session timers, hold, REFER, glare, proxies in the way, early media."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from aftertone.audio.flac import write_wav
from tests.support.machine import Machine, machine, speech, wait_until
from tests.support.sipp import Sipp, require_raw_sockets, start_sipp, talk, write_capture

SPEECH_S: Final = 2.0
TOLERANCE_MS: Final = 60
GHOSTS_S: Final = 90
"""An interval of 90 s, the shortest that there is, ends after 60."""

SPOKEN: Final = {
    "prack": "patient",
    "prack_late_offer": "patient",
    "hold_by_update": "main",
    "session_refresh": "main",
    "refer": "main",
    "glare": "main",
    "proxies": "main",
}
"""Scenarios that leave a message, with the mailbox that they ask for; each calls from its own name."""
SLOW: Final = ("session_ghost", "session_we_refresh")
"""Scenarios that take as long as a session interval; they run beside the others."""


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the captures that the scenarios name."""
    folder = tmp_path_factory.mktemp("sipp")
    write_capture(folder / "speech.pcap", talk(speech(SPEECH_S)))
    write_capture(folder / "part_two.pcap", talk(speech(1.0), sequence=200, timestamp=4000 + 2500 * 8))
    return folder


@pytest.fixture(scope="module")
def calls(answering: Machine, captures: Path) -> Iterator[dict[str, Sipp]]:
    """All calls, started at the same time."""
    require_raw_sockets()
    slow = ("-timeout", f"{GHOSTS_S}s", "-recv_timeout", str(GHOSTS_S * 1000))
    started = {name: start_sipp(answering, captures, name, caller=name, options=slow) for name in SLOW}
    started |= {name: start_sipp(answering, captures, name, caller=name, user=user) for name, user in SPOKEN.items()}
    yield started
    for sipp in started.values():
        if sipp.process.poll() is None:
            sipp.process.kill()
            sipp.process.wait()


def _message(machine: Machine, calls: dict[str, Sipp], name: str, within_s: float = 40) -> dict[str, Any]:
    """Return the one message of a call that went as its scenario says."""
    calls[name].finish(within_s)
    found = wait_until(
        lambda: [one for one in machine.messages() if one["caller"]["number"] == name], f"the message of {name}"
    )
    assert len(found) == 1
    assert found[0]["kind"] == "message"
    return dict(found[0])


@pytest.mark.parametrize("name", [name for name in SPOKEN if name not in ("hold_by_update", "proxies")])
def test_a_call_that_changes_leaves_one_message(answering: Machine, calls: dict[str, Sipp], name: str) -> None:
    """The scenario itself checks every answer and header."""
    message = _message(answering, calls, name)
    assert abs(message["duration_ms"] - SPEECH_S * 1000) <= TOLERANCE_MS
    assert (message["end_reason"], message["lost_packets"], message["holds"]) == ("caller_hung_up", 0, [])


def test_a_hold_and_the_last_word_are_shown(answering: Machine, calls: dict[str, Sipp]) -> None:
    message = _message(answering, calls, "hold_by_update")
    assert abs(message["duration_ms"] - 3500) <= TOLERANCE_MS
    assert message["end_detail"] == "Q.850;cause=16"
    ((first, last),) = message["holds"]
    assert abs(first - 2000) <= 3 * TOLERANCE_MS
    assert abs(last - first - 200) <= TOLERANCE_MS


def test_requests_of_the_machine_take_the_recorded_route_past_a_strict_proxy(
    answering: Machine, calls: dict[str, Sipp]
) -> None:
    message = _message(answering, calls, "proxies")
    assert message["end_reason"] == "key"


def test_a_caller_that_only_listens_before_the_answer_leaves_nothing_and_one_that_speaks_leaves_a_message(
    tmp_path: Path, captures: Path
) -> None:
    require_raw_sockets()
    greeting = io.BytesIO()
    write_wav(greeting, speech(0.4), 8000)
    with machine(tmp_path / "data", CALLS__RING_S="0.5", SIP__EARLY_MEDIA="true") as early:
        with early.client() as client:
            client.put("/mailboxes/main/greeting", content=greeting.getvalue()).raise_for_status()
        early.stop()
        early.start()
        calls = {
            name: start_sipp(early, captures, name, caller=f"{name}_here")
            for name in ("early_media", "early_media_cancelled")
        }
        calls["early_media_cancelled"].finish()
        calls["early_media"].finish()
        (message,) = wait_until(early.messages, "the message")
        assert message["caller"]["number"] == "early_media_here"
        assert abs(message["duration_ms"] - SPEECH_S * 1000) <= TOLERANCE_MS
        assert "Traceback" not in early.log()


def test_a_ghost_ends_with_its_session_and_is_kept(answering: Machine, calls: dict[str, Sipp]) -> None:
    message = _message(answering, calls, "session_ghost", GHOSTS_S)
    assert message["end_reason"] == "session_expired"
    assert abs(message["duration_ms"] - SPEECH_S * 1000) <= TOLERANCE_MS
    assert message["holds"] == [], "nothing was heard during the hold, so the audio ends before it"


def test_the_machine_refreshes_a_session_if_it_is_asked_to(answering: Machine, calls: dict[str, Sipp]) -> None:
    message = _message(answering, calls, "session_we_refresh", GHOSTS_S)
    assert message["end_reason"] == "caller_hung_up"
