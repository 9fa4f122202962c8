"""Phones and lamps in ``aftertone sip status``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aftertone.roles.folder import Folder, write_status
from tests.unit.cli.shell import Shell

SETTINGS = """
[[sip.phones]]
user = "hall"
secret = "sesame"
mailboxes = ["main", "office"]

[[sip.phones]]
user = "attic"
secret = "sesame too"
mailboxes = ["main"]

[[sip.lamps]]
mailbox = "main"
uri = "sip:100@pbx.example.net"

[[sip.lamps]]
mailbox = "office"
uri = "sip:101@pbx.example.net"
"""
CONTACT = {"uri": "sip:hall@192.0.2.7", "from": "udp 192.0.2.7:5060", "expires_s": 300}
SAID: dict[str, object] = {
    "sip_address": "sip:main@192.0.2.1",
    "phones": ["nonsense", {"user": "hall", "contacts": [CONTACT, 7]}, {"user": "attic", "contacts": []}],
    "lamps": [
        {"mailbox": "main", "uri": "sip:100@pbx.example.net", "trouble": "", "told": True},
        {"mailbox": "office", "uri": "sip:101@pbx.example.net", "trouble": "404 Not Found", "told": False},
    ],
    "subscriptions": 3,
}


@pytest.fixture(autouse=True)
def _settings(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lamps.toml"
    file.write_text(SETTINGS)
    monkeypatch.setenv("AFTERTONE_CONFIG", str(file))
    Folder(shell.data).make()


def test_where_phones_are_and_which_lamps_are_told(shell: Shell) -> None:
    write_status(Folder(shell.data), "line", SAID)
    found = shell("sip", "status", "--json").json()
    assert found["phones"] == [
        {"user": "hall", "mailboxes": ["main", "office"], "contacts": [CONTACT]},
        {"user": "attic", "mailboxes": ["main"], "contacts": []},
    ]
    assert [(one["state"], one["trouble"]) for one in found["lamps"]] == [("told", ""), ("failing", "404 Not Found")]
    assert found["subscriptions"] == 3
    out = shell("sip", "status").out
    for words in ("udp 192.0.2.7:5060", "attic", "404 Not Found", "subscriptions to messages: 3"):
        assert words in out
    assert "sesame" not in out


@pytest.mark.parametrize("said", [None, {"phones": 1, "lamps": {}, "subscriptions": "many"}])
def test_what_the_line_does_not_say_is_unknown(shell: Shell, said: dict[str, object] | None) -> None:
    if said is not None:
        write_status(Folder(shell.data), "line", said)
    found = json.loads(shell("sip", "status", "--json").out)
    assert [one["contacts"] for one in found["phones"]] == [None, None]
    assert [one["state"] for one in found["lamps"]] == ["unknown", "unknown"]
    assert found["subscriptions"] is None
    assert "unknown" in shell("sip", "status").out
