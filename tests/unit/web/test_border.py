"""The border: host names, body sizes, protecting headers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aftertone.web.border import BODY_LIMIT_BYTES, GREETING_LIMIT_BYTES, host_is_ours
from tests.unit.web.visitor import Visitor
from tests.unit.web.world import World


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "127.0.0.1:8080",
        "192.168.1.20",
        "[::1]:8080",
        "[fe80::1]",
        "desk.home.example",
        "Desk.Home.Example:443",
    ],
)
def test_hosts_that_are_this_machine(host: str) -> None:
    assert host_is_ours(host, ("desk.home.example",))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "desk.home.example@evil.example",
        "localhost:8080:1",
        "localhost/",
        "[::1",
        "[::zz]",
        "0x7f.1",
        "localhost:999999",
    ],
)
def test_hosts_that_are_not(host: str) -> None:
    assert not host_is_ours(host, ("desk.home.example",))


def test_a_rebound_name_gets_nothing(stranger: Visitor) -> None:
    for path in ("/", "/healthz", "/metrics", "/api/v1/messages", "/static/desk.css", "/nowhere"):
        answer = stranger.get(path, headers={"Host": "evil.example"})
        assert answer.status_code == 421
        assert answer.headers["content-type"] == "application/problem+json"
        assert "web.names" in answer.json()["remedy"]


def test_every_answer_carries_the_protecting_headers(stranger: Visitor) -> None:
    for path in ("/login", "/healthz", "/api/v1/messages", "/static/desk.css", "/nowhere"):
        headers = stranger.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_only_versioned_static_files_are_kept(stranger: Visitor) -> None:
    assert "immutable" in stranger.get("/static/desk.css?v=abc").headers["cache-control"]
    assert "immutable" not in stranger.get("/static/desk.css").headers.get("cache-control", "")
    assert stranger.get("/login").headers["cache-control"] == "no-store"


def test_a_declared_size_beyond_the_limit_is_refused_unread(api: Visitor) -> None:
    answer = api.post("/api/v1/mailboxes", content=b"x" * (BODY_LIMIT_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:aftertone:problem:too-large"


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "9" * 5000, "1,2"])
def test_a_length_that_is_no_number_is_refused(api: Visitor, length: str) -> None:
    answer = api.post("/api/v1/mailboxes", content=b"{}", headers={"Content-Length": length})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/api/v1/mailboxes", BODY_LIMIT_BYTES),
        ("POST", "/login", BODY_LIMIT_BYTES),
        ("PUT", "/api/v1/mailboxes/main/greeting", GREETING_LIMIT_BYTES),
    ],
)
def test_an_undeclared_size_is_counted_as_it_arrives(api: Visitor, method: str, path: str, limit: int) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(limit // 65536 + 2):
            sent += 65536
            yield bytes(65536)

    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://localhost"}
    answer = api.request(method, path, content=pieces(), headers=headers)
    assert answer.status_code == 413
    assert sent >= limit


def test_an_unexpected_fault_is_a_problem_without_a_trace(world: World) -> None:
    app = world.app()

    def fail() -> None:
        raise RuntimeError("secret detail")

    app.add_api_route("/broken", fail)
    with world.client(app, raise_errors=False) as client:
        answer = client.get("/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
