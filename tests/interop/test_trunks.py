"""sipp as a PBX: known by its address, by its login, or by neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from aftertone.model import Codec
from tests.support.baresip import baresip
from tests.support.machine import Machine, machine, speech, wait_until
from tests.support.sipp import start_sipp

PBX_AT: Final = ("-i", "127.0.0.2")
LOGIN: Final = ("-au", "cloud-user", "-ap", "s3cret")


@pytest.fixture(scope="module")
def choosy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that takes calls of a PBX at 127.0.0.2 and of whoever logs in as ``cloud-user``."""
    folder = tmp_path_factory.mktemp("choosy")
    trunks = {
        "SIP__CALLERS": "known",
        "SIP__TRUNKS__PBX__ADDRESSES": "127.0.0.2",
        "SIP__TRUNKS__CLOUD__USER": "cloud-user",
        "SIP__TRUNKS__CLOUD__SECRET": "s3cret",
        "SIP__TRUNKS__CLOUD__MAILBOX": "office",
    }
    with machine(folder / "data", **trunks) as made:
        with made.client() as client:
            client.post("/mailboxes", json={"name": "anna", "numbers": ["+1 202 555 0143", "201"]}).raise_for_status()
            client.post("/mailboxes", json={"name": "office"}).raise_for_status()
        # A line reads its directory before it takes calls, so a second start needs no waiting for the first reload.
        made.stop()
        yield made.start()
        assert "Traceback" not in made.log(), made.log()
        made.books()


def only(machine: Machine, line: str) -> dict[str, Any]:
    """Return the one recording that came by that line."""

    def there() -> list[dict[str, Any]]:
        return [message for message in machine.messages() if message["origin"]["line"] == line]

    (message,) = wait_until(there, f"what the trunk {line} brought")
    return message


def test_a_trunk_that_is_known_by_its_address(choosy: Machine, tmp_path: Path) -> None:
    start_sipp(choosy, tmp_path, "trunk", caller="pbx", user="*97", options=PBX_AT).finish()
    message = only(choosy, "pbx")
    assert (message["mailbox"], message["mailbox_reason"], message["forwarded"]) == ("anna", "History-Info", True)
    assert message["caller"] == {"number": "+12025550198", "name": "Alice"}
    assert message["origin"] == {
        "line_kind": "trunk",
        "line": "pbx",
        "caller_header": "P-Asserted-Identity",
        "verstat": "TN-Validation-Passed",
        "diverted_by": "201",
        "divert_reason": "no-answer",
    }


def test_a_trunk_that_logs_in(choosy: Machine, tmp_path: Path) -> None:
    start_sipp(choosy, tmp_path, "trunk_login", caller="cloud", user="anyone", options=LOGIN).finish()
    message = only(choosy, "cloud")
    assert (message["mailbox"], message["mailbox_reason"]) == ("office", "trunk cloud")
    line = 'aftertone_calls_by_line_total{kind="trunk",name="cloud"} 1.0'
    wait_until(lambda: line in httpx.get(f"{choosy.base}/metrics").text, "the metrics to count the trunk's call")


def test_a_softphone_logs_in(choosy: Machine, tmp_path: Path) -> None:
    login = "auth_user=cloud-user;auth_pass=s3cret"
    with baresip(choosy, tmp_path / "phone", Codec.PCMU, speech(2.0), caller="softphone", account=login) as phone:
        phone.finish()

    def there() -> list[dict[str, Any]]:
        return [message for message in choosy.messages() if message["caller"]["number"] == "softphone"]

    (message,) = wait_until(there, "the message of the softphone")
    assert (message["mailbox"], message["origin"]["line"]) == ("office", "cloud")


def test_a_wrong_password_lets_nobody_in(choosy: Machine, tmp_path: Path) -> None:
    wrong = ("-au", "cloud-user", "-ap", "guess")
    start_sipp(choosy, tmp_path, "trunk_wrong_login", caller="thief", user="anna", options=wrong).finish()
    unknown = ("-au", "nobody", "-ap", "s3cret")
    start_sipp(choosy, tmp_path, "trunk_wrong_login", caller="guesser", user="anna", options=unknown).finish()
    assert not [message for message in choosy.messages() if message["caller"]["number"] in ("thief", "guesser")]

    def counted() -> bool:
        return "aftertone_line_callers_wrong_logins_total 2.0" in httpx.get(f"{choosy.base}/metrics").text

    wait_until(counted, "the metrics to tell of two wrong logins")


def test_a_login_by_a_better_algorithm(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    settings = {"SIP__CALLERS": "known", "SIP__DIGEST": "SHA-256", "SIP__TRUNKS__CLOUD__USER": "cloud-user"}
    with machine(tmp_path / "data", **settings, SIP__TRUNKS__CLOUD__SECRET_FILE=str(secret)) as made:
        made.run("call", made.uri, "--user", "cloud-user", "--secret-file", str(secret))
        assert only(made, "cloud")["kind"] == "message"


def test_a_stranger_is_refused_whatever_he_asserts(tmp_path: Path) -> None:
    known = {"SIP__CALLERS": "known", "SIP__TRUNKS__PBX__ADDRESSES": "127.0.0.2"}
    with machine(tmp_path / "data", **known) as made:
        start_sipp(made, tmp_path, "stranger", caller="mallory").finish()
        start_sipp(made, tmp_path, "trunk", caller="pbx", options=PBX_AT).finish()
        assert only(made, "pbx")["mailbox"] == "main"
        assert len(made.messages()) == 1
        assert "a stranger, and sip.callers lets in only those who are known" in made.log()
