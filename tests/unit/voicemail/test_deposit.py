"""The deposit script: what a caller hears and in which order the promises are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.model import EndReason
from aftertone.voicemail.call import Call
from aftertone.voicemail.deposit import Deposit, Stage


class Notebook:
    """Ports that write down what was asked."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def play(self, clip: str) -> None:
        self.notes.append(f"play {clip}")

    def stop_playing(self) -> None:
        self.notes.append("stop")

    def start_recording(self) -> None:
        self.notes.append("record")

    def end_recording(self, reason: EndReason) -> None:
        self.notes.append(f"end {reason.value}")

    def hang_up(self) -> None:
        self.notes.append("hang up")

    def confirm_hang_up(self) -> None:
        self.notes.append("confirm")


def make_call() -> tuple[Call, Notebook]:
    notebook = Notebook()
    return Call(notebook), notebook


def until_recording(call: Call) -> None:
    call.run(call.script.answered())
    call.run(call.script.durable())
    call.run(call.script.played())
    call.run(call.script.played())


def test_a_plain_call() -> None:
    call, notebook = make_call()
    until_recording(call)
    call.run(call.script.caller_gone())
    call.end_became_durable()
    assert notebook.notes == [
        "play greeting",
        "record",
        "play beep",
        "stop",
        "end caller_hung_up",
        "confirm",
    ]


def test_no_beep_before_the_beginning_is_durable() -> None:
    call, notebook = make_call()
    call.run(call.script.answered())
    call.run(call.script.played())
    assert notebook.notes == ["play greeting"]
    call.run(call.script.durable())
    assert notebook.notes == ["play greeting", "record", "play beep"]


def test_no_answer_to_bye_before_the_end_is_durable() -> None:
    call, notebook = make_call()
    until_recording(call)
    call.run(call.script.caller_gone())
    assert "confirm" not in notebook.notes
    call.end_became_durable()
    assert notebook.notes[-1] == "confirm"


def test_hash_skips_the_greeting_and_then_ends_the_recording() -> None:
    call, notebook = make_call()
    call.run(call.script.answered())
    call.run(call.script.durable())
    call.run(call.script.key("1"))
    call.run(call.script.key("#"))
    call.run(call.script.played())
    call.run(call.script.key("#"))
    call.run(call.script.played())
    call.end_became_durable()
    assert notebook.notes == [
        "play greeting",
        "stop",
        "record",
        "play beep",
        "stop",
        "end key",
        "play goodbye",
        "hang up",
    ]


def test_a_disk_that_does_not_answer_is_told_to_the_caller() -> None:
    call, notebook = make_call()
    call.run(call.script.answered())
    call.run(call.script.played())
    call.run(call.script.not_durable())
    assert notebook.notes[-2:] == ["end storage", "play storage_apology"]
    call.run(call.script.durable())
    assert "play beep" not in notebook.notes


@pytest.mark.parametrize(
    ("event", "reason", "said"),
    [
        ("silent", "silence", None),
        ("tone", "tone", None),
        ("longest", "longest", "longest_reached"),
        ("storage_failed", "storage", "storage_apology"),
    ],
)
def test_how_a_recording_ends(event: str, reason: str, said: str | None) -> None:
    call, notebook = make_call()
    until_recording(call)
    call.run(getattr(call.script, event)())
    call.end_became_durable()
    if said is not None:
        assert notebook.notes[-1] == f"play {said}"
        call.run(call.script.played())
    assert f"end {reason}" in notebook.notes
    assert notebook.notes[-1] == "hang up"


def test_a_caller_who_hangs_up_during_the_farewell_has_one_end() -> None:
    call, notebook = make_call()
    until_recording(call)
    call.run(call.script.key("#"))
    call.end_became_durable()
    call.run(call.script.caller_gone())
    assert [n for n in notebook.notes if n.startswith("end")] == ["end key"]
    assert notebook.notes[-1] == "confirm"


def test_shutting_down_ends_at_once() -> None:
    call, notebook = make_call()
    until_recording(call)
    call.run(call.script.shutting_down())
    call.end_became_durable()
    assert notebook.notes[-3:] == ["stop", "end shutdown", "hang up"]


EVENTS = st.sampled_from(
    ["durable", "played", "hash", "silent", "tone", "longest", "not_durable", "storage_failed", "gone", "shutting_down"]
)


@given(st.lists(EVENTS, max_size=30))
def test_whatever_happens_a_call_ends_at_most_once_and_never_beeps_before_durable(events: list[str]) -> None:
    call, notebook = make_call()
    call.run(call.script.answered())
    durable = False
    for event in events:
        durable = durable or event == "durable"
        script: Deposit = call.script
        match event:
            case "hash":
                call.run(script.key("#"))
            case "gone":
                call.run(script.caller_gone())
            case _:
                call.run(getattr(script, event)())
        if "play beep" in notebook.notes:
            assert durable
    ends = [n for n in notebook.notes if n.startswith("end ")]
    assert len(ends) <= 1
    assert not {"hang up", "confirm"} & set(notebook.notes)
    if ends and "play beep" in notebook.notes:
        assert notebook.notes.index("play beep") < notebook.notes.index(ends[0])
    if call.script.stage is Stage.OVER:
        assert len(ends) == 1
        call.end_became_durable()
        assert {"hang up", "confirm"} & set(notebook.notes)
