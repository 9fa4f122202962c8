"""The messages of the API."""

from __future__ import annotations

import io
import wave

import pytest

from aftertone.audio.flac import read_audio
from aftertone.model import Clock, Kind, State
from tests.unit.web.visitor import Visitor
from tests.unit.web.world import World, make_flac, unknown_id


def ids(answer: dict[str, list[dict[str, str]]]) -> list[str]:
    return [message["id"] for message in answer["messages"]]


def test_one_message_has_every_documented_field(world: World, api: Visitor) -> None:
    message = world.deliver(name="Grandmother", cut_off=True, lost_packets=2, notes=("clock not trusted",))
    assert api.get(f"/api/v1/messages/{message.id}").json() == {
        "id": str(message.id),
        "mailbox": "main",
        "state": "new",
        "kind": "message",
        "caller": {"number": "+12025550143", "name": "Grandmother"},
        "started_at": "2026-11-22T16:55:00.000Z",
        "clock": "trusted",
        "duration_ms": 500,
        "audio_ms": 500,
        "cut_off": True,
        "codec": "PCMU",
        "sample_rate_hz": 8000,
        "lost_packets": 2,
        "end_reason": "cut_off",
        "forwarded": False,
        "mailbox_reason": "",
        "origin": {
            "line_kind": "",
            "line": "",
            "caller_header": "",
            "verstat": "",
            "diverted_by": "",
            "divert_reason": "",
        },
        "holds": [],
        "end_detail": "",
        "srtp": "",
        "heard_at": None,
        "notes": ["clock not trusted"],
        "jitter_ms": None,
        "peer_lost": None,
        "round_trip_ms": None,
    }


def test_the_list_is_newest_first_and_pages_without_gap_or_repetition(world: World, api: Visitor) -> None:
    delivered = [str(world.deliver(minutes_ago=number, audio=b"").id) for number in range(7)]
    seen: list[str] = []
    before: dict[str, str] = {}
    for _ in range(4):
        answer = api.get("/api/v1/messages", params={"limit": "2", **before}).json()
        seen += ids(answer)
        if answer["next"] is None:
            break
        before = {"before": answer["next"]}
    assert seen == delivered


def test_a_time_that_is_a_guess_is_marked(world: World, api: Visitor) -> None:
    message = world.deliver(clock=Clock.UNSURE)
    assert api.get(f"/api/v1/messages/{message.id}").json()["clock"] == "unsure"


