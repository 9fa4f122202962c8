"""The desk in a real Chromium: from the one-time link to a message that arrives while one looks."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from aftertone.model import Clock, EndReason, Kind, State
from aftertone.web.present import CLOCK_NOT_SET
from tests.e2e.conftest import Desk
from tests.support.captures import read_pcap
from tests.unit.web.test_signalling import kept
from tests.unit.web.world import PASSWORD, make_flac

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((part) => part.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .filter((part) => !part.closest(".tabs, .who"))
  .map((part) => part.outerHTML.slice(0, 80))"""


def sign_in(page: Page, desk: Desk) -> None:
    """Use a link and set the password, as an owner does on the first day."""
    page.goto(desk.link())
    page.get_by_role("button", name="Sign in with this link").click()
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("The same once more").fill(PASSWORD)
    page.get_by_role("button", name="Save the password").click()
    expect(page).to_have_url(f"{desk.url}/")


def row(page: Page, name: str) -> Any:
    """Return the row of a caller."""
    return page.locator(".row").filter(has_text=name)


def test_from_the_link_to_a_heard_message(desk: Desk, visit: Any) -> None:
    message = desk.world.deliver(name="Grandmother", audio=make_flac(1.0), duration_ms=1000)
    page = visit()
    page.goto(desk.url)
    expect(page.get_by_text("one-time link")).to_be_visible()
    sign_in(page, desk)
    expect(page).to_have_title("(1) Messages · Aftertone")
    first = row(page, "Grandmother")
    expect(first.get_by_text("New", exact=True)).to_be_visible()
    first.locator("summary").click()
    expect(first.locator(".facts")).to_contain_text("Sunday")
    assert desk.world.catalog.message(message.id).state is State.NEW
    first.get_by_role("button", name="Play message from Grandmother").click()
    expect(first.get_by_text("Heard", exact=True)).to_be_visible()
    expect(page).to_have_title("Messages · Aftertone")
    assert desk.world.catalog.message(message.id).state is State.HEARD
    expect(first.locator(".elapsed")).to_have_text("0:01")
    first.get_by_role("button", name="Mark as new").click()
    expect(first.get_by_text("New", exact=True)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(first).to_be_visible()


def test_what_the_telephones_said_is_shown_on_demand(desk: Desk, visit: Any) -> None:
    message = kept(desk.world, "Subject: <b>tea</b>")
    desk.world.deliver(name="The workshop", minutes_ago=60)
    page = visit()
    sign_in(page, desk)
    first, second = row(page, "Grandmother"), row(page, "The workshop")
    first.locator("summary").click()
    first.get_by_role("link", name="Details of the call").click()
    rungs = first.locator(".ladder li")
    expect(rungs).to_have_count(2)
    expect(rungs.nth(1)).to_contain_text("200 OK (INVITE)")
    rungs.nth(0).locator("summary").click()
    expect(rungs.nth(0).locator("pre")).to_contain_text("Subject: <b>tea</b>")
    with page.expect_download() as download:
        first.get_by_role("link", name="Save as a capture file").click()
    assert len(read_pcap(download.value.path().read_bytes())) == 2
    first.get_by_role("link", name="Details of the call").click()
    expect(rungs.nth(0)).to_be_hidden()
    second.locator("summary").click()
    second.get_by_role("link", name="Details of the call").click()
    expect(second.locator(".signalling")).to_contain_text("was not kept")
    page.goto(f"{desk.url}/signalling/{message.id}")
    expect(page.locator(".ladder li")).to_have_count(2)


def test_hearing_the_beginning_marks_nothing(desk: Desk, visit: Any) -> None:
    message = desk.world.deliver(name="Grandmother", audio=make_flac(30), duration_ms=30_000)
    page = visit()
    sign_in(page, desk)
    first = row(page, "Grandmother")
    first.get_by_role("button", name="Play").click()
    expect(first.get_by_role("button", name="Pause")).to_be_visible()
    first.get_by_role("slider").fill("29900")
    expect(first.get_by_role("button", name="Play")).to_be_visible()
    expect(first.locator(".elapsed")).to_have_text("0:30")
    assert desk.world.catalog.message(message.id).state is State.NEW


def test_delete_undo_and_restore(desk: Desk, visit: Any) -> None:
    message = desk.world.deliver(name="Grandmother")
    desk.world.deliver(name="The workshop", minutes_ago=60)
    page = visit()
    sign_in(page, desk)
    first = row(page, "Grandmother")
    first.locator("summary").click()
    first.get_by_role("button", name="Delete").click()
    expect(first).to_have_count(0)
    expect(row(page, "The workshop").locator("summary")).to_be_focused()
    assert desk.world.catalog.message(message.id).state is State.DELETED
    page.get_by_role("button", name="Undo").click()
    expect(first.locator("summary")).to_be_focused()
    assert desk.world.catalog.message(message.id).state is State.NEW
    first.locator("summary").click()
    first.get_by_role("button", name="Delete").click()
    expect(first).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(first).to_be_visible()
    first.locator("summary").click()
    first.get_by_role("button", name="Delete").click()
    page.get_by_role("link", name="Bin").click()
    first.locator("summary").click()
    first.get_by_role("button", name="Restore").click()
    expect(page.get_by_role("heading", name="The bin is empty")).to_be_visible()
    assert desk.world.catalog.message(message.id).state is State.NEW


def test_a_message_appears_by_itself_while_another_one_plays(desk: Desk, visit: Any) -> None:
    desk.world.deliver(name="Grandmother", audio=make_flac(30), duration_ms=30_000)
    page = visit()
    sign_in(page, desk)
    expect(page.locator("#live .word")).to_have_text("Live")
    first = row(page, "Grandmother")
    first.get_by_role("button", name="Play").click()
    expect(first.get_by_role("button", name="Pause")).to_be_visible()
    page.evaluate("window.untouched = true")
    desk.world.deliver(name="The workshop", minutes_ago=0)
    started = time.monotonic()
    expect(row(page, "The workshop")).to_be_visible()
    assert time.monotonic() - started < 1
    expect(page.locator("#say")).to_contain_text("The workshop")
    expect(page.locator(".row").first).to_contain_text("The workshop")
    expect(page).to_have_title("(2) Messages · Aftertone")
    expect(first.get_by_role("button", name="Pause")).to_be_visible()
    assert page.evaluate("window.untouched")


def test_the_banner_comes_and_goes_by_itself(desk: Desk, visit: Any) -> None:
    line = desk.world.line
    page = visit()
    sign_in(page, desk)
    expect(page.get_by_text("aftertone call sip:main@192.168.1.20")).to_be_visible()
    desk.world.line = None
    expect(page.get_by_text("Not taking calls.")).to_be_visible()
    desk.world.line = line
    expect(page.get_by_text("Not taking calls.")).to_have_count(0)


def test_a_hostile_name_is_only_a_name(desk: Desk, visit: Any) -> None:
    page = visit()
    sign_in(page, desk)
    expect(page.locator("#live .word")).to_have_text("Live")
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    desk.world.deliver(name=attack)
    expect(page.locator(".row .who")).to_have_text(attack)
    page.reload()
    expect(page.locator(".row .who")).to_have_text(attack)
    expect(page.locator(".row img, .row script")).to_have_count(0)
    assert "owned" not in page.title()


def test_everything_can_be_done_with_the_keyboard(desk: Desk, visit: Any) -> None:
    message = desk.world.deliver(name="Grandmother", audio=make_flac(30), duration_ms=30_000)
    page = visit(reduced_motion="reduce")
    sign_in(page, desk)
    expect(page.locator("#live .word")).to_have_text("Live")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the messages")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#main$"))
    expect(page.locator("#main")).to_be_focused()
    # Chromium moves the focus to the fragment once more in its next frame: a key pressed before that would be undone.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.keyboard.press("Tab")
    first = row(page, "Grandmother")
    expect(first.get_by_role("button", name="Play")).to_be_focused()
    page.keyboard.press("Space")
    expect(first.get_by_role("button", name="Pause")).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    expect(first.locator("summary")).to_be_focused()
    page.keyboard.press("Tab")
    expect(first.get_by_role("slider")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(first.get_by_role("slider")).to_have_attribute("aria-valuetext", re.compile(r"0:0[5-9] of 0:30"))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(first.get_by_role("button", name="Mark as new")).to_be_visible()
    assert desk.world.catalog.message(message.id).state is State.HEARD


def test_the_page_works_without_a_script(desk: Desk, visit: Any) -> None:
    desk.world.deliver(name="Grandmother")
    page = visit(java_script_enabled=False)
    sign_in(page, desk)
    first = row(page, "Grandmother")
    first.locator("summary").click()
    expect(first.locator("audio")).to_be_visible()
    first.get_by_role("button", name="Mark as heard").click()
    expect(first.get_by_text("Heard", exact=True)).to_be_visible()


def test_a_time_that_is_a_guess_is_said_to_be_one(desk: Desk, visit: Any) -> None:
    desk.world.now_ms = time.time_ns() // 1_000_000
    desk.world.deliver(name="Grandmother", minutes_ago=3)
    desk.world.deliver(name="The workshop", minutes_ago=2, cut_off=True, clock=Clock.UNSURE)
    page = visit()
    sign_in(page, desk)
    unsure, sure = row(page, "The workshop"), row(page, "Grandmother")
    expect(unsure.locator(".when")).to_have_text(re.compile(r"^about \d+ \w+, \d\d:\d\d$"))
    expect(sure.locator(".when")).to_have_text("3 min ago")
    unsure.locator("summary").click()
    expect(unsure.locator(".facts")).to_contain_text(CLOCK_NOT_SET)
    expect(unsure.locator(".exact")).to_have_text(re.compile("^About "))
    sure.locator("summary").click()
    expect(sure.locator(".facts")).not_to_contain_text("clock")
    assert [found.locator(".when").get_attribute("title") or "" for found in (unsure, sure)] == [
        f"{page.locator('.exact').first.inner_text().rstrip('.')}: the clock of the machine was not set",
        page.locator(".exact").last.inner_text().rstrip("."),
    ]
    for width in (320, 390, 1180):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(TOO_WIDE) == []


def test_nothing_is_cut_off_at_any_width(desk: Desk, visit: Any) -> None:
    desk.world.catalog.add_mailbox("a-mailbox-with-a-rather-long-name-that-somebody-chose-for-it")
    desk.world.deliver(name="Maximiliane " * 9, number="+120255501437890", cut_off=True)
    page = visit()
    sign_in(page, desk)
    page.locator("summary").first.click()
    for width in (320, 390, 768, 1180):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(TOO_WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_number_is_readable_on_a_phone_also_where_there_is_one_mailbox(desk: Desk, visit: Any) -> None:
    desk.world.deliver(name="", number="+4930555012345")
    page = visit(width=360, height=700)
    sign_in(page, desk)
    assert page.locator(".who").evaluate_all("all => all.every(one => one.scrollWidth <= one.clientWidth)")


def test_pictures(desk: Desk, visit: Any, tmp_path: Path) -> None:
    """The pages in both themes and widths; with AFTERTONE_PICTURES=1 the pictures are those of the documents."""
    pictures = PICTURES if os.environ.get("AFTERTONE_PICTURES") == "1" else tmp_path
    world = desk.world
    world.now_ms = time.time_ns() // 1_000_000
    sizes = {"phone": (390, 844), "desktop": (1180, 820)}
    pictures.mkdir(parents=True, exist_ok=True)
    first = visit()
    first.goto(desk.url)
    first.screenshot(path=pictures / "desk-welcome-desktop-light.png")
    sign_in(first, desk)
    state = first.context.storage_state()
    for size, (width, height) in sizes.items():
        page = visit(width=width, height=height, storage_state=state)
        page.goto(desk.url)
        expect(page.locator("#live .word")).to_have_text("Live")
        page.screenshot(path=pictures / f"desk-empty-{size}-light.png")
    _fill(desk)
    for size, (width, height) in sizes.items():
        for theme in ("light", "dark"):
            page = visit(width=width, height=height, dark=theme == "dark", storage_state=state)
            page.goto(desk.url)
            expect(page.locator("#live .word")).to_have_text("Live")
            row(page, "Grandmother").get_by_role("button", name="Play").click()
            row(page, "Grandmother").get_by_role("slider").fill("17000")
            row(page, "Grandmother").get_by_role("button", name="Pause").click()
            page.mouse.move(0, 0)
            page.screenshot(path=pictures / f"desk-{size}-{theme}.png")
    world.line = None
    page = visit(width=390, height=844, dark=True, storage_state=state)
    page.goto(desk.url)
    row(page, "The workshop").locator("summary").click()
    row(page, "The workshop").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=pictures / "desk-alarm-phone-dark.png")
    assert len(list(pictures.glob("desk-*.png"))) == 8


def _fill(desk: Desk) -> None:
    world = desk.world
    world.catalog.add_mailbox("workshop")
    world.deliver(name="Grandmother", number="+1 202 555 0143", minutes_ago=4, audio=make_flac(42), duration_ms=42_000)
    world.deliver(name="", number="+1 202 555 0152", minutes_ago=95, duration_ms=8_000)
    world.deliver(name="The workshop", number="+1 202 555 0177", minutes_ago=60 * 20, duration_ms=63_000, cut_off=True)
    world.deliver(
        name="Reception",
        number="+1 202 555 0119",
        mailbox="workshop",
        minutes_ago=60 * 26,
        duration_ms=127_000,
        state=State.HEARD,
    )
    world.deliver(name="", number="anonymous", minutes_ago=60 * 50, duration_ms=3_000, state=State.HEARD)
    world.deliver(
        name="Next door",
        number="+1 202 555 0164",
        minutes_ago=60 * 75,
        duration_ms=214_000,
        state=State.HEARD,
        lost_packets=3,
    )
    world.deliver(
        name="Surgery",
        number="+1 202 555 0108",
        minutes_ago=60 * 24 * 12,
        duration_ms=35_000,
        state=State.HEARD,
        end_reason=EndReason.KEY,
    )
    world.deliver(kind=Kind.HANGUP, minutes_ago=300, duration_ms=900)
