"""Phones and lamps as ``aftertone sip status`` shows them.

Owns: reading what the line says of them, with suspicion (it comes from a file), and two tables. Refuses to know: the rest of
the telephone side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from aftertone.config import Settings


def lamp_facts(line: Mapping[str, object] | None, settings: Settings) -> dict[str, Any]:
    """Return phones, lamps and the number of subscriptions; what nobody knows when the line does not run is None."""
    phones = {str(one.get("user")): one for one in _said(line, "phones")}
    lamps = {(one.get("mailbox"), one.get("uri")): one for one in _said(line, "lamps")}
    subscriptions = line.get("subscriptions") if line is not None else None
    return {
        "phones": [
            {
                "user": phone.user,
                "mailboxes": list(phone.mailboxes),
                "contacts": _contacts(phones.get(phone.user)),
            }
            for phone in settings.sip.phones
        ],
        "lamps": [
            {
                "mailbox": lamp.mailbox,
                "uri": lamp.uri,
                "account": lamp.account,
                "state": _state(lamps.get((lamp.mailbox, lamp.uri))),
                "trouble": str((lamps.get((lamp.mailbox, lamp.uri)) or {}).get("trouble", "")),
            }
            for lamp in settings.sip.lamps
        ],
        "subscriptions": subscriptions if isinstance(subscriptions, int) else None,
    }


def print_lamps(facts: Mapping[str, Any]) -> None:
    """Print the tables of what there is."""
    if facts["phones"]:
        table = Table("phone", "mailboxes", "registered", box=None, pad_edge=False)
        for one in facts["phones"]:
            places = "unknown" if one["contacts"] is None else ", ".join(c["from"] for c in one["contacts"]) or "no"
            table.add_row(one["user"], ", ".join(one["mailboxes"]), places)
        typer.echo("")
        Console().print(table)
    if facts["lamps"]:
        table = Table("lamp", "mailbox", "account", "state", box=None, pad_edge=False)
        for one in facts["lamps"]:
            table.add_row(one["uri"], one["mailbox"], one["account"] or "none", one["trouble"] or one["state"])
        typer.echo("")
        Console().print(table)
    if facts["subscriptions"]:
        typer.echo(f"\nsubscriptions to messages: {facts['subscriptions']}")


def _said(line: Mapping[str, object] | None, name: str) -> list[Mapping[str, Any]]:
    said = line.get(name) if line is not None else None
    return [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []


def _contacts(said: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    contacts = said.get("contacts") if said is not None else None
    if not isinstance(contacts, list):
        return None
    return [
        {"uri": str(one.get("uri", "")), "from": str(one.get("from", "")), "expires_s": one.get("expires_s")}
        for one in contacts
        if isinstance(one, Mapping)
    ]


def _state(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return "unknown"
    if said.get("trouble"):
        return "failing"
    return "told" if said.get("told") is True else "waiting"
