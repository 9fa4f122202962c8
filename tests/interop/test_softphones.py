"""Real softphones through a real proxy: baresip and linphone register at Kamailio, and call, light their lamps and give up through it.

Kamailio stands before the machine as the page about it says (docs/connect/kamailio.md): it asks everybody to log in, adds Record-Route,
forwards what nobody answers, and passes the lamps' SUBSCRIBE and NOTIFY on.
"""

from __future__ import annotations

import errno
import io
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from aftertone.audio.flac import write_wav
from aftertone.audio.samples import Samples
from tests.support.baresip import Baresip, loud_span_ms, softphone
from tests.support.callers import Party, wish
from tests.support.certificates import Authority
from tests.support.kamailio import REALM
from tests.support.linphone import Linphone, linphone
from tests.support.machine import Machine, free_port, speech, wait_until
from tests.support.pbx import HOST, PASSWORD, Pbx, pbx
from tests.support.peers import missing
from tests.support.phone import SmallPhone

SETTINGS: Final = """\
[[sip.trunks]]
name = "pbx"
addresses = ["{host}"]

[[sip.accounts]]
name = "six"
registrar = "[::1]:{port}"
user = "six"
secret = "{secret}"
transport = "udp"
retry_s = 1

[[sip.lamps]]
mailbox = "201"
uri = "sip:201@{host}:{port}"
"""
PAUSE_S: Final = 1.5
"""Silence before the words: longer than greeting and beep, as people wait for the beep."""
WORDS_S: Final = 1.5
LINPHONES: Final = {"udp": "", "tcp": "", "tls": "AES_CM_128_HMAC_SHA1_80"}
"""Transports of linphone, and the encryption of its sound."""
LINPHONE_TOLERANCE_MS: Final = 60
SHOWN_WITHIN_S: Final = 5.0
RINGS_S: Final = 2.0
BOXES: Final = {"200": 0, "201": 0, "202": 0, "203": 0, "204": 0, "patient": 20}
"""Mailboxes besides ``main``, and how often they ring."""


@dataclass(frozen=True)
class House:
    """A machine and the PBX before it."""

    machine: Machine
    tls_port: int
    pbx: Pbx

    def one(self, caller: str) -> dict[str, Any]:
        """Return the one recording of this caller."""
        found = wait_until(
            lambda: [m for m in self.machine.messages() if m["caller"]["number"] == caller], f"what {caller} left"
        )
        assert len(found) == 1
        return found[0]

    def line(self) -> dict[str, float]:
        """Return the line's metrics, as its status file has them."""
        found: dict[str, float] = json.loads((self.machine.data / "run" / "line.json").read_text())["metrics"]
        return found

    def sound_packets(self) -> float:
        """Return how many packets of sound have come; what is no RTP is not counted."""
        line = self.line()
        return line["rtp_received_packets_total"] - line["rtp_dropped_malformed_packets_total"]

    def is_idle(self) -> bool:
        """Tell whether nobody calls."""
        line = self.line()
        return line["live_calls"] == line["ringing_calls"] == 0

    def leave(self, mailbox: str, caller: str) -> str:
        """Leave a message without the proxy; return its id."""
        with Party([wish(f"sip:{mailbox}@127.0.0.1:{self.machine.sip_port}", caller, 1.5)]) as party:
            party.outcomes()
        return str(self.one(caller)["id"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """What every test expects besides its own is asked when all are over: nothing was raised inside, the books balance."""
    for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, HOST)):
        with socket.socket(family) as probe:
            if probe.connect_ex((host, 9)) == errno.EADDRNOTAVAIL:
                missing(f"this machine has no address {host}")
    folder = tmp_path_factory.mktemp("house")
    certificate = Authority(folder).issue("pbx", [HOST, "::1"])
    sip_port, tls_port = free_port(), free_port()
    with pbx(certificate, (sip_port, tls_port)) as proxy:
        (folder / "aftertone.toml").write_text(SETTINGS.format(host=HOST, port=proxy.port, secret=PASSWORD))
        settings = {
            "CONFIG": str(folder / "aftertone.toml"),
            "SIP__HOST": "127.0.0.1,::1",
            "SIP__TLS": "true",
            "SIP__TLS_PORT": str(tls_port),
        }
        made = Machine(folder / "data", {f"AFTERTONE_{name}": value for name, value in settings.items()}, sip_port)
        try:
            made.start()
            greeting = io.BytesIO()
            write_wav(greeting, speech(0.3), 8000)
            with made.client() as client:
                for name, rings in BOXES.items():
                    client.post("/mailboxes", json={"name": name, "rings": rings}).raise_for_status()
                for name in ("main", *BOXES):
                    client.put(f"/mailboxes/{name}/greeting", content=greeting.getvalue()).raise_for_status()
            # A line reads its directory before it takes calls, so a second start needs no waiting for the first reload.
            made.stop()
            made.start()
            line = made.role_pid("line")
            wait_until(lambda: proxy.said("REGISTERED six"), f"the account to register\n{made.log()}{proxy.output()}")
            yield House(made, tls_port, proxy)
            assert made.role_pid("line") == line, f"the line was started again:\n{made.log()}"
            assert "Traceback" not in made.log(), made.log()
            made.books()
        finally:
            if made.process is not None:
                made.kill()


