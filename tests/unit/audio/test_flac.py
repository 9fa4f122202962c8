"""Audio files: exact, repeatable, tagged; and nothing but audio is read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from aftertone.audio.flac import AudioTooLongError, NotAudioError, read_audio, read_tags, write_flac, write_wav
from aftertone.audio.samples import Samples
from aftertone.errors import NotFoundError, UsageError

NOISE = np.random.default_rng(7).integers(-32768, 32768, 20_000).astype(np.int16)
TAGS = {"AFTERTONE_ENVELOPE": '{"name": "Jörg\n=;#\\\\"}', "AFTERTONE_DELIVERY": "x" * 5000, "TITLE": "a message"}


def flac(samples: Samples, rate_hz: int = 8000, tags: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    write_flac(file, samples, rate_hz, tags)
    return file.getvalue()


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 4095, 4096, 4097, 20_000])
def test_flac_is_exact_at_every_length(count: int, rate_hz: int) -> None:
    samples, read_rate_hz = read_audio(flac(NOISE[:count], rate_hz))
    assert read_rate_hz == rate_hz
    assert samples.dtype == np.int16
    np.testing.assert_array_equal(samples, NOISE[:count])


def test_tags_come_back_as_they_were() -> None:
    assert read_tags(flac(NOISE, tags=TAGS)) == TAGS
    assert read_tags(flac(NOISE[:0], tags=TAGS)) == TAGS
    assert read_tags(flac(NOISE)) == {}
    renamed = {"DESCRIPTION": "a", "TRACKNUMBER": "1", "DISCNUMBER": "2", "ALBUMARTIST": "b"}
    assert read_tags(flac(NOISE, tags=renamed)) == renamed
    assert read_tags(flac(NOISE, tags={"TITLE": "", "ARTIST": "c"})) == {"ARTIST": "c"}


def test_the_same_audio_gives_the_same_bytes(tmp_path: Path) -> None:
    write_flac(tmp_path / "a.flac", NOISE, 8000, TAGS)
    assert (tmp_path / "a.flac").read_bytes() == flac(NOISE, tags=TAGS)


def test_the_header_carries_the_digest_of_the_samples() -> None:
    # STREAMINFO ends with the MD5 of the audio (RFC 9639 section 8.2): 4 bytes marker, 4 bytes block header, 18 bytes.
    assert flac(NOISE)[26:42] == hashlib.md5(NOISE.tobytes()).digest()


@pytest.mark.parametrize(
    "tags", [{"": "x"}, {"a=b": "x"}, {"ä": "x"}, {"title": "x"}, {"A": "nul\0"}, {"A": "x" * 300_000}]
)
def test_tags_that_flac_cannot_hold_are_refused(tags: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="tag"):
        flac(NOISE, tags=tags)


def test_an_impossible_rate_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for write in (write_flac, write_wav):
        with pytest.raises(ValueError, match="sampling rate"):
            write(tmp_path / "x", NOISE, 5)
    assert not (tmp_path / "x").exists()


def test_wav_is_exact_from_path_file_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, NOISE, 16000)
    file = io.BytesIO()
    write_wav(file, NOISE, 16000)
    assert file.getvalue() == path.read_bytes()
    for source in (path, file, file.getvalue()):
        samples, rate_hz = read_audio(source)
        assert rate_hz == 16000
        np.testing.assert_array_equal(samples, NOISE)
    assert not file.closed


def test_two_channels_become_one() -> None:
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(np.repeat(NOISE[:800] // 4, 2).astype("<i2").tobytes())
    samples, rate_hz = read_audio(file.getvalue())
    assert (len(samples), rate_hz) == (800, 8000)
    assert np.abs(samples.astype(int) - NOISE[:800] // 4).max() <= 1


@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mp3"), ("libopus", "ogg"), ("aac", "mp4")])
def test_lossy_files_are_read_at_their_own_rate(codec: Literal["libmp3lame", "libopus", "aac"], container: str) -> None:
    import av

    tone = (9000 * np.sin(2 * np.pi * 500 * np.arange(48000) / 48000)).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.repeat(tone, 2)[np.newaxis, :], format="s16", layout="stereo")
        frame.sample_rate = 48000
        out.mux([packet for ready in (frame, None) for packet in stream.encode(ready)])
    samples, rate_hz = read_audio(file.getvalue())
    assert rate_hz == 48000
    assert 47000 < len(samples) < 51000
    middle = samples[20000:30000]
    assert 5500 < np.sqrt(np.mean(middle.astype(float) ** 2)) < 7200


WAV = b"RIFF\x00\x00\x00\x00WAVE"


@pytest.mark.parametrize(
    "content",
    [b"", b"hello" * 100, bytes(1000), WAV, flac(NOISE)[:50], b"%PDF-1.7\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(99)],
)
def test_what_is_no_audio_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(NotAudioError):
        read_audio(content)


@pytest.mark.parametrize("length", [0, 1, 4, 42, 100, 900, 5000])
def test_a_file_of_zeros_or_a_beginning_is_no_audio_for_whoever_reads_its_tags(tmp_path: Path, length: int) -> None:
    """What a disk may leave of a file that was never synced; a real file refuses the seeks that this leads to."""
    whole = flac(np.tile(NOISE, 3), tags=TAGS)
    for content in (bytes(length), whole[: min(length, 40)], whole[:length] + bytes(len(whole) - length)):
        (tmp_path / "a.flac").write_bytes(content)
        with (tmp_path / "a.flac").open("rb") as file, contextlib.suppress(NotAudioError):
            read_tags(file)
        with (tmp_path / "a.flac").open("rb") as file, contextlib.suppress(NotAudioError):
            read_audio(file)


def test_a_disk_that_fails_is_not_taken_for_damaged_audio() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "bad block")

    with pytest.raises(OSError, match="bad block"):
        read_tags(Failing(flac(NOISE)))


def test_playlists_are_not_followed(tmp_path: Path) -> None:
    write_wav(tmp_path / "secret.wav", NOISE, 8000)
    secret = tmp_path / "secret.wav"
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
        "a.ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(NotAudioError):
            read_audio(tmp_path / name)


def test_size_and_length_are_bounded(tmp_path: Path) -> None:
    content = flac(np.zeros(8000 * 60, np.int16))
    with pytest.raises(AudioTooLongError, match="at most 100 are accepted"):
        read_audio(content, max_bytes=100)
    with pytest.raises(AudioTooLongError, match="longer than 5 seconds"):
        read_audio(content, max_seconds=5)
    assert len(read_audio(content, max_seconds=60)[0]) == 8000 * 60


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(NotFoundError, match=str(path)):
            read_audio(path)
    assert issubclass(NotAudioError, UsageError)


def test_damage_inside_a_file_is_said_and_not_played() -> None:
    content = bytearray(flac(NOISE))
    content[len(content) // 2 :] = b""
    with pytest.raises(NotAudioError, match=r"damaged after \d\.\d seconds"):
        read_audio(bytes(content))