def test_the_list_is_filtered(world: World, api: Visitor) -> None:
    world.catalog.add_mailbox("Anna")
    new = world.deliver(minutes_ago=1)
    heard = world.deliver(minutes_ago=2, state=State.HEARD)
    deleted = world.deliver(minutes_ago=3, state=State.DELETED)
    hangup = world.deliver(minutes_ago=4, kind=Kind.HANGUP, audio=b"")
    other = world.deliver(minutes_ago=5, mailbox="first")

    def listed(query: str) -> list[str]:
        return ids(api.get(f"/api/v1/messages?{query}").json())

    assert listed("") == [str(m.id) for m in (new, heard, hangup, other)]
    assert listed("kind=hangup") == [str(hangup.id)]
    assert listed("state=deleted") == [str(deleted.id)]
    assert listed("state=new&state=deleted&kind=message") == [str(m.id) for m in (new, deleted, other)]
    assert listed("mailbox=FIRST") == [str(other.id)]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 422),
        ("limit=501", 422),
        ("limit=x", 422),
        ("state=loud", 422),
        ("kind=fax", 422),
        ("before=17", 422),
        ("mailbox=nobody", 404),
        ("mailbox=..%2F..%2Fetc", 422),
        (f"before={unknown_id()}", 404),
    ],
)
def test_a_question_that_makes_no_sense_is_a_problem(api: Visitor, query: str, status: int) -> None:
    answer = api.get(f"/api/v1/messages?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["instance"] == "/api/v1/messages"
    assert problem["title"]
    assert problem["remedy"]


def test_actions_may_be_repeated(world: World, api: Visitor) -> None:
    message = world.deliver()
    address = f"/api/v1/messages/{message.id}"
    for method, path, state in (
        ("POST", "/heard", "heard"),
        ("DELETE", "", "deleted"),
        ("POST", "/restore", "heard"),
        ("POST", "/unheard", "new"),
        ("DELETE", "", "deleted"),
        ("POST", "/restore", "new"),
    ):
        first = api.request(method, address + path)
        written = world.catalog.last_change()
        again = api.request(method, address + path)
        assert first.status_code == again.status_code == 200
        assert first.json() == again.json()
        assert first.json()["state"] == state
        assert world.catalog.last_change() == written


def test_what_a_state_does_not_allow_is_a_conflict(world: World, api: Visitor) -> None:
    message = world.deliver(state=State.DELETED)
    answer = api.post(f"/api/v1/messages/{message.id}/heard")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:aftertone:problem:wrong-state"


def test_a_message_that_is_not_there(api: Visitor) -> None:
    for path in (f"/{unknown_id()}", f"/{unknown_id()}/audio", "/..%2f..%2fetc%2fpasswd/audio", "/%2e%2e/audio"):
        assert api.get(f"/api/v1/messages{path}").status_code in (404, 422)


def test_audio_is_sent_whole_with_a_strong_tag(world: World, api: Visitor) -> None:
    flac = make_flac()
    message = world.deliver(name="Grandmother", audio=flac)
    answer = api.get(f"/api/v1/messages/{message.id}/audio")
    assert answer.content == flac
    assert answer.headers["content-type"] == "audio/flac"
    assert answer.headers["etag"] == f'"{message.blob_sha256}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(flac))
    assert answer.headers["content-disposition"] == 'inline; filename="2026-11-22_16-55-00_Grandmother.flac"'
    saved = api.get(f"/api/v1/messages/{message.id}/audio?download=1")
    assert saved.headers["content-disposition"].startswith("attachment;")
    assert world.catalog.message(message.id).state is State.NEW


def test_a_hostile_name_stays_out_of_the_file_name(world: World, api: Visitor) -> None:
    message = world.deliver(name='../../x"; evil=\r\nSet-Cookie: a=b\u202e')
    disposition = api.get(f"/api/v1/messages/{message.id}/audio").headers["content-disposition"]
    assert disposition == 'inline; filename="2026-11-22_16-55-00_x-evil-Set-Cookie-a-b.flac"'


def test_ranges_of_audio(world: World, api: Visitor) -> None:
    flac = make_flac()
    address = f"/api/v1/messages/{world.deliver(audio=flac).id}/audio"
    etag = api.head(address).headers["etag"]
    part = api.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, flac[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(flac)}"
    assert api.get(address, headers={"Range": "bytes=-7"}).content == flac[-7:]
    matching = api.get(address, headers={"Range": "bytes=0-0", "If-Range": etag})
    assert (matching.status_code, matching.content) == (206, flac[:1])
    for headers in (
        {"Range": "bytes=0-0", "If-Range": '"another"'},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "bytes=" + ",".join(["0-"] * 2000)},
        {"Range": "lines=1-2"},
    ):
        answer = api.get(address, headers=headers)
        assert (answer.status_code, answer.content) == (200, flac)
    beyond = api.get(address, headers={"Range": f"bytes={len(flac)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(flac)}")


def test_head_and_conditional_requests_for_audio(world: World, api: Visitor) -> None:
    flac = make_flac()
    address = f"/api/v1/messages/{world.deliver(audio=flac).id}/audio"
    head = api.head(address, headers={"Range": "bytes=0-3"})
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(flac)))
    unchanged = api.get(address, headers={"If-None-Match": head.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
def test_wav_export_is_sample_exact_and_as_long_as_announced(world: World, api: Visitor, rate_hz: int) -> None:
    flac = make_flac(seconds=1.3, rate_hz=rate_hz)
    address = f"/api/v1/messages/{world.deliver(audio=flac).id}/audio?format=wav"
    answer = api.get(address)
    assert answer.headers["content-type"] == "audio/wav"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert api.head(address).headers["content-length"] == answer.headers["content-length"]
    assert api.get(address, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    with wave.open(io.BytesIO(answer.content)) as exported:
        assert exported.getframerate() == rate_hz
        assert exported.readframes(10**7) == read_audio(flac)[0].tobytes()


def test_a_hangup_without_audio_says_so(world: World, api: Visitor) -> None:
    message = world.deliver(kind=Kind.HANGUP, audio=b"")
    answer = api.get(f"/api/v1/messages/{message.id}/audio")
    assert answer.status_code == 404
    assert "no audio" in answer.json()["detail"]


def test_audio_that_is_missing_or_damaged_is_told_as_damage(world: World, api: Visitor) -> None:
    message = world.deliver(audio=b"this is not FLAC, and it is longer than a header would be")
    assert api.get(f"/api/v1/messages/{message.id}/audio?format=wav").status_code == 500
    world.blobs.delete(message.blob)
    for query in ("", "?format=wav"):
        answer = api.get(f"/api/v1/messages/{message.id}/audio{query}")
        assert answer.status_code == 500
        assert answer.json()["type"] == "urn:aftertone:problem:damaged"
        assert "verify" in answer.json()["detail"]
