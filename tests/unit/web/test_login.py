"""Signing in by link and password, signing out, and the limits on trying."""

from __future__ import annotations

import re

import pytest

from aftertone.web import gate, passwords
from aftertone.web.login import GRANT_MS, LoginState
from aftertone.web.throttle import PER_SOURCE
from tests.unit.web.visitor import Visitor
from tests.unit.web.world import HERE, PASSWORD, REAL_HASHER, World


def sign_in(client: Visitor, password: str = PASSWORD) -> int:
    """Send the password form; returns the status."""
    return client.post("/login", data={"password": password}, headers=HERE).status_code


def test_before_a_password_is_set_the_page_tells_where_the_link_is(stranger: Visitor) -> None:
    assert stranger.get("/").headers["location"] == "/login"
    page = stranger.get("/login")
    assert page.status_code == 200
    assert "one-time link" in page.text
    assert "<form" not in page.text
    assert sign_in(stranger) == 200


def test_looking_at_a_link_uses_nothing_and_pressing_its_button_works_once(world: World) -> None:
    app = world.app()
    token = world.login_link()
    with world.client(app) as preview, world.client(app) as owner, world.client(app) as thief:
        for _ in range(3):
            assert "<form" in preview.get(f"/login/{token}").text
            preview.request("HEAD", f"/login/{token}")
        answer = owner.post(f"/login/{token}", headers=HERE)
        assert (answer.status_code, answer.headers["location"]) == (303, "/password")
        assert owner.get("/").headers["location"] == "/password"
        again = thief.post(f"/login/{token}", headers=HERE)
        assert again.status_code == 401
        assert "set-cookie" not in again.headers


def test_a_link_that_is_too_old_or_wrong_does_not_work(world: World, stranger: Visitor) -> None:
    token = world.login_link()
    world.now_ms += 3_600_001
    assert stranger.post(f"/login/{token}", headers=HERE).status_code == 401
    assert stranger.post(f"/login/{'x' * 40}", headers=HERE).status_code == 401
    assert stranger.post("/login/short", headers=HERE).status_code == 422
    assert stranger.get("/login/..%2f..%2fetc").status_code in (404, 422)


def test_links_are_not_to_be_guessed(world: World, stranger: Visitor) -> None:
    statuses = [stranger.post(f"/login/{'x' * 40}", headers=HERE).status_code for _ in range(PER_SOURCE.burst + 1)]
    assert statuses == [401] * PER_SOURCE.burst + [429]


@pytest.mark.parametrize(("password", "again"), [("short", "short"), ("x" * 9, "x" * 9), (PASSWORD, PASSWORD + "x")])
def test_a_password_must_be_long_and_typed_twice(world: World, stranger: Visitor, password: str, again: str) -> None:
    stranger.post(f"/login/{world.login_link()}", headers=HERE)
    csrf = stranger.get("/api/v1/session").json()["csrf_token"]
    answer = stranger.post("/password", data={"csrf_token": csrf, "password": password, "again": again}, headers=HERE)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert world.catalog.password_hash() is None


def test_the_password_is_stored_as_argon2id_and_opens_the_page(world: World, browser: Visitor) -> None:
    stored = world.catalog.password_hash()
    assert stored is not None
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored
    assert browser.get("/").status_code == 200
    with world.client() as other:
        assert sign_in(other, "not the password") == 401
        assert sign_in(other) == 303
        assert other.get("/").status_code == 200
        assert other.get("/login").headers["location"] == "/"


def test_real_hashing_takes_the_cost_that_the_specification_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", REAL_HASHER)
    stored = passwords.hash_password("Gru\u0308n und schön")
    assert "$m=65536,t=3,p=4$" in stored
    assert passwords.password_matches(stored, "Grün und schön")
    assert not passwords.password_matches(stored, "Grun und schon")
    assert not passwords.password_matches("nonsense", "Grün und schön")
    assert not passwords.password_matches(stored, "x" * 2000)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(world: World, stranger: Visitor) -> None:
    cookie = stranger.post(f"/login/{world.login_link()}", headers=HERE).headers["set-cookie"]
    assert cookie.startswith("aftertone=")
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=2592000"} <= {part.strip() for part in cookie.split(";")}
    world.secure = True
    with world.client() as client:
        cookie = client.post(f"/login/{world.login_link()}", headers={"Origin": "https://localhost"}).headers[
            "set-cookie"
        ]
        assert cookie.startswith("__Host-aftertone=")
        assert "Secure" in cookie
        assert "Domain" not in cookie
        assert client.get("/api/v1/session").json()["via"] == "session"


