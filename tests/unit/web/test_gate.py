"""Who may do what, and requests that another site forged."""

from __future__ import annotations

import pytest

from aftertone.model import State
from tests.unit.web.visitor import Visitor
from tests.unit.web.world import BEARER, HERE, World, unknown_id

PROTECTED = [
    ("GET", "/api/v1/messages"),
    ("GET", f"/api/v1/messages/{unknown_id()}"),
    ("GET", f"/api/v1/messages/{unknown_id()}/audio"),
    ("GET", f"/api/v1/messages/{unknown_id()}/signalling"),
    ("HEAD", f"/api/v1/messages/{unknown_id()}/audio"),
    ("POST", f"/api/v1/messages/{unknown_id()}/heard"),
    ("POST", f"/api/v1/messages/{unknown_id()}/unheard"),
    ("POST", f"/api/v1/messages/{unknown_id()}/restore"),
    ("DELETE", f"/api/v1/messages/{unknown_id()}"),
    ("GET", "/api/v1/mailboxes"),
    ("POST", "/api/v1/mailboxes"),
    ("GET", "/api/v1/mailboxes/main"),
    ("PATCH", "/api/v1/mailboxes/main"),
    ("GET", "/api/v1/mailboxes/main/greeting"),
    ("HEAD", "/api/v1/mailboxes/main/greeting"),
    ("PUT", "/api/v1/mailboxes/main/greeting"),
    ("DELETE", "/api/v1/mailboxes/main/greeting"),
    ("GET", "/api/v1/health"),
    ("GET", "/api/v1/session"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/metrics"),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize("credential", [None, "Bearer wrong", "Bearer ", "Basic YTpi", "Bearer \u00e9"])
def test_strangers_get_nothing(stranger: Visitor, credential: str | None) -> None:
    headers = [] if credential is None else [(b"Authorization", credential.encode("latin-1"))]
    for method, path in PROTECTED:
        body = {"name": "x"} if method == "POST" else None
        answer = stranger.request(method, path, headers=headers, json=body)
        assert answer.status_code == 401, (method, path)
        assert "bearer" in answer.headers["www-authenticate"].lower()


def test_every_path_of_the_api_is_in_that_list(stranger: Visitor) -> None:
    described = stranger.get("/api/v1/openapi.json").json()["paths"]
    tested = {
        (method, path.replace(str(unknown_id()), "{message_id}").replace("/main", "/{name}"))
        for method, path in PROTECTED
    }
    for path, methods in described.items():
        for method in methods:
            assert (method.upper(), path) in tested


@pytest.mark.parametrize("path", ["/", "/hangups", "/bin", "/password"])
def test_pages_send_strangers_to_the_login(stranger: Visitor, path: str) -> None:
    answer = stranger.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


FORGERIES = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    {},
]


@pytest.mark.parametrize("forged", FORGERIES)
def test_a_forged_request_does_nothing_even_with_the_right_token(
    world: World, browser: Visitor, forged: dict[str, str]
) -> None:
    message = world.deliver()
    csrf = browser.headers["X-CSRF-Token"]
    del browser.headers["Origin"]
    for method, path in (
        ("DELETE", f"/api/v1/messages/{message.id}"),
        ("POST", f"/act/{message.id}/delete"),
        ("POST", "/logout"),
        ("POST", "/password"),
    ):
        data = {"csrf_token": csrf, "password": "x" * 20, "again": "x" * 20} if method == "POST" else None
        answer = browser.request(method, path, headers=forged, data=data)
        assert answer.status_code == 403, path
    assert world.catalog.message(message.id).state is State.NEW
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize("token", ["", "0" * 64, "\u00e9"])
def test_a_request_without_the_page_s_token_does_nothing(world: World, browser: Visitor, token: str) -> None:
    message = world.deliver()
    del browser.headers["X-CSRF-Token"]
    headers = [(b"X-CSRF-Token", token.encode("latin-1"))]
    answer = browser.request("DELETE", f"/api/v1/messages/{message.id}", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:aftertone:problem:csrf-token"
    assert browser.post(f"/act/{message.id}/delete", data={"csrf_token": token}).status_code == 403
    assert world.catalog.message(message.id).state is State.NEW


@pytest.mark.parametrize("proof", [HERE, {"Sec-Fetch-Site": "same-origin"}])
def test_our_own_page_may(world: World, browser: Visitor, proof: dict[str, str]) -> None:
    message = world.deliver()
    del browser.headers["Origin"]
    answer = browser.post(f"/api/v1/messages/{message.id}/heard", headers=proof)
    assert (answer.status_code, answer.json()["state"]) == (200, "heard")


@pytest.mark.parametrize("path", ["/login", "/login/" + "x" * 40])
def test_a_login_cannot_be_forged_either(stranger: Visitor, path: str) -> None:
    for forged in FORGERIES:
        assert stranger.post(path, data={"password": "x"}, headers=forged).status_code == 403


def test_a_program_with_the_token_needs_no_other_proof(world: World, stranger: Visitor) -> None:
    message = world.deliver()
    answer = stranger.delete(f"/api/v1/messages/{message.id}", headers=BEARER)
    assert (answer.status_code, answer.json()["state"]) == (200, "deleted")


def test_a_wrong_bearer_token_is_not_saved_by_a_cookie(browser: Visitor) -> None:
    assert browser.get("/api/v1/session").json()["via"] == "session"
    assert browser.get("/api/v1/session", headers={"Authorization": "Bearer wrong"}).status_code == 401
