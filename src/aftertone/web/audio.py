"""Sends stored audio: the FLAC as it lies there, or as WAV for programs that know nothing else.

Owns: conditional and range answers over a blob, the WAV export. Refuses to know: messages, who may listen.
Specification: RFC 9110 sections 13 and 14; RIFF WAVE (PCM, 16 bit); RFC 9639 section 8.2 (STREAMINFO).

Theory of operation: a blob never changes, so its SHA-256 is a strong entity tag for ever. Bytes go from the file to the
socket in pieces of 64 KiB. The length of a WAV is known from the FLAC's STREAMINFO before anything is decoded, so it is
streamed too; it has no ranges, because byte positions in it are not bytes of a file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from aftertone.errors import DamagedError, NotFoundError, UsageError
from aftertone.web.ranges import ByteRange, UnsatisfiableError, not_modified, parse_range, range_still_valid
from aftertone.web.services import DeskServices

_PIECE_BYTES: Final = 64 * 1024


class _FileResponse(Response):
    """Sends ``length`` bytes of an open file from where it stands, then closes it."""

    def __init__(self, file: BinaryIO, length: int, status: int, headers: dict[str, str]) -> None:
        self._file = file
        self._left = length
        self.status_code = status
        self.background = None
        self.body = b""
        self.init_headers(headers)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send head and body; a client that leaves ends it."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while self._left > 0:
                piece = await run_in_threadpool(self._file.read, min(self._left, _PIECE_BYTES))
                if not piece:
                    break  # shorter than its own size: the server sees the missing bytes and drops the connection
                self._left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": self._left > 0})
        finally:
            self._file.close()


def send_flac(
    request: Request, services: DeskServices, key: str, sha256: str, *, file_name: str, attachment: bool
) -> Response:
    """Answer a GET or HEAD for the blob ``key``: 200, 206, 304 or 416. Blocks on the disk: run in a worker thread.

    Raises DamagedError when the blob is gone, StorageError when it cannot be read.
    """
    with _must_be_there():
        size = services.blobs.size(key)
    etag = f'"{sha256}"'
    headers = _common_headers(etag, f"{file_name}.flac", attachment=attachment)
    headers["Content-Type"] = "audio/flac"
    headers["Accept-Ranges"] = "bytes"
    if not_modified(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    part: ByteRange | None = None
    if request.method == "GET" and range_still_valid(request.headers.get("if-range"), etag):
        try:
            part = parse_range(request.headers.get("range"), size)
        except UnsatisfiableError:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    length = size if part is None else part.length
    headers["Content-Length"] = str(length)
    if part is not None:
        headers["Content-Range"] = f"bytes {part.first}-{part.last}/{size}"
    if request.method == "HEAD":
        return Response(status_code=200, headers=headers)
    with _must_be_there():
        file = services.blobs.open(key)
    if part is not None:
        file.seek(part.first)
    return _FileResponse(file, length, 200 if part is None else 206, headers)


@contextmanager
def _must_be_there() -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        raise DamagedError("the audio that belongs here is missing; run `aftertone verify` on the machine") from error


def _common_headers(etag: str, file_name: str, *, attachment: bool) -> dict[str, str]:
    disposition = "attachment" if attachment else "inline"
    return {
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'{disposition}; filename="{file_name}"',
    }


def stream_info(head: bytes) -> tuple[int, int, int]:
    """Return (sample rate in Hz, channels, samples per channel) from the first 42 bytes of a FLAC file.

    Raises DamagedError when they are no STREAMINFO of 16-bit audio of known length. Spec: RFC 9639 section 8.2.
    """
    if len(head) < 42 or head[:4] != b"fLaC" or head[4] & 0x7F != 0:
        raise DamagedError("the stored audio is not a FLAC file; run `aftertone verify`")
    packed = int.from_bytes(head[18:26], "big")
    rate_hz, channels = packed >> 44, (packed >> 41 & 7) + 1
    bits, samples = (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
    if bits != 16 or not rate_hz:
        raise UsageError("this audio cannot be exported as WAV; take the FLAC")
    return rate_hz, channels, samples


def wav_head(rate_hz: int, channels: int, samples: int) -> bytes:
    """Return the 44 bytes before the samples of a 16-bit PCM WAVE file. Raises UsageError beyond 4 GiB."""
    data_bytes = samples * channels * 2
    if data_bytes > 2**32 - 45:
        raise UsageError("this audio is too long for a WAV file; take the FLAC")
    frame = channels * 2
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * frame, frame, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + data_bytes)
        + b"WAVEfmt \x10\0\0\0"
        + form
        + b"data"
        + struct.pack("<I", data_bytes)
    )


def send_wav(request: Request, services: DeskServices, key: str, sha256: str, *, file_name: str) -> Response:
    """Answer a GET or HEAD for the blob ``key`` as a WAV file. Raises what ``send_flac`` raises, and UsageError."""
    with _must_be_there(), services.blobs.open(key) as file:
        rate_hz, channels, samples = stream_info(file.read(42))
    etag = f'"{sha256}-wav"'
    headers = _common_headers(etag, f"{file_name}.wav", attachment=True)
    if not_modified(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    head = wav_head(rate_hz, channels, samples)
    headers["Content-Length"] = str(len(head) + samples * channels * 2)
    if request.method == "HEAD":
        return Response(status_code=200, headers={**headers, "Content-Type": "audio/wav"})
    return StreamingResponse(_wav_pieces(services, key, head), headers=headers, media_type="audio/wav")


def _wav_pieces(services: DeskServices, key: str, head: bytes) -> Iterator[bytes]:
    import av  # heavy: only who exports pays for it

    yield head
    with services.blobs.open(key) as file, av.open(file, mode="r", format="flac") as container:
        for frame in container.decode(audio=0):
            yield frame.to_ndarray().astype("<i2", copy=False).tobytes()
