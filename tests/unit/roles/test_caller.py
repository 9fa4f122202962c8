"""The test caller's ear and its idea of addresses; whole calls are in tests/acceptance."""

from __future__ import annotations

import asyncio
import socket

import pytest

from aftertone.audio.clips import Clip, encode_clip
from aftertone.audio.codec import Decoder
from aftertone.audio.prompts import PROMPTS, beep, prompt
from aftertone.errors import EnvironmentFault, UsageError
from aftertone.media.table import CODECS
from aftertone.model import SAMPLE_RATE_HZ, Codec
from aftertone.net.names import SystemNames
from aftertone.roles.caller import _BeepEar, resolve


def ear_for(codec: Codec) -> _BeepEar:
    return _BeepEar(Decoder(codec), SAMPLE_RATE_HZ[codec])


def listen(ear: _BeepEar, clip: Clip, codec: Codec) -> None:
    for frame in encode_clip(clip, codec).frames:
        ear.hear(frame)


@pytest.mark.parametrize("codec", CODECS)
def test_the_beep_is_heard_and_so_is_its_end(codec: Codec) -> None:
    ear = ear_for(codec)
    listen(ear, beep(), codec)
    assert ear.heard.is_set()
    listen(ear, prompt("goodbye"), codec)
    assert ear.ended.is_set()


@pytest.mark.parametrize("codec", CODECS)
def test_no_prompt_is_taken_for_the_beep(codec: Codec) -> None:
    for name in PROMPTS:
        ear = ear_for(codec)
        listen(ear, prompt(name), codec)
        assert not ear.heard.is_set(), name


@pytest.mark.parametrize("codec", CODECS)
def test_the_beep_is_heard_behind_the_greeting_too(codec: Codec) -> None:
    ear = ear_for(codec)
    listen(ear, prompt("greeting_default"), codec)
    assert not ear.heard.is_set()
    listen(ear, beep(), codec)
    assert ear.heard.is_set()


@pytest.mark.parametrize(
    ("uri", "address", "transport"),
    [
        ("sip:main@127.0.0.1", ("127.0.0.1", 5060), "UDP"),
        ("main@127.0.0.1", ("127.0.0.1", 5060), "UDP"),
        ("sip:127.0.0.1:5070", ("127.0.0.1", 5070), "UDP"),
        ("SIP:main@127.0.0.1:5070;transport=TCP", ("127.0.0.1", 5070), "TCP"),
        ("sip:main@[::1]:5070", ("::1", 5070), "UDP"),
        ("sips:main@127.0.0.1", ("127.0.0.1", 5061), "TLS"),
        ("sip:main@127.0.0.1:5070;transport=tls", ("127.0.0.1", 5070), "TLS"),
        ("main@localhost:5070", ("127.0.0.1", 5070), "UDP"),
    ],
)
def test_addresses_that_can_be_called(uri: str, address: tuple[str, int], transport: str) -> None:
    found = asyncio.run(resolve(uri))
    assert (found.address, found.transport) == (address, transport)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "sip:",
        "sip:main@",
        "sip:main@host:99999",
        "sip:main@host:0",
        "sip:a b@host",
        "sip:main@[::1",
        "sip:main@a..b",
        f"sip:main@{'a' * 80}.example",
    ],
)
def test_addresses_that_cannot_be_called_are_the_callers_mistake(uri: str) -> None:
    with pytest.raises(UsageError, match="write sip:mailbox@host"):
        asyncio.run(resolve(uri))


def test_a_name_that_nobody_knows_is_the_networks_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    async def nothing(*_: object) -> tuple[list[object], float]:
        return [], 60.0

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(SystemNames, "_query", nothing)
    with pytest.raises(EnvironmentFault, match=r"nowhere\.example has no address"):
        asyncio.run(resolve("sip:main@nowhere.example"))
