"""SRTP with baresip: an independent implementation opens what we protect, and we open what it protects.

It calls the machine, with the one suite that it offers. The other suites that it knows it takes when it is called, so there our own
SIP and SRTP call it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from aftertone.audio.clips import Clip, encode_clip
from aftertone.audio.codec import Decoder
from aftertone.audio.g711 import encode_ulaw
from aftertone.audio.prompts import BEEP_HZ
from aftertone.audio.samples import Samples
from aftertone.model import Codec, MasterKey, Suite
from aftertone.net.endpoint import SipEndpoint
from aftertone.rtp.packet import serialize
from aftertone.rtp.rtcp import receiver_report
from aftertone.rtp.srtp import SrtpReceiver, SrtpSender
from aftertone.sdp import negotiation
from aftertone.sdp.crypto import Secrecy
from aftertone.sip import events as sip
from aftertone.sip.settings import AgentSettings
from tests.support.baresip import Baresip, baresip, beep_span_ms, require_modules, waiting_baresip
from tests.support.callers import Party, wish
from tests.support.machine import Machine, free_port, machine, speech, wait_until

PAUSE_S: Final = 1.5
TONE_MS: Final = 1000
CLEAR: Final = b"PINGPONG"
"""baresip opens the path of reports with this, once before it has keys."""
FORGED: Final = "rtp_dropped_unauthentic_packets_total"
MODES: Final = {"srtp": "RTP/AVP", "srtp-mand": "RTP/SAVP", "srtp-mandf": "RTP/SAVPF"}
"""baresip's words, and the profile in which it offers its keys then."""
EACH_MODE: Final = pytest.mark.parametrize("mode", MODES)


def _said() -> Samples:
    return np.concatenate([np.zeros(round(PAUSE_S * 8000), np.int16), speech(2.5), np.zeros(4000, np.int16)])


@pytest.fixture(scope="module")
def phones(answering: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Baresip]]:
    """One softphone for each mode, all calling at the same time."""
    require_modules(Codec.PCMU)
    folder = tmp_path_factory.mktemp("baresip")
    with ExitStack() as stack:
        yield {
            mode: stack.enter_context(
                baresip(
                    answering, folder / mode, Codec.PCMU, _said(), caller=f"baresip-{mode}", account=f"mediaenc={mode}"
                )
            )
            for mode in MODES
        }


def _message(machine: Machine, phone: Baresip, mode: str) -> dict[str, Any]:
    phone.finish()
    found = wait_until(
        lambda: [m for m in machine.messages() if m["caller"]["number"] == f"baresip-{mode}"], f"the message by {mode}"
    )
    assert len(found) == 1
    return found[0]


