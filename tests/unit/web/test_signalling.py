"""What was said on the wire, by the API and on a page."""

from __future__ import annotations

from aftertone.model import Message
from aftertone.sip.trace import Recorder, pack_trace
from aftertone.store.blobs import SIGNALLING_SUFFIX, message_key
from tests.support.captures import read_pcap
from tests.unit.sip.kit import FLOW, MS, PEER, US, request
from tests.unit.web.visitor import Visitor
from tests.unit.web.world import World, unknown_id

OK = b"SIP/2.0 200 OK\r\nCall-ID: call-1@peer\r\nCSeq: 1 INVITE\r\n\r\n"
ATTACK = "<script>alert(1)</script>"


def kept(world: World, extra: str = "") -> Message:
    """Return a message with its signalling."""
    message = world.deliver(name="Grandmother")
    recorder = Recorder()
    recorder.received(request(extra=extra), FLOW, 0)
    recorder.keep("call-1@peer")
    recorder.sent(OK, FLOW, 1500 * MS)
    trace = recorder.take("call-1@peer")
    assert trace is not None
    document = pack_trace(trace, now_ns=1500 * MS, unix_ms=1_700_000_001_500)
    world.blobs.put(message_key(message.id, SIGNALLING_SUFFIX), document)
    return message


def test_the_api_tells_it_in_order_and_without_secrets(world: World, api: Visitor) -> None:
    message = kept(world, "Authorization: Digest hunter2")
    found = api.get(f"/api/v1/messages/{message.id}/signalling").json()
    assert (found["call_id"], found["left_out"]) == ("call-1@peer", 0)
    first, second = found["messages"]
    text = first.pop("text")
    assert first == {
        "at": "2023-11-14T22:13:20.000Z",
        "offset_ms": 0,
        "sent": False,
        "transport": "UDP",
        "local": "192.0.2.1:5060",
        "remote": "192.0.2.7:5062",
        "label": "INVITE sip:box@192.0.2.1",
    }
    assert text.startswith("INVITE sip:box@192.0.2.1 SIP/2.0\nVia: ")
    assert "hunter2" not in text
    assert (second["label"], second["offset_ms"], second["sent"]) == ("200 OK (INVITE)", 1500, True)


def test_a_capture_file(world: World, api: Visitor) -> None:
    message = kept(world)
    answer = api.get(f"/api/v1/messages/{message.id}/signalling?format=pcap")
    assert answer.headers["content-type"] == "application/vnd.tcpdump.pcap"
    assert answer.headers["content-disposition"].endswith('_Grandmother.pcap"')
    received, sent = read_pcap(answer.content)
    assert (received.source, received.target, received.data) == (PEER, US, request())
    assert (sent.source, sent.target, sent.data) == (US, PEER, OK)
    assert sent.unix_us - received.unix_us == 1_500_000


def test_a_message_without_it_and_no_message(world: World, api: Visitor, browser: Visitor) -> None:
    message = world.deliver()
    assert api.get(f"/api/v1/messages/{message.id}/signalling").status_code == 404
    assert api.get(f"/api/v1/messages/{unknown_id()}/signalling").status_code == 404
    assert "Nothing was kept of this call" in browser.get(f"/signalling/{message.id}").text
    assert browser.get(f"/signalling/{unknown_id()}").status_code == 404


def test_what_cannot_be_read_is_said(world: World, api: Visitor) -> None:
    message = world.deliver()
    world.blobs.put(message_key(message.id, SIGNALLING_SUFFIX), b"spoilt")
    answer = api.get(f"/api/v1/messages/{message.id}/signalling")
    assert answer.status_code == 500
    assert answer.json()["type"].endswith("damaged")


def test_strangers_see_nothing(world: World, stranger: Visitor) -> None:
    message = kept(world)
    assert stranger.get(f"/api/v1/messages/{message.id}/signalling").status_code == 401
    assert "INVITE" not in stranger.get(f"/signalling/{message.id}").text


def test_the_page_is_a_ladder_and_shows_words_of_peers_as_words(world: World, browser: Visitor) -> None:
    message = kept(world, f"Subject: {ATTACK}")
    text = browser.get(f"/signalling/{message.id}").text
    assert text.index("INVITE sip:box@192.0.2.1") < text.index("200 OK (INVITE)")
    assert "1500 ms" in text
    assert ATTACK not in text
    assert "&lt;script&gt;" in text
    assert f'href="/signalling/{message.id}"' in browser.get("/").text
