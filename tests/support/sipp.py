"""sipp as a caller: our scenarios, started and waited for; and the captures that it plays.

Owns: how sipp is run (ports, limits, logs) and how a capture file of RTP is written. Refuses to know: what a scenario says
and what the machine makes of it.

Specification: the classic libpcap file format (little-endian, microseconds, Ethernet), which is what sipp 3.6 reads.

Theory of operation: sipp replays a capture with its own addresses and the capture's times, through a raw socket; so a test
says packet by packet what is sent and when, and sipp does the talking. Raw sockets need privileges: without them the tests
that play sound are skipped, with that reason.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from aftertone.audio.codec import encode
from aftertone.audio.samples import Samples
from aftertone.model import Codec
from aftertone.rtp.events import DIGITS, TelephoneEvent
from aftertone.rtp.events import serialize as event_payload
from aftertone.rtp.packet import serialize
from tests.support.machine import Machine, free_port
from tests.support.peers import require

SCENARIOS: Final = Path(__file__).resolve().parent.parent / "interop" / "sipp"
WITHIN_S: Final = 40
FRAME_MS: Final = 20
FRAME_TICKS: Final = 160
KEY_TYPE: Final = 101
"""The number of telephone-event in our scenarios' descriptions."""

MEDIA_PORTS: Final = range(20_000, 23_900, 100)
"""A hundred ports for each sipp (four a call), below those that the machine is given in tests."""

TimedPacket = tuple[int, bytes]
"""Milliseconds since the first packet, and the RTP packet."""


@dataclass
class Sipp:
    """One running sipp."""

    name: str
    process: subprocess.Popen[bytes]
    folder: Path
    ports: Ports

    def finish(self, within_s: float = WITHIN_S) -> None:
        """Wait until all its calls went as the scenario says; else fail with what sipp complained about."""
        try:
            status = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = -1
        self.ports.give_back()
        assert status == 0, f"sipp {self.name} ended with {status}\n{self._story()}"

    def _story(self) -> str:
        parts = [self.folder / f"{self.name}.{kind}" for kind in ("errors", "messages", "out")]
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-6000:]}" for p in parts if p.exists())


class Ports:
    """The media ports of one sipp: nobody else's in this process or another, until the object is gone.

    A lock says so, because sipp binds them some time after we looked, and takes no other than it was given.
    """

    def __init__(self) -> None:
        for first in MEDIA_PORTS:
            lock = os.open(f"{tempfile.gettempdir()}/sipp-{os.getuid()}-{first}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            self.give_back = weakref.finalize(self, os.close, lock)
            """Lets others have them."""
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for port in (first, first + 2):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                        probe.bind(("127.0.0.1", port))
                self.first = first
                return
            self.give_back()
        raise AssertionError("every port for the media of sipp is in use")


def start_sipp(
    machine: Machine,
    folder: Path,
    scenario: str,
    *,
    caller: str,
    user: str = "main",
    calls: int = 1,
    options: Sequence[str] = (),
) -> Sipp:
    """Start ``calls`` calls at once of a scenario in tests/interop/sipp, to mailbox ``user``, from ``sip:caller@...``.

    ``caller`` must differ between the sipps of one ``folder``, which holds the captures that the scenario plays.
    """
    require("sipp")
    limits = ("-m", calls, "-l", calls, "-r", calls, "-rp", "200", "-timeout", f"{WITHIN_S}s", "-timeout_error")
    ports = Ports()
    places = ("-i", "127.0.0.1", "-p", free_port(), "-cp", free_port(), "-mi", "127.0.0.1", "-mp", ports.first)
    errors = ("-trace_err", "-error_file", folder / f"{caller}.errors")
    messages = ("-trace_msg", "-message_file", folder / f"{caller}.messages")
    script = ("-sf", SCENARIOS / f"{scenario}.xml", "-s", user, "-key", "caller", caller, "-nostdin")
    arguments = (f"127.0.0.1:{machine.sip_port}", *script, *limits, *places, *errors, *messages, *options)
    command = ["sipp", *(str(argument) for argument in arguments)]
    with (folder / f"{caller}.out").open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "TERM": "dumb"}
        )
    return Sipp(caller, process, folder, ports)


def start_phone(folder: Path, scenario: str, port: int) -> Sipp:
    """Start a phone that is called once on ``port``, as a scenario in tests/interop/sipp says."""
    require("sipp")
    limits = ("-m", 1, "-timeout", f"{WITHIN_S}s", "-timeout_error", "-nostdin")
    ports = Ports()
    places = ("-i", "127.0.0.1", "-p", port, "-cp", free_port(), "-mi", "127.0.0.1", "-mp", ports.first)
    errors = ("-trace_err", "-error_file", folder / f"{scenario}.errors")
    messages = ("-trace_msg", "-message_file", folder / f"{scenario}.messages")
    arguments = ("-sf", SCENARIOS / f"{scenario}.xml", *limits, *places, *errors, *messages)
    with (folder / f"{scenario}.out").open("wb") as out:
        process = subprocess.Popen(
            ["sipp", *(str(argument) for argument in arguments)],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TERM": "dumb"},
        )
    return Sipp(scenario, process, folder, ports)


def require_raw_sockets() -> None:
    """Skip the test where this user may not open raw sockets, which sipp needs to replay a capture."""
    require("sipp")
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP).close()
    except PermissionError:
        pytest.skip("sipp replays sound through a raw socket, which takes root or CAP_NET_RAW")


def talk(samples: Samples, *, sequence: int = 100, timestamp: int = 4000, ssrc: int = 0x51EEDED) -> list[TimedPacket]:
    """Return 8 kHz audio as PCMU packets of 20 ms."""
    return [
        (
            index * FRAME_MS,
            serialize(0, sequence + index, timestamp + index * FRAME_TICKS, ssrc, frame, marker=index == 0),
        )
        for index, frame in enumerate(encode(Codec.PCMU, samples, 8000))
    ]


def press(key: str, at_ms: int, *, sequence: int, timestamp: int, ssrc: int = 0x51EEDED) -> list[TimedPacket]:
    """Return one key, held for 100 ms, as RFC 4733 wants it: a growing duration, the last packet three times."""
    durations = [*range(FRAME_TICKS, 5 * FRAME_TICKS + 1, FRAME_TICKS), 5 * FRAME_TICKS, 5 * FRAME_TICKS]
    packets = []
    for index, duration in enumerate(durations):
        payload = event_payload(TelephoneEvent(DIGITS.index(key), index >= 4, 10, duration))
        packet = serialize(KEY_TYPE, sequence + index, timestamp, ssrc, payload, marker=index == 0)
        packets.append((at_ms + index * FRAME_MS, packet))
    return packets


def write_capture(path: Path, packets: Iterable[TimedPacket]) -> Path:
    """Write packets as a capture: Ethernet, IPv4, UDP. Addresses and checksums are filler; sipp puts its own."""
    content = bytearray(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    for at_ms, packet in packets:
        udp = struct.pack("!HHHH", 6000, 6000, 8 + len(packet), 0) + packet
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\x7f\0\0\1", b"\x7f\0\0\1")
        frame = bytes(12) + b"\x08\x00" + ip + udp
        content += struct.pack("<IIII", 1 + at_ms // 1000, at_ms % 1000 * 1000, len(frame), len(frame)) + frame
    path.write_bytes(content)
    return path
