"""The mailboxes of the API and their greetings."""

from __future__ import annotations

import hashlib

import pytest

from aftertone.errors import StorageError
from aftertone.web.border import GREETING_LIMIT_BYTES
from tests.unit.web.visitor import Visitor
from tests.unit.web.world import World, make_flac

GREETING = "/api/v1/mailboxes/main/greeting"


def test_mailboxes_are_listed_with_their_counts(world: World, api: Visitor) -> None:
    world.deliver()
    listed = api.get("/api/v1/mailboxes").json()["mailboxes"]
    assert [(one["name"], one["rings"], one["greeting"]) for one in listed] == [("main", None, None)]
    assert listed[0]["counts"] == {"new": 1, "heard": 0, "hangups": 0, "deleted": 0}
    assert api.get("/api/v1/mailboxes/MAIN").json()["name"] == "main"


def test_a_new_mailbox_is_published_before_it_is_acknowledged(world: World, api: Visitor) -> None:
    answer = api.post("/api/v1/mailboxes", json={"name": "Anna", "rings": 0})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/v1/mailboxes/Anna"
    assert (answer.json()["name"], answer.json()["rings"]) == ("Anna", 0)
    assert world.published == 1
    again = api.post("/api/v1/mailboxes", json={"name": "anna"})
    assert again.status_code == 409


def test_a_change_of_a_mailbox_is_published_and_leaves_the_rest(world: World, api: Visitor) -> None:
    api.post("/api/v1/mailboxes", json={"name": "anna", "rings": 2, "numbers": ["200"]})
    changed = api.patch("/api/v1/mailboxes/ANNA", json={"numbers": ["+1 202 555 0143"]})
    assert (changed.status_code, changed.json()["numbers"], changed.json()["rings"]) == (200, ["+1 202 555 0143"], 2)
    assert world.published == 2
    assert api.patch("/api/v1/mailboxes/anna", json={"rings": None}).json()["rings"] is None
    assert api.patch("/api/v1/mailboxes/anna", json={"name": "x"}).status_code == 422
    assert api.patch("/api/v1/mailboxes/main", json={"numbers": ["2025550143", "+12025550143"]}).status_code == 422
    assert api.patch("/api/v1/mailboxes/nobody", json={"numbers": []}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        '{"name": ""}',
        '{"name": "a b"}',
        '{"name": "../x"}',
        '{"name": "x", "rings": 99}',
        '{"name": "x", "more": 1}',
        "{",
        "[]",
        '{"name": "' + "x" * 65 + '"}',
    ],
)
def test_a_mailbox_that_cannot_be(world: World, api: Visitor, body: str) -> None:
    answer = api.post("/api/v1/mailboxes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"]
    assert world.published == 0


def test_when_publishing_fails_nothing_is_acknowledged(world: World, api: Visitor) -> None:
    world.publish_error = StorageError("the snapshot could not be written")
    for answer in (
        api.post("/api/v1/mailboxes", json={"name": "anna"}),
        api.put(GREETING, content=make_flac()),
        api.delete(GREETING),
    ):
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


def test_a_greeting_is_converted_stored_published_and_played(world: World, api: Visitor) -> None:
    flac = make_flac(rate_hz=16000)
    answer = api.put(GREETING, content=flac)
    assert answer.status_code == 200
    sha256 = hashlib.sha256(api.get(GREETING).content).hexdigest()
    assert answer.json()["greeting"] == {"sha256": sha256, "audio": GREETING}
    assert world.published == 1
    row = world.catalog.mailbox("main")
    assert (row.greeting_blob, row.greeting_sha256) == (f"greetings/{sha256}.flac", sha256)
    assert api.get(GREETING, headers={"Range": "bytes=0-3"}).content == b"fLaC"
    assert api.head(GREETING).headers["etag"] == f'"{sha256}"'


def test_a_greeting_can_be_taken_away_again_and_again(world: World, api: Visitor) -> None:
    api.put(GREETING, content=make_flac())
    for _ in range(2):
        answer = api.delete(GREETING)
        assert (answer.status_code, answer.json()["greeting"]) == (200, None)
    missing = api.get(GREETING)
    assert missing.status_code == 404
    assert "default greeting" in missing.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"hello", b"RIFF\x00\x00\x00\x00WAVE", bytes(5000)])
def test_what_is_no_audio_changes_nothing(world: World, api: Visitor, body: bytes) -> None:
    answer = api.put(GREETING, content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert world.catalog.mailbox("main").greeting_blob is None
    assert world.published == 0


def test_an_upload_beyond_the_limit_is_refused(api: Visitor) -> None:
    answer = api.put(GREETING, content=bytes(GREETING_LIMIT_BYTES + 1))
    assert answer.status_code == 413


def test_a_mailbox_that_is_not_there(world: World, api: Visitor) -> None:
    for answer in (
        api.get("/api/v1/mailboxes/nobody"),
        api.get("/api/v1/mailboxes/nobody/greeting"),
        api.put("/api/v1/mailboxes/nobody/greeting", content=make_flac()),
        api.delete("/api/v1/mailboxes/nobody/greeting"),
    ):
        assert answer.status_code == 404
    assert api.get("/api/v1/mailboxes/..%2f..%2fetc").status_code in (404, 422)
    assert api.get("/api/v1/mailboxes/a%20b").status_code == 422
    assert list(world.blobs.list("greetings/")) == []


def test_the_uploads_of_strangers_are_not_read(world: World, stranger: Visitor) -> None:
    assert stranger.put(GREETING, content=make_flac()).status_code == 401
    assert world.published == 0
