"""``aftertone sip status``: what it shows, and the exit status that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from aftertone.roles.folder import Folder, write_status
from tests.unit.cli.shell import Shell

SETTINGS = """
[[sip.accounts]]
name = "provider"
registrar = "provider.example"
user = "ann"
secret = "sesame"

[[sip.trunks]]
name = "pbx"
addresses = ["192.0.2.0/24"]
user = "pbx"
secret = "sesame too"
"""
REGISTERED = {
    "name": "provider",
    "registrar": "provider.example",
    "address": "sip:ann@provider.example",
    "state": "registered",
    "reason": "",
    "server": "udp 192.0.2.5:5060",
    "since_s": 60,
    "expires_s": 3000,
    "next_s": 100,
}
LINES = [
    "nonsense",
    {"kind": "account", "name": "pbx", "calls": 3, "last_call_unix_ms": 1},
    {"kind": "trunk", "name": "pbx", "calls": 12, "last_call_unix_ms": 1_750_000_000_000},
]
FAILING = {**REGISTERED, "state": "failing", "reason": "no answer from udp 192.0.2.5:5060", "expires_s": None}


@pytest.fixture(autouse=True)
def _settings(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text(SETTINGS)
    monkeypatch.setenv("AFTERTONE_CONFIG", str(file))


def say(shell: Shell, *accounts: object) -> None:
    folder = Folder(shell.data)
    folder.make()
    write_status(folder, "line", {"sip_address": "sip:main@192.0.2.1", "accounts": list(accounts), "lines": LINES})


def test_all_is_registered(shell: Shell) -> None:
    say(shell, REGISTERED)
    done = shell("sip", "status")
    assert done.status == 0
    for word in (
        "sip:main@192.0.2.1",
        "udp 0.0.0.0:5060",
        "provider  registered",
        "50 min",
        "100 s",
        "192.0.2.0/24, login pbx",
    ):
        assert word in done.out
    found = shell("sip", "status", "--json").json()
    assert found["accounts"] == [REGISTERED]
    pbx = {"name": "pbx", "addresses": ["192.0.2.0/24"], "user": "pbx", "mailbox": ""}
    assert found["trunks"] == [{**pbx, "calls": 12, "last_call_unix_ms": 1_750_000_000_000}]
    assert "by the call  12     2025-06-1" in done.out
    assert "sesame" not in done.out + str(found)


def test_an_account_that_fails_says_why(shell: Shell) -> None:
    say(shell, FAILING)
    done = shell("sip", "status")
    assert done.status == 1
    assert "provider: no answer from udp 192.0.2.5:5060" in done.out


def test_a_line_that_does_not_run(shell: Shell) -> None:
    done = shell("sip", "status")
    assert done.status == 1
    assert "line        does not run" in done.out
    assert "provider: the line does not run" in done.out
    assert shell("sip", "status", "--json", "--data", shell.data).out.count('"calls": null') == 1


def test_tls_is_listed_when_it_is_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERTONE_SIP__TLS", "true")
    assert "tls 0.0.0.0:5061" in shell("sip", "status").out


def test_nonsense_in_the_status_counts_as_not_said(shell: Shell) -> None:
    say(shell, "x", {"name": "provider"}, REGISTERED)
    assert shell("sip", "status", "--json").json()["accounts"] == [REGISTERED]