def said(words_s: float = WORDS_S) -> Samples:
    return np.concatenate([np.zeros(round(PAUSE_S * 8000), np.int16), speech(words_s), np.zeros(2000, np.int16)])


# Calls by every way


@dataclass(frozen=True)
class Way:
    """How a softphone comes to the machine."""

    transport: str
    host: str
    """Where the phone is."""
    mode: str = ""
    """baresip's word for encryption; none is sound in the clear."""
    proxied: bool = False

    @property
    def caller(self) -> str:
        """The phone's name."""
        family = "six" if ":" in self.host else "four"
        return "-".join(filter(None, ("proxied" if self.proxied else "direct", self.transport, family, self.mode)))


WAYS: Final = (
    Way("udp", "127.0.0.1", "", proxied=True),
    Way("tcp", "127.0.0.1", "srtp-mand", proxied=True),
    Way("tls", "127.0.0.1", "srtp-mand", proxied=True),
    Way("udp", "::1", "srtp", proxied=True),
    Way("tcp", "::1", "", proxied=True),
    Way("tls", "::1", "", proxied=True),
    Way("udp", "127.0.0.1", "srtp-mand"),
    Way("tcp", "127.0.0.1"),
    Way("tls", "127.0.0.1", "srtp"),
    Way("udp", "::1"),
    Way("tls", "::1", "srtp-mand"),
)
"""Each transport in both families, with and without encryption, through the proxy and without it; not each with each."""


@pytest.fixture(scope="module")
def phones(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Way, Baresip]]:
    """One softphone for each way, all calling at the same time, until their last word."""
    folder = tmp_path_factory.mktemp("phones")
    with ExitStack() as stack:
        made = {way: stack.enter_context(_phone(house, folder, way)) for way in WAYS}
        for way, phone in made.items():
            phone.tell(f"/dial {_callee(house, way)}")
        for phone in made.values():
            phone.finish()
        yield made


def _phone(house: House, folder: Path, way: Way) -> Any:
    more = f"mediaenc={way.mode}" if way.mode else ""
    server = house.pbx.where(way.transport, "[::1]" if ":" in way.host else HOST) if way.proxied else ""
    return softphone(
        folder / way.caller, said(), user=way.caller, server=server, secret=PASSWORD, host=way.host, more=more
    )


def _callee(house: House, way: Way) -> str:
    host = "[::1]" if ":" in way.host else "127.0.0.1"
    if not way.proxied:
        port = house.tls_port if way.transport == "tls" else house.machine.sip_port
        return f"sip:200@{host}:{port};transport={way.transport}"
    # By IPv4 the machine is the proxy's trunk, by IPv6 it has registered there.
    callee, host = ("six", host) if ":" in way.host else ("200", HOST)
    # baresip adds the transport of its account.
    return f"sip:{callee}@{house.pbx.where(way.transport, host)}".partition(";")[0]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.caller)
