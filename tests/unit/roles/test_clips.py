"""What the line can play: prompts and greetings in every codec, whatever the files are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aftertone.audio.flac import write_wav
from aftertone.media.table import CODECS
from aftertone.model import Codec, Mailbox
from aftertone.roles.clips import REFUSED, Clips
from aftertone.voicemail.deposit import BEEP, FAREWELLS, GREETING
from aftertone.voicemail.directory import GREETINGS, Directory


@pytest.fixture(scope="module")
def clips() -> Clips:
    return Clips()


@pytest.fixture(autouse=True)
def _forget(clips: Clips, tmp_path: Path) -> None:
    (tmp_path / GREETINGS).mkdir()
    clips.learn(tmp_path, Directory())


def write_greeting(folder: Path, name: str, seconds: float) -> None:
    with (folder / GREETINGS / name).open("wb") as file:
        write_wav(file, (np.sin(np.arange(round(8000 * seconds)) / 3) * 9000).astype(np.int16), 8000)


def directory(*boxes: Mailbox) -> Directory:
    return Directory(1, "main", {box.name: box for box in boxes})


@pytest.mark.parametrize("codec", CODECS)
def test_everything_a_script_may_ask_for_is_there(clips: Clips, codec: Codec) -> None:
    for name in (GREETING, BEEP, REFUSED, *FAREWELLS.values()):
        frames = clips.frames(name, "main", codec)
        assert frames
        assert all(frames)
    assert clips.silence[codec]


def test_the_beep_is_played_out_by_phones_that_need_a_little_more(clips: Clips) -> None:
    assert len(clips.frames("beep", "main", Codec.PCMU)) * 20 >= 250 + 100


def test_a_mailbox_has_its_own_greeting_and_the_others_have_the_default(clips: Clips, tmp_path: Path) -> None:
    default = clips.frames("greeting", "main", Codec.PCMU)
    write_greeting(tmp_path, "a.flac", 1.0)
    clips.learn(tmp_path, directory(Mailbox("main"), Mailbox("office", None, "a.flac")))
    assert len(clips.frames("greeting", "office", Codec.PCMU)) == 50
    assert clips.frames("greeting", "main", Codec.PCMU) == default
    assert clips.frames("greeting", "nobody", Codec.PCMU) == default
    assert clips.warnings == []


@pytest.mark.parametrize("content", [None, b"", b"this is no audio at all"])
def test_a_broken_greeting_leaves_the_default_and_a_warning(
    clips: Clips, tmp_path: Path, content: bytes | None
) -> None:
    default = clips.frames("greeting", "office", Codec.G722)
    if content is not None:
        (tmp_path / GREETINGS / "a.flac").write_bytes(content)
    write_greeting(tmp_path, "b.flac", 0.5)
    clips.learn(tmp_path, directory(Mailbox("office", None, "a.flac"), Mailbox("good", None, "b.flac")))
    assert clips.frames("greeting", "office", Codec.G722) == default
    assert len(clips.frames("greeting", "good", Codec.G722)) == 25
    (warning,) = clips.warnings
    assert "office" in warning


def test_a_greeting_that_is_mended_clears_the_warning(clips: Clips, tmp_path: Path) -> None:
    clips.learn(tmp_path, directory(Mailbox("main", None, "a.flac")))
    assert clips.warnings
    write_greeting(tmp_path, "a.flac", 0.5)
    clips.learn(tmp_path, directory(Mailbox("main", None, "a.flac")))
    assert not clips.warnings
    assert len(clips.frames("greeting", "main", Codec.PCMA)) == 25


def test_what_is_known_is_not_read_again_and_what_is_not_named_is_forgotten(clips: Clips, tmp_path: Path) -> None:
    write_greeting(tmp_path, "a.flac", 0.5)
    named = directory(Mailbox("main", None, "a.flac"))
    clips.learn(tmp_path, named)
    before = clips.frames("greeting", "main", Codec.PCMU)
    (tmp_path / GREETINGS / "a.flac").unlink()
    clips.learn(tmp_path, named)
    assert clips.frames("greeting", "main", Codec.PCMU) is before
    clips.learn(tmp_path, directory(Mailbox("main")))
    assert clips.frames("greeting", "main", Codec.PCMU) != before


def test_a_call_meets_a_whole_greeting_while_another_thread_learns_a_new_one(clips: Clips, tmp_path: Path) -> None:
    """Whichever moment the learning thread has come to, the loop's thread finds the old greeting or the new one."""
    write_greeting(tmp_path, "a.flac", 0.5)
    write_greeting(tmp_path, "b.flac", 1.0)
    clips.learn(tmp_path, directory(Mailbox("main", None, "a.flac")))
    lengths: list[int] = []

    class Watched(Clips):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            lengths.append(len(self.frames("greeting", "main", Codec.PCMU)))

    watched = Watched.__new__(Watched)
    watched.__dict__.update(clips.__dict__)
    watched.learn(tmp_path, directory(Mailbox("main", None, "b.flac")))
    assert lengths
    assert set(lengths) == {25, 50}


def test_a_clip_is_cut_once_for_all_who_want_it_so(clips: Clips) -> None:
    usual = clips.track("beep", "main", Codec.PCMU, 20)
    longer = clips.track("beep", "main", Codec.PCMU, 60)
    assert usual.packets == clips.frames("beep", "main", Codec.PCMU)
    assert b"".join(longer.packets) == b"".join(usual.packets)
    assert clips.track("beep", "main", Codec.PCMU, 60).packets is longer.packets
    assert clips.track("beep", "main", Codec.OPUS, 60).packet_ms == 20
    assert abs(longer.seconds - usual.seconds) < 0.06
    assert b"".join(longer.rest(120)) == b"".join(usual.rest(120))


def test_many_lengths_are_not_kept_for_ever(clips: Clips) -> None:
    for length_ms in range(10, 70, 10):
        for codec in (Codec.PCMU, Codec.PCMA, Codec.G722):
            for name in ("beep", "goodbye", "longest_reached", "storage_apology", REFUSED):
                track = clips.track(name, "main", codec, length_ms)
                assert b"".join(track.packets) == b"".join(clips.frames(name, "main", codec))
