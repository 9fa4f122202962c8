"""sipp in the place of a provider that wants a login for our own requests in a call, too: a BYE, and the refresh of a session."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Final

import pytest

from aftertone.audio.flac import write_wav
from aftertone.sip.digest import digest_response, parse_elements
from aftertone.sip.digest_server import DigestServer
from tests.support.machine import Machine, machine, speech, wait_until
from tests.support.sipp import Sipp, start_sipp
from tests.unit.roles.registrar import Registrar

REFRESH_S: Final = 60
"""A session of 90 s, the shortest that there is, is refreshed after 45."""
_LOGIN: Final = re.compile(r"^(UPDATE|BYE) (\S+) SIP/2.0.*?^Proxy-Authorization: ([^\r\n]*)", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def provider() -> Iterator[Registrar]:
    """A registrar that knows ``ann``."""
    started, over = Event(), Event()
    registrar = Registrar(digest=DigestServer("home", b"k" * 16, offered=("MD5",)))

    async def serve() -> None:
        await registrar.start()
        started.set()
        await asyncio.to_thread(over.wait)
        await registrar.stop()

    thread = Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(10)
    yield registrar
    over.set()
    thread.join()


@pytest.fixture(scope="module")
def registered(provider: Registrar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with an account at the provider; whoever calls from its address comes by the account."""
    account = {
        "SIP__ACCOUNTS__HOME__REGISTRAR": f"127.0.0.1:{provider.port}",
        "SIP__ACCOUNTS__HOME__USER": "ann",
        "SIP__ACCOUNTS__HOME__SECRET": "sesame",
        "SIP__ACCOUNTS__HOME__TRANSPORT": "udp",
        "SIP__ACCOUNTS__HOME__MAILBOX": "main",
        "CALLS__SILENCE_S": "120",
    }
    with machine(tmp_path_factory.mktemp("challenged") / "data", **account) as made:
        greeting = io.BytesIO()
        write_wav(greeting, speech(0.4), 8000)
        with made.client() as client:
            client.put("/mailboxes/main/greeting", content=greeting.getvalue()).raise_for_status()
        # A line reads its directory before it takes calls, so a second start needs no waiting for the first reload.
        made.stop()
        before = len(provider.taken)
        made.start()
        wait_until(lambda: len(provider.taken) > before, "the registration")
        yield made
        assert "Traceback" not in made.log(), made.log()


@pytest.fixture(scope="module")
def calls(registered: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sipp]]:
    """Both calls, at the same time."""
    folder = tmp_path_factory.mktemp("sipp")
    slow = ("-timeout", f"{REFRESH_S}s", "-recv_timeout", str(REFRESH_S * 1000))
    started = {
        name: start_sipp(registered, folder, name, caller=name, options=slow)
        for name in ("challenged_bye", "challenged_refresh")
    }
    yield started
    for sipp in started.values():
        if sipp.process.poll() is None:
            sipp.process.kill()
            sipp.process.wait()


def logins(messages: Path) -> list[str]:
    """Return the methods of those requests whose Proxy-Authorization is right; fail for one that is not."""
    right = []
    for method, uri, value in _LOGIN.findall(messages.read_text(errors="replace")):
        ((_, given),) = parse_elements(value)
        expected = digest_response(
            algorithm="MD5", user="ann", realm="home", password="sesame", method=method, uri=uri,
            nonce=given["nonce"], qop=given["qop"], nonce_count=given["nc"], cnonce=given["cnonce"],
        )  # fmt: skip
        assert given["response"] == expected, value
        right.append(method)
    return right


def test_a_bye_that_is_challenged_hangs_up_all_the_same(registered: Machine, calls: dict[str, Sipp]) -> None:
    """The scenario itself checks the login."""
    calls["challenged_bye"].finish(REFRESH_S)


def test_a_refresh_that_is_challenged_keeps_the_call(registered: Machine, calls: dict[str, Sipp]) -> None:
    sipp = calls["challenged_refresh"]
    sipp.finish(REFRESH_S + 10)
    assert logins(sipp.folder / f"{sipp.name}.messages") == ["UPDATE", "BYE"]
