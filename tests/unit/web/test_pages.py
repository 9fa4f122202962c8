"""The pages: what they list, what they escape, what works without a script."""

from __future__ import annotations

import re

import pytest

from aftertone.model import Kind, State
from aftertone.web.pages import PAGE_ROWS
from tests.unit.web.visitor import Visitor
from tests.unit.web.world import World, unknown_id

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><svg onload=alert(1)>",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)//",
]


def test_messages_hangups_and_bin_are_apart(world: World, browser: Visitor) -> None:
    world.deliver(name="Grandmother")
    world.deliver(name="The workshop", state=State.HEARD)
    world.deliver(name="Silent one", kind=Kind.HANGUP, audio=b"")
    world.deliver(name="Gone one", state=State.DELETED)
    shown = {path: browser.get(path).text for path in ("/", "/hangups", "/bin")}
    for name, place in (("Grandmother", "/"), ("The workshop", "/"), ("Silent one", "/hangups"), ("Gone one", "/bin")):
        assert [path for path, text in shown.items() if name in text] == [place]
    assert "<title>(1) Messages" in shown["/"]


def test_new_and_heard_are_told_in_words(world: World, browser: Visitor) -> None:
    world.deliver(name="Grandmother")
    world.deliver(name="The workshop", state=State.HEARD, cut_off=True, minutes_ago=9)
    rows = browser.get("/").text.split("<li ")[1:]
    assert ["New</span>" in row for row in rows] == [True, False]
    assert ["Heard</span>" in row for row in rows] == [False, True]
    assert ["Cut off</span>" in row for row in rows] == [False, True]


def test_the_foot_says_whether_each_account_is_registered(world: World, browser: Visitor) -> None:
    assert world.line is not None
    world.line = {
        **world.line,
        "accounts": [{"name": "home", "state": "registered"}, {"name": "work", "state": "failing"}, {"name": "<b>"}],
    }
    foot = browser.get("/").text.partition('<footer class="foot" id="foot">')[2]
    assert "home: registered" in foot
    assert "work: not registered" in foot
    assert "<b>" not in foot


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_caller_chooses_is_never_markup(world: World, browser: Visitor, attack: str) -> None:
    world.deliver(name=attack, number=attack, notes=(attack,))
    world.deliver(name="", number=attack, kind=Kind.HANGUP)
    world.line = {"taking_calls": True, "sip_address": attack, "alarms": [{"code": "x", "text": attack}]}
    for path in ("/", "/hangups", "/bin"):
        text = browser.get(path).text
        assert "<script>" not in text
        assert "<img" not in text
        assert "<svg onload" not in text
        assert "onmouseover='" not in text
        assert "49" not in re.sub(r"[0-9a-f]{12,}|[0-9a-f-]{36}|[+]12025550143", "", text) or "7*7" in text
        for tag in re.findall(r"<[a-z][^<>]*>", text):
            assert not re.search(r"\son[a-z]+=", re.sub(r'"[^"]*"', '""', tag)), tag


def test_pages_have_no_inline_script_or_style_and_nothing_from_elsewhere(world: World, browser: Visitor) -> None:
    world.deliver()
    world.catalog.add_mailbox("first")
    for path in ("/", "/hangups", "/bin", "/password", "/nowhere"):
        text = browser.get(path, headers={"Accept": "text/html"}).text
        assert "<style" not in text
        assert " style=" not in text
        assert "javascript:" not in text
        for script in re.findall(r"<script[^>]*>[^<]*</script>", text):
            assert re.fullmatch(r'<script type="module" src="/static/desk\.js\?v=[0-9a-f]{12}"></script>', script)
        for address in re.findall(r'(?:src|href|action)="([^"]*)"', text):
            assert address.startswith(("/", "#")), address
            assert not address.startswith("//")


def test_an_empty_inbox_teaches_how_to_call(world: World, browser: Visitor) -> None:
    text = browser.get("/").text
    assert "sip:main@192.168.1.20" in text
    assert "aftertone call sip:main@192.168.1.20 --play" in text
    world.line = None
    text = browser.get("/").text
    assert "aftertone call" not in text
    assert "Not taking calls" in text


def test_alarms_stand_above_the_list(world: World, browser: Visitor) -> None:
    assert 'class="banner' not in browser.get("/").text
    world.line = {"taking_calls": True, "alarms": [{"code": "disk_low", "text": "The disk is nearly full."}]}
    text = browser.get("/").text
    assert "The disk is nearly full." in text
    assert text.index("nearly full") < text.index('id="list"')


def test_mailboxes_are_shown_when_there_are_several(world: World, browser: Visitor) -> None:
    world.deliver(name="Grandmother")
    assert 'aria-label="Mailboxes"' not in browser.get("/").text
    world.catalog.add_mailbox("Workshop")
    world.deliver(name="The workshop", mailbox="Workshop")
    everything = browser.get("/").text
    assert 'aria-label="Mailboxes"' in everything
    only = browser.get("/?mailbox=workshop").text
    assert "The workshop" in only
    assert "Grandmother" not in only
    assert browser.get("/?mailbox=nobody").status_code == 404


def test_a_long_list_comes_in_pages(world: World, browser: Visitor) -> None:
    for number in range(PAGE_ROWS + 3):
        world.deliver(name=f"Caller number {number}", minutes_ago=number, audio=b"")
    first = browser.get("/").text
    assert first.count("<li ") == PAGE_ROWS
    older = re.search(r'href="(/\?before=[^"]+)">Older', first)
    assert older is not None
    second = browser.get(older[1]).text
    assert second.count("<li ") == 3
    assert "Back to the newest" in second
    assert browser.get(f"/?before={unknown_id()}").status_code == 404


def test_buttons_work_without_a_script(world: World, browser: Visitor) -> None:
    message = world.deliver()
    csrf = browser.headers["X-CSRF-Token"]
    steps = (
        ("heard", State.HEARD),
        ("unheard", State.NEW),
        ("delete", State.DELETED),
        ("restore", State.NEW),
    )
    for action, state in steps:
        answer = browser.post(f"/act/{message.id}/{action}", data={"csrf_token": csrf, "view": "messages"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert world.catalog.message(message.id).state is state
    assert browser.post(f"/act/{message.id}/explode", data={"csrf_token": csrf}).status_code == 422
    assert (
        browser.post(f"/act/{message.id}/restore", data={"csrf_token": csrf, "view": "bin"}).headers["location"]
        == "/bin"
    )


def test_errors_for_people_are_pages(stranger: Visitor) -> None:
    answer = stranger.get("/nowhere", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "<h1>Not Found</h1>" in answer.text
    assert stranger.get("/nowhere").headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/"])
def test_static_files_stay_in_their_folder(stranger: Visitor, path: str) -> None:
    assert stranger.get(path).status_code == 404


def test_the_first_load_is_small(world: World, browser: Visitor) -> None:
    import gzip

    for number in range(PAGE_ROWS):
        world.deliver(name=f"Caller number {number}", minutes_ago=number, audio=b"")
    page = browser.get("/").text
    parts = [page, *(browser.get(address).text for address in re.findall(r'"(/static/[^"]+)"', page))]
    assert len(parts) == 4
    assert sum(len(gzip.compress(part.encode())) for part in parts) <= 150_000
