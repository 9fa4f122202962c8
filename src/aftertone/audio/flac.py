"""Audio files: messages are written as FLAC or WAV, and whatever an owner uploads is read.

Owns: containers. Refuses to know: where files are kept, what the tags mean, whether a write is durable (the blob store
syncs).

Specification: RFC 9639 (FLAC, tags as Vorbis comments, section 8.6); WAV as RIFF PCM.

Theory of operation: FLAC is lossless and exact: what is read is what was written, sample for sample, and writing the same
audio with the same tags gives the same bytes, so a delivery that is repeated yields the same digest. Reading is for files
from strangers: FFmpeg sees bytes and never a name or an address, only formats that are plain audio containers are opened (no
playlists, which would make FFmpeg fetch what they list), and size and decoded length are bounded while they grow.
"""

from __future__ import annotations

import errno
import io
import re
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

import numpy as np

from aftertone.audio.samples import MAX_RATE_HZ, MIN_RATE_HZ, Samples, check_rate, to_frame
from aftertone.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.container import InputContainer

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""What is read into memory at most: more than an hour of 16 bit audio at 16 kHz, and any sane upload."""

MAX_SECONDS: Final = 3 * 3600
"""The longest audio that is decoded unless the caller allows less."""

MAX_TAG_BYTES: Final = 256 * 1024
"""All tags of one file together; an envelope is about one kilobyte."""

_BLOCK: Final = 4096
"""Samples per FLAC frame: 0.5 s at 8 kHz, so that seeking in a message is fine-grained."""

_FORMATS: Final = "wav,w64,flac,mp3,ogg,mov,matroska,aac,aiff,au,amr,caf"
"""Demuxers that open nothing besides the bytes they are given."""

_TAG_NAME: Final = re.compile("[A-Z0-9_]+")
"""FLAC compares the names of tags without case; with one case only, two names are always two tags."""

_FFMPEG_NAMES: Final = {
    "comment": "DESCRIPTION",
    "track": "TRACKNUMBER",
    "disc": "DISCNUMBER",
    "album_artist": "ALBUMARTIST",
}
"""What FFmpeg calls four tags when it reads them, and what they are called in the file."""

AudioSource: TypeAlias = Path | bytes | BinaryIO
"""A file by its path, its contents, or something open for reading in binary that can seek."""


class NotAudioError(UsageError):
    """The file is not audio that we can read: another format, or damaged."""


class AudioTooLongError(UsageError):
    """The file is larger, or its audio longer, than is accepted here."""


def write_flac(target: Path | BinaryIO, samples: Samples, rate_hz: int, tags: Mapping[str, str] | None = None) -> None:
    """Write mono int16 samples, losslessly, as FLAC with the given tags.

    ``target`` is a path (created or overwritten) or a seekable binary file open for writing, which stays open. A tag with
    an empty value is left out. Nothing is durable until the caller syncs. The bytes depend on the arguments and the
    FFmpeg library alone. Raises ValueError for an impossible rate or for tags that FLAC cannot hold, OSError as the file
    raises it.
    """
    check_rate(rate_hz)
    _check_tags(tags or {})
    if isinstance(target, Path):
        with target.open("wb") as file:
            _write_flac(file, samples, rate_hz, tags or {})
    else:
        _write_flac(target, samples, rate_hz, tags or {})


def _check_tags(tags: Mapping[str, str]) -> None:
    for name, value in tags.items():
        if not _TAG_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a tag: only A to Z, 0 to 9 and _ can")
        if "\0" in value:
            raise ValueError(f"the value of tag {name} has a NUL character")
    if sum(len(name.encode()) + len(value.encode()) for name, value in tags.items()) > MAX_TAG_BYTES:
        raise ValueError(f"the tags of one file may have {MAX_TAG_BYTES} bytes together")


def _write_flac(file: BinaryIO, samples: Samples, rate_hz: int, tags: Mapping[str, str]) -> None:
    import av

    with av.open(file, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        container.metadata.update(tags)
        stream = container.add_stream("flac", rate=rate_hz)
        context = stream.codec_context
        context.layout = "mono"
        context.format = "s16"
        context.thread_count = 1
        context.options = {"flags": "+bitexact", "frame_size": str(_BLOCK)}
        container.start_encoding()
        for start in range(0, len(samples), _BLOCK):
            frame = to_frame(samples[start : start + _BLOCK].astype(np.int16, copy=False), rate_hz)
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_wav(target: Path | BinaryIO, samples: Samples, rate_hz: int) -> None:
    """Write mono int16 samples as WAV (16 bit PCM), which everything plays. Errors and durability as ``write_flac``."""
    check_rate(rate_hz)
    if isinstance(target, Path):
        with target.open("wb") as file:
            write_wav(file, samples, rate_hz)
        return
    with wave.open(target, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(samples.astype("<i2", copy=False).tobytes())


def read_audio(
    source: AudioSource, *, max_bytes: int = MAX_FILE_BYTES, max_seconds: float = MAX_SECONDS
) -> tuple[Samples, int]:
    """Read any audio file (WAV, FLAC, MP3, Ogg, AAC, AMR ...) as mono int16 at the file's own rate.

    More channels are mixed down; a mono 16 bit file comes back exactly. Raises NotFoundError when the path does not exist,
    NotAudioError when this is no audio, AudioTooLongError beyond ``max_bytes`` or ``max_seconds``, OSError as the file does.
    """
    file = _open_bytes(source, max_bytes)
    try:
        return _read(file, max_seconds)
    finally:
        if file is not source:
            file.close()


def read_tags(source: AudioSource, *, max_bytes: int = MAX_FILE_BYTES) -> dict[str, str]:
    """Return the tags of an audio file as ``write_flac`` was given them. Errors as ``read_audio``."""
    file = _open_bytes(source, max_bytes)
    try:
        with _open(file) as container:
            return {_FFMPEG_NAMES.get(name, name): value for name, value in container.metadata.items()}
    finally:
        if file is not source:
            file.close()


def _open_bytes(source: AudioSource, max_bytes: int) -> BinaryIO:
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
    elif isinstance(source, Path):
        try:
            file = source.open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise NotFoundError(f"there is no audio file {source}") from None
    else:
        file = source
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > max_bytes:
        if file is not source:
            file.close()
        raise AudioTooLongError(f"the file has {size} bytes; at most {max_bytes} are accepted")
    return file


def _open(file: BinaryIO) -> InputContainer:
    import av

    try:
        return av.open(file, "r", options={"format_whitelist": _FORMATS}, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        if _is_of_the_disk(error):
            raise
        raise NotAudioError("this is not an audio file that can be read (WAV, FLAC, MP3, Ogg, M4A)") from error


def _is_of_the_disk(error: Exception) -> bool:
    """Tell whether reading failed. A damaged file makes FFmpeg seek to where no file goes, which is EINVAL."""
    from av import FFmpegError

    return isinstance(error, OSError) and not isinstance(error, FFmpegError) and error.errno != errno.EINVAL


def _read(file: BinaryIO, max_seconds: float) -> tuple[Samples, int]:
    from av import FFmpegError

    with _open(file) as container:
        if not container.streams.audio:
            raise NotAudioError("the file has no audio in it")
        # None for a codec that FFmpeg does not know, whatever the library's types say: a damaged header is enough.
        context: AudioCodecContext | None = container.streams.audio[0].codec_context
        if context is None:
            raise NotAudioError("the file's audio is of a kind that cannot be read")
        rate_hz = context.sample_rate
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise NotAudioError(f"the file claims a sampling rate of {rate_hz} Hz")
        limit = int(max_seconds * rate_hz)
        pieces: list[Samples] = []
        count = 0
        try:
            for piece in _mono(container, rate_hz):
                pieces.append(piece)
                count += len(piece)
                if count > limit:
                    raise AudioTooLongError(f"the audio is longer than {max_seconds:g} seconds")
        except (FFmpegError, ValueError, OSError) as error:
            if _is_of_the_disk(error):
                raise
            raise NotAudioError(f"the audio is damaged after {count / rate_hz:.1f} seconds") from error
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.int16)), rate_hz


def _mono(container: InputContainer, rate_hz: int) -> Iterator[Samples]:
    from av import AudioResampler

    stream = container.streams.audio[0]
    stream.codec_context.thread_count = 1
    mixer = AudioResampler(format="s16", layout="mono", rate=rate_hz)
    for frame in container.decode(stream):
        # The container's clock has no say in what the samples are.
        frame.pts = None
        for mono in mixer.resample(frame):
            yield mono.to_ndarray()[0]
    for mono in mixer.resample(None):
        yield mono.to_ndarray()[0]
