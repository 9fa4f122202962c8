"""A real call to the real program, seen in a real browser that was open before."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.support.callers import Party, wish
from tests.support.machine import machine, speech_file, wait_until

PASSWORD = "a long enough password"


def test_a_call_appears_on_the_open_page_and_can_be_played(tmp_path: Path, chromium: Browser) -> None:
    with machine(tmp_path / "var") as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(tmp_path / "greeting.wav", 0.3)))
        link = wait_until(lambda: made.login_link() if "Ctrl-C" in made.log() else None, "the welcome")
        context = chromium.new_context()
        page = context.new_page()
        page.goto(link)
        page.get_by_role("button", name="Sign in with this link").click()
        page.get_by_label("New password").fill(PASSWORD)
        page.get_by_label("The same once more").fill(PASSWORD)
        page.get_by_role("button", name="Save the password").click()
        expect(page).to_have_url(f"{made.base}/")
        # An empty inbox says whom to call.
        expect(page.locator("body")).to_contain_text(f"sip:main@127.0.0.1:{made.sip_port}")
        with Party([wish(made.uri, "browser-test", 2.0)]) as party:
            wait_until(lambda: party.testers and party.testers[0].outcome.bye_status == 200, "the answer to BYE", 60)
            # Promised within a second; the page itself is given that second and a busy machine some more.
            row = page.locator(".row").filter(has_text="browser-test")
            expect(row).to_be_visible(timeout=3_000)
        row.get_by_role("button", name="Play").click()
        wait_until(lambda: made.messages()[0]["state"] == "heard", "the message to have been played to its end")
        expect(row.get_by_text("Heard", exact=True)).to_be_visible()
        context.close()
        made.stop()
        assert "Traceback" not in made.log()