def test_a_call_leaves_one_message_word_for_word(house: House, phones: dict[Way, Baresip], way: Way) -> None:
    """Sample by sample, but for the rounding of baresip's encoder, which is not the ITU's."""
    message = house.one(way.caller)
    assert (message["kind"], message["end_reason"], message["lost_packets"]) == ("message", "caller_hung_up", 0)
    assert message["srtp"] == ("AES_CM_128_HMAC_SHA1_80" if way.mode else "")
    origin = (message["origin"]["line_kind"], message["origin"]["line"], message["mailbox"])
    if ":" in way.host:
        # Both come from ::1, where the account's server is; only the proxy calls the number that registered.
        assert origin == ("account", "six", "main" if way.proxied else "200")
    else:
        assert origin == (("trunk", "pbx", "200") if way.proxied else ("stranger", "", "200"))
    kept = house.machine.audio(message["id"])[0].astype(np.int32)
    whole = phones[way].said()[0].astype(np.int32)
    expected = whole[-len(kept) :]
    assert len(whole) > len(kept) == len(expected) > WORDS_S * 8000
    assert int(np.count_nonzero(np.abs(kept - expected) > 16 + np.abs(expected) // 16)) == 0


@pytest.mark.parametrize("way", [way for way in WAYS if way.proxied], ids=lambda way: way.caller)
def test_the_proxy_stays_in_the_call(house: House, phones: dict[Way, Baresip], way: Way) -> None:
    assert house.pbx.said("REGISTERED", f" {way.caller} ", f"over {way.transport}"), house.pbx.output()
    for method in ("ACK", "BYE"):
        assert house.pbx.said("INSIDE", f"{method} of {way.caller}"), house.pbx.output()
    output = phones[way].output()
    assert "407 Proxy" in output and "Record-Route:" in output


@pytest.mark.parametrize("way", [way for way in WAYS if not way.proxied], ids=lambda way: way.caller)
def test_without_the_proxy_nobody_is_between(house: House, phones: dict[Way, Baresip], way: Way) -> None:
    assert "Record-Route:" not in phones[way].output()
    assert not house.pbx.said(way.caller)


@pytest.fixture(scope="module")
def linphones(house: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One linphone for each transport: all call at the same time, play their file to its end, and hang up."""
    folder = tmp_path_factory.mktemp("linphones")
    with (folder / "said.wav").open("wb") as file:
        write_wav(file, said(), 8000)
    packets, before = len(LINPHONES) * (len(said()) // 160), house.sound_packets()
    with ExitStack() as stack:
        phones = {}
        for transport, srtp in LINPHONES.items():
            server, user = house.pbx.where(transport, HOST), f"linphone-{transport}"
            one = linphone(folder / user, user=user, secret=PASSWORD, realm=REALM, server=server, srtp=bool(srtp))
            phones[server] = stack.enter_context(one)
        for server, phone in phones.items():
            phone.call(f"sip:200@{server}")
        for phone in phones.values():
            phone.play(folder / "said.wav")
        wait_until(lambda: house.sound_packets() >= before + packets, "all of each file", 20)
        for phone in phones.values():
            phone.tell("terminate")
        wait_until(house.is_idle, "the machine to be idle")


@pytest.mark.usefixtures("linphones")
@pytest.mark.parametrize("transport", LINPHONES)
def test_linphone_registers_and_leaves_a_message(house: House, transport: str) -> None:
    """It plays its file when it is told to, so all of the file is in the message; before and after it sends nothing."""
    user = f"linphone-{transport}"
    assert house.pbx.said("REGISTERED", f" {user} ", f"over {transport}")
    assert house.pbx.said("INSIDE", f"BYE of {user}")
    message = house.one(user)
    assert (message["kind"], message["mailbox"], message["lost_packets"]) == ("message", "200", 0)
    assert (message["codec"], message["end_reason"]) == ("opus", "caller_hung_up")
    assert message["srtp"] == LINPHONES[transport]
    assert message["origin"]["line"] == "pbx"
    assert WORDS_S * 1000 < message["audio_ms"] <= len(said()) // 8 + LINPHONE_TOLERANCE_MS
    kept_begin, kept_end = loud_span_ms(*house.machine.audio(message["id"]))
    begin, end = loud_span_ms(said(), 8000)
    assert abs((kept_end - kept_begin) - (end - begin)) <= LINPHONE_TOLERANCE_MS


# Lamps


def shows(phone: Baresip | Linphone, waiting: str, counts: str) -> None:
    wait_until(
        lambda: phone.lamps()[-1:] == [(waiting, counts)], f"{waiting} {counts}; {phone.lamps()}", SHOWN_WITHIN_S
    )


@pytest.mark.parametrize(("transport", "user"), [("udp", "202"), ("tls", "204")])
def test_a_phone_subscribes_through_the_proxy(house: House, tmp_path: Path, transport: str, user: str) -> None:
    """Kamailio asks for the login, and sends the subscription on as its trunk; the page's own lines do it.

    A phone behind TLS is told over the connection that it made.
    """
    server = house.pbx.where(transport, HOST)
    more = f'outbound="sip:{server}";mwi=yes'
    with softphone(tmp_path / "phone", said(), user=user, server=server, secret=PASSWORD, more=more) as phone:
        phone.wait_for("Messages-Waiting: no", 10)
        message_id = house.leave(user, f"for-the-lamp-{user}")
        shows(phone, "yes", "1/0")
        house.machine.run("message", "heard", message_id)
        shows(phone, "no", "0/1")
        assert house.pbx.said("RELAYED", f"SUBSCRIBE of {user}")
        assert house.pbx.said("INSIDE", f"NOTIFY of {user}"), "the proxy stays in a subscription"
        assert f"Via: SIP/2.0/{transport.upper()}" in phone.output()


def test_a_phone_may_not_subscribe_to_the_lamp_of_another(house: House) -> None:
    """Aftertone believes its trunk, so it is the proxy that must not let this through."""
    with SmallPhone(house.machine, "203", PASSWORD, server=(HOST, house.pbx.port)) as phone:
        assert phone.subscribe("202").status == 403
        assert phone.subscribe("203").status == 200
        phone.shows(0)


def test_a_phone_is_told_through_the_proxy_without_asking(house: House, tmp_path: Path) -> None:
    """By ``[[sip.lamps]]``. linphone has no lamp to look at (5.1 knows no message waiting), but it answers and logs what it is told."""
    server = house.pbx.where("udp", HOST)
    with linphone(tmp_path / "phone", user="201", secret=PASSWORD, realm=REALM, server=server) as phone:
        message_id = house.leave("201", "for-the-lamp-201")
        shows(phone, "yes", "1/0")
        house.machine.run("message", "heard", message_id)
        shows(phone, "no", "0/1")
        assert house.pbx.said("RELAYED", "NOTIFY of 201")


# What goes otherwise than a call should


def test_a_caller_gives_up_while_it_rings(house: House, tmp_path: Path) -> None:
    server = house.pbx.where("udp", HOST)
    with softphone(tmp_path / "phone", said(), user="hasty", server=server, secret=PASSWORD) as phone:
        phone.tell(f"/dial sip:patient@{HOST}:{house.pbx.port}")
        phone.wait_for("180 Ringing", 10)
        wait_until(lambda: house.line()["ringing_calls"] == 1, "the machine to ring")
        rung_s = time.monotonic() + RINGS_S
        wait_until(lambda: time.monotonic() > rung_s, "two seconds of ringing")
        assert house.line()["ringing_calls"] == 1
        phone.tell("/hangup")
        phone.wait_for("SIP/2.0 487", 10)
        wait_until(house.is_idle, "the machine to be idle")
        phone.quit()
    assert house.pbx.said("CANCELLED by hasty")
    assert not [message for message in house.machine.messages() if message["caller"]["number"] == "hasty"]


def test_a_call_that_comes_twice_is_one_call(house: House, tmp_path: Path) -> None:
    """The proxy sends it down two branches that both lead to us: a merged request. Spec: RFC 3261 section 8.2.2.2."""
    server = house.pbx.where("udp", HOST)
    with softphone(tmp_path / "phone", said(), user="forking", server=server, secret=PASSWORD) as phone:
        phone.tell(f"/dial sip:forked@{HOST}:{house.pbx.port}")
        phone.finish()
    assert (house.one("forking")["kind"], house.one("forking")["mailbox"]) == ("message", "main")
    answers = [line.split()[-1] for line in house.pbx.said("ANSWERED INVITE of forking")]
    assert sorted(status for status in answers if status != "100") == ["200", "482"]
    wait_until(house.is_idle, "the machine to be idle")


@pytest.mark.parametrize(("called", "why"), [("200", "no-answer"), ("203", "user-busy")])
def test_what_a_phone_does_not_take_is_forwarded(house: House, tmp_path: Path, called: str, why: str) -> None:
    """By the page's own failure route: the mailbox is the called phone's, wherever that was, and the reason is told."""
    server = house.pbx.where("udp", HOST)
    with (
        softphone(tmp_path / "phone", said(), user=called, server=server, secret=PASSWORD) as phone,
        softphone(tmp_path / "caller", said(), user=f"caller-{why}", server=server, secret=PASSWORD) as caller,
    ):
        caller.tell(f"/dial sip:{called}@{HOST}:{house.pbx.port}")
        phone.wait_for("Incoming call", 10)
        if why == "user-busy":
            phone.tell("/hangup")
        caller.finish()
        assert ("CANCEL sip:" in phone.output()) is (why == "no-answer")
        phone.quit()
    message = house.one(f"caller-{why}")
    assert (message["mailbox"], message["forwarded"], message["origin"]["line"]) == (called, True, "pbx")
    assert (message["origin"]["diverted_by"], message["origin"]["divert_reason"]) == (called, why)