def test_a_login_never_takes_a_token_that_was_there_before(world: World, browser: Visitor) -> None:
    name = gate.cookie_name(world.services())
    before = browser.cookies[name]
    assert sign_in(browser) == 303
    assert browser.cookies[name] != before
    with world.client() as other:
        other.cookies.set(name, before)
        assert other.get("/api/v1/session").status_code == 401
        other.cookies.clear()
        other.cookies.set(name, "planted-by-an-attacker-0123456789")
        assert sign_in(other) == 303
        given = {cookie.value for cookie in other.cookies.jar if cookie.domain}
        assert len(given) == 1
        assert "planted-by-an-attacker-0123456789" not in given


def test_a_session_slides_and_ends(world: World, browser: Visitor) -> None:
    day_ms = 24 * 3600 * 1000
    assert "set-cookie" not in browser.get("/").headers
    for _ in range(3):
        world.now_ms += 20 * day_ms
        assert "set-cookie" in browser.get("/").headers
    world.now_ms += 31 * day_ms
    assert browser.get("/").headers["location"] == "/login"
    assert browser.get("/api/v1/session").status_code == 401


def test_signing_out_ends_the_session_on_the_machine(world: World, browser: Visitor) -> None:
    name = gate.cookie_name(world.services())
    token = browser.cookies[name]
    csrf = browser.headers["X-CSRF-Token"]
    assert browser.post("/logout", data={"csrf_token": csrf}).headers["location"] == "/login"
    assert name not in browser.cookies
    with world.client() as other:
        other.cookies.set(name, token)
        assert other.get("/api/v1/session").status_code == 401


def test_guessing_is_slowed_down_and_signed_in_browsers_do_not_notice(world: World, browser: Visitor) -> None:
    app = world.app()
    with world.client(app, host="198.51.100.1") as guesser, world.client(app, host="198.51.100.2") as owner:
        statuses = [sign_in(guesser, f"guess number {number}") for number in range(PER_SOURCE.burst + 1)]
        assert statuses == [401] * PER_SOURCE.burst + [429]
        refused = guesser.post("/login", data={"password": PASSWORD}, headers=HERE)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) == PER_SOURCE.refill_ms // 1000
        assert sign_in(owner) == 303
        world.now_ms += PER_SOURCE.refill_ms
        assert sign_in(guesser) == 303
    assert browser.get("/").status_code == 200


def test_many_sources_together_are_slowed_down_too(world: World, browser: Visitor) -> None:
    app = world.app()
    last = 0
    for number in range(12):
        with world.client(app, host=f"198.51.100.{number}") as guesser:
            for _ in range(PER_SOURCE.burst):
                last = sign_in(guesser, "wrong password")
    assert last == 429
    assert browser.get("/").status_code == 200


def change(browser: Visitor, current: str, new: str) -> int:
    """Send the form that changes the password; returns the status."""
    match = re.search(r'name="csrf_token" value="([0-9a-f]+)"', browser.get("/password").text)
    assert match is not None
    form = {"csrf_token": match[1], "current": current, "password": new, "again": new}
    return browser.post("/password", data=form).status_code


def test_changing_the_password_needs_the_old_one_and_signs_all_others_out(world: World, browser: Visitor) -> None:
    app = world.app()
    with world.client(app) as other, world.client(app) as third:
        assert sign_in(other) == sign_in(third) == 303
        other.headers.update(HERE)
        assert change(other, "not the old one", "a new long password") == 401
        assert browser.get("/").status_code == 200
        assert change(other, PASSWORD, "a new long password") == 303
        assert other.get("/").status_code == 200
        assert third.get("/").status_code == 303
        assert sign_in(third) == 401
        assert sign_in(third, "a new long password") == 303


def test_whoever_comes_by_a_link_may_set_a_forgotten_password_for_a_while(world: World, browser: Visitor) -> None:
    app = world.app()
    with world.client(app) as owner:
        owner.headers.update(HERE)
        owner.post(f"/login/{world.login_link()}")
        assert "Current password" not in owner.get("/password").text
        world.now_ms += GRANT_MS
        assert "Current password" in owner.get("/password").text
        assert change(owner, "", "a new long password") == 401
        owner.post(f"/login/{world.login_link()}")
        assert change(owner, "", "a new long password") == 303


def test_grants_are_bounded() -> None:
    state = LoginState()
    for number in range(200):
        state.grant(str(number), 0)
    assert state.has_grant("199", 1)
    assert not state.has_grant("0", 1)
