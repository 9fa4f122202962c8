"""The waiting room: what is answered while the storage is away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from aftertone.web.waiting import SENTENCE, create_waiting_room
from tests.unit.web.visitor import Visitor

LINE: dict[str, object] = {
    "taking_calls": False,
    "alarms": [{"code": "storage", "text": "0 MB are free in /var/lib/aftertone"}],
}


class Roles:
    """What line and delivery say."""

    line: Mapping[str, object] | None = LINE


@pytest.fixture
def roles() -> Roles:
    return Roles()


@pytest.fixture
def ask(roles: Roles) -> Iterator[Visitor]:
    room: Any = create_waiting_room(lambda: roles.line, lambda: None, ("desk.example",))
    with Visitor(room, "http://localhost", "192.0.2.7") as made:
        yield made


def test_probes_are_answered_as_always(ask: Visitor, roles: Roles) -> None:
    answer = ask.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "storage\n")
    assert ask.head("/healthz").status_code == 503
    roles.line = {"taking_calls": True}
    answer = ask.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n"), "the line takes calls, whatever the desk does"
    roles.line = None
    assert ask.get("/healthz").text == "line_down\n"
    assert ask.get("/livez").text == "ok\n"


@pytest.mark.parametrize("path", ["/", "/login", "/metrics", "/api/v1/messages", "/static/desk.css"])
def test_everything_else_says_where_to_look_and_nothing_more(ask: Visitor, path: str) -> None:
    for answer in (ask.get(path), ask.post(path, content=b"x")):
        assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, SENTENCE, "10")
        assert "content-security-policy" in answer.headers


def test_the_border_holds_here_too(ask: Visitor) -> None:
    def status(host: str) -> int:
        return ask.get("/livez", headers={"Host": host}).status_code

    assert [status(host) for host in ("evil.example", "desk.example", "127.0.0.1:8080")] == [421, 200, 200]