@EACH_MODE
def test_what_was_said_is_what_is_kept(answering: Machine, phones: dict[str, Baresip], mode: str) -> None:
    """Sample by sample, but for the rounding of baresip's encoder, which is not the ITU's."""
    phone = phones[mode]
    message = _message(answering, phone, mode)
    assert message["srtp"] == "AES_CM_128_HMAC_SHA1_80"
    assert message["kind"] == "message" and message["lost_packets"] == 0
    assert phone.output().count(f" {MODES[mode]} ") == 2, "offered and answered"
    kept = answering.audio(message["id"])[0].astype(np.int32)
    said = phone.said()[0].astype(np.int32)[-len(kept) :]
    assert len(kept) == len(said)
    assert int(np.count_nonzero(np.abs(kept - said) > 16 + np.abs(said) // 16)) == 0


@EACH_MODE
def test_the_beep_is_heard(answering: Machine, phones: dict[str, Baresip], mode: str) -> None:
    phone = phones[mode]
    _message(answering, phone, mode)
    assert beep_span_ms(*phone.heard()) is not None
    assert "failed to decrypt" not in phone.output()


@pytest.mark.parametrize("suite", [Suite.AES_128_CM_80, Suite.AES_128_CM_32, Suite.AES_128_GCM, Suite.AES_256_GCM])
def test_every_suite_that_baresip_knows(tmp_path: Path, suite: Suite) -> None:
    port = free_port()
    with waiting_baresip(tmp_path / "phone", Codec.PCMU, speech(4.0), port=port, account="mediaenc=srtp-mand") as phone:
        wait_until(lambda: "1 account" in phone.output() or "UA" in phone.output(), "baresip to be there")
        with _two_ports() as peer:
            asyncio.run(_talk(peer, port, suite))
        phone.quit()
    if suite is Suite.AES_128_CM_32:
        # Its library gives reports a tag of 32 bits here, where RFC 4568 section 6.2.2 demands 80: neither side reads the other's.
        assert not peer.reports
    else:
        assert peer.refused == 0
        assert any(CLEAR in report for report in peer.reports), "what comes in the clear at first comes protected too"
        assert "failed to decrypt" not in phone.output()
    decoder = Decoder(Codec.PCMU)
    heard = np.concatenate([decoder.decode(packet[12:]) for packet in peer.sounds]).astype(np.int32)
    said = phone.said()[0].astype(np.int32)[: len(heard)]
    assert len(said) == len(heard) > 8000
    assert int(np.count_nonzero(np.abs(heard - said) > 16 + np.abs(said) // 16)) == 0
    tone = beep_span_ms(*phone.heard())
    assert tone is not None and abs(tone[1] - tone[0] - TONE_MS) <= 40


class _Peer:
    """Our side of a call to baresip: the sound's socket, the next one for reports, and what came there."""

    def __init__(self, sound: socket.socket, reports: socket.socket) -> None:
        self.sockets = (sound, reports)
        self.sounds: list[bytes] = []
        self.reports: list[bytes] = []
        self.refused = 0

    def receive(self, receiver: SrtpReceiver) -> None:
        for sock in self.sockets:
            while True:
                try:
                    datagram = sock.recv(2000)
                except BlockingIOError:
                    break
                plain = receiver.open_rtcp(datagram) if sock is self.sockets[1] else receiver.open(datagram)
                if plain is None and CLEAR not in datagram:
                    self.refused += 1
                elif plain is not None:
                    (self.reports if sock is self.sockets[1] else self.sounds).append(plain)


@contextmanager
def _two_ports() -> Iterator[_Peer]:
    while True:
        with ExitStack() as stack:
            sound, reports = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
            port = free_port() & ~1
            try:
                for number, sock in enumerate((sound, reports)):
                    sock.setblocking(False)
                    sock.bind(("127.0.0.1", port + number))
            except OSError:
                continue
            yield _Peer(sound, reports)
            return


async def _talk(peer: _Peer, port: int, suite: Suite) -> None:
    """Call baresip with this suite alone, play it a tone and hear it."""
    events: asyncio.Queue[sip.Event] = asyncio.Queue()
    endpoint = SipEndpoint(AgentSettings(user="us"), events.put_nowait, hosts=("127.0.0.1",), port=0)
    await endpoint.start()
    sound = peer.sockets[0]
    whole = negotiation.offer(
        local_host="127.0.0.1",
        local_port=sound.getsockname()[1],
        session_id=1,
        version=1,
        codecs=(Codec.PCMU,),
        secrecy=Secrecy("required", secrets.token_bytes),
    )
    lines = whole.split(b"\r\n")
    offer = b"\r\n".join(line for line in lines if b"a=crypto" not in line or f" {suite} ".encode() in line)
    offer = offer.replace(b"a=rtcp-mux\r\n", b"")
    endpoint.invite(
        f"sip:waiting@127.0.0.1:{port}",
        from_uri="sip:us@127.0.0.1",
        body=offer,
        content_type="application/sdp",
        flow=endpoint.flow_to(("127.0.0.1", port), "UDP"),
    )
    async with asyncio.timeout(20):
        while not isinstance(event := await events.get(), sip.CallAnswered):
            assert not isinstance(event, sip.CallFailed), event
    plan = negotiation.plan_from_answer(offer, event.response.body)
    assert plan.keys is not None and plan.keys.receiving.suite is suite
    assert plan.remote is not None and plan.remote_rtcp is not None
    sender, receiver = SrtpSender(plan.keys.sending), SrtpReceiver(plan.keys.receiving)
    tone = 8000 * np.sin(2 * np.pi * BEEP_HZ * np.arange(8 * TONE_MS) / 8000)
    payloads = [*encode_ulaw(tone.astype(np.int16)).reshape(-1, 160), *([np.full(160, 0xFF, np.uint8)] * 25)]
    peer.sockets[1].sendto(sender.protect_rtcp(receiver_report(9, "us")), plan.remote_rtcp)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number, payload in enumerate(payloads):
        await asyncio.sleep(max(0.0, began_s + number * 0.02 - loop.time()))
        sound.sendto(sender.protect(serialize(0, number, number * 160, 9, payload.tobytes())), plan.remote)
        peer.receive(receiver)
    endpoint.bye(event.dialog_id)
    async with asyncio.timeout(20):
        while not isinstance(await events.get(), sip.ByeFinished):
            pass
    await endpoint.stop()


def _is_refused(phone: Baresip) -> bool:
    return "SIP/2.0 488" in phone.output()


def test_required_and_off(tmp_path: Path) -> None:
    """A phone that insists on encryption is refused where it is off, one that has none where it is required."""
    for policy, account in (("off", "mediaenc=srtp-mand"), ("required", "")):
        folder = tmp_path / policy
        folder.mkdir()
        with (
            machine(folder / "data", SIP__SRTP=policy) as strict,
            baresip(strict, folder / "phone", Codec.PCMU, speech(5.0), caller="x", account=account) as phone,
        ):
            wait_until(partial(_is_refused, phone), "the refusal")
            phone.quit()
            assert strict.messages() == []


def test_an_attacker_who_injects_sound_changes_nothing(answering: Machine) -> None:
    """He knows the port, speaks in time, with the caller's own numbers where he can guess them, and has no key."""
    before = _metric(answering, FORGED)
    with Party([replace(wish(answering.uri, "attacked", 3.0), srtp="required")]) as party:
        (tester,) = wait_until(lambda: party.testers[:1], "the caller")
        plan = wait_until(lambda: tester._plan, "the answer")
        assert plan.remote is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            forger = SrtpSender(MasterKey(Suite.AES_256_GCM, bytes(32), bytes(12)))
            noise = bytes(range(160))
            number = 0
            while not party._futures[0].done():
                for packet in (serialize(0, number, number * 160, 5, noise), bytes(12), b"\x80\xc9" + bytes(30)):
                    attacker.sendto(packet, plan.remote)
                attacker.sendto(forger.protect(serialize(0, number, number * 160, 5, noise)), plan.remote)
                number = (number + 1) & 0xFFFF
                time.sleep(0.005)
        (outcome,) = party.outcomes()
    assert outcome.hung_up and outcome.srtp == "AEAD_AES_256_GCM"
    (message,) = wait_until(
        lambda: [m for m in answering.messages() if m["caller"]["number"] == "attacked"], "the message"
    )
    assert message["srtp"] == "AEAD_AES_256_GCM" and message["lost_packets"] == 0
    said = encode_clip(Clip("speech", speech(3.0), 8000), Codec.PCMU).frames
    decoder = Decoder(Codec.PCMU)
    expected = np.concatenate([decoder.decode(frame) for frame in said])
    np.testing.assert_array_equal(answering.audio(message["id"])[0], expected)
    wait_until(lambda: _metric(answering, FORGED) > before, "the metric that counts forged packets")


def _metric(machine: Machine, name: str) -> int:
    return int(json.loads((machine.data / "run" / "line.json").read_text())["metrics"][name])
