"""``aftertone sip``: how the telephone side stands."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from aftertone.cli.lamps import lamp_facts, print_lamps
from aftertone.cli.options import DEFAULT_DATA, Config, Data, Json, machine
from aftertone.config import Settings
from aftertone.roles.folder import read_status
from aftertone.sip.flow import bracketed

app = typer.Typer(help="Accounts, trunks, phones, lamps and transports.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Accounts, trunks, phones, lamps and transports."""


@app.command()
def status(data: Data = DEFAULT_DATA, config: Config = None, as_json: Json = False) -> None:
    """Show whether each account is registered, where, until when, and why not.

    Exit status 0 when the line runs and every account is registered, 1 otherwise.
    """
    folder, settings = machine(data, config)
    line = read_status(folder, "line")
    accounts = _accounts(line, settings)
    value = {
        "line_up": line is not None,
        "address": str(line.get("sip_address", "")) if line is not None else "",
        "transports": _transports(settings),
        "accounts": accounts,
        "trunks": [
            {
                "name": trunk.name,
                "addresses": list(trunk.addresses),
                "user": trunk.user,
                "mailbox": trunk.mailbox,
                **_use(line, trunk.name),
            }
            for trunk in settings.sip.trunks
        ],
        **lamp_facts(line, settings),
    }
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False))
    else:
        _print(value)
    sys.exit(0 if line is not None and all(one["state"] == "registered" for one in accounts) else 1)


def _accounts(line: Mapping[str, object] | None, settings: Settings) -> list[dict[str, Any]]:
    """Return what the line says of its accounts; those of the settings, unknown, when it does not run."""
    said = line.get("accounts") if line is not None else None
    if isinstance(said, list):
        return [dict(one) for one in said if isinstance(one, Mapping) and "name" in one and "state" in one]
    return [
        {"name": one.name, "registrar": one.registrar, "state": "unknown", "reason": "the line does not run"}
        for one in settings.sip.accounts
    ]


def _use(line: Mapping[str, object] | None, trunk: str) -> dict[str, int | None]:
    """Return how many calls of a trunk the line took since it started, and when the last one was; None when it does not say."""
    said = line.get("lines") if line is not None else None
    for one in said if isinstance(said, list) else ():
        if isinstance(one, Mapping) and (one.get("kind"), one.get("name")) == ("trunk", trunk):
            calls, last = one.get("calls"), one.get("last_call_unix_ms")
            if isinstance(calls, int) and isinstance(last, int):
                return {"calls": calls, "last_call_unix_ms": last if 0 < last < 2**42 else None}
    return {"calls": None, "last_call_unix_ms": None}


def _transports(settings: Settings) -> list[str]:
    ways = [("udp", settings.sip.port), ("tcp", settings.sip.port)]
    ways += [("tls", settings.sip.tls_port)] if settings.sip.tls else []
    return [f"{way} {bracketed(host)}:{port}" for way, port in ways for host in settings.sip.hosts]


def _print(value: Mapping[str, Any]) -> None:
    typer.echo(f"line        {value['address'] if value['line_up'] else 'does not run'}")
    typer.echo(f"transports  {', '.join(value['transports'])}")
    if value["accounts"]:
        table = Table("account", "state", "registrar", "server", "expires in", "next try", box=None, pad_edge=False)
        for one in value["accounts"]:
            row = (one["name"], one["state"], one.get("registrar", ""), one.get("server", ""))
            table.add_row(*(str(cell) for cell in row), _span(one.get("expires_s")), _span(one.get("next_s")))
        typer.echo("")
        Console().print(table)
        for one in value["accounts"]:
            if one.get("reason"):
                typer.echo(f"{one['name']}: {one['reason']}")
    if value["trunks"]:
        table = Table("trunk", "known by", "mailbox", "calls", "last call", box=None, pad_edge=False)
        for one in value["trunks"]:
            known = [*one["addresses"], *([f"login {one['user']}"] if one["user"] else [])]
            calls = "" if one["calls"] is None else str(one["calls"])
            table.add_row(
                one["name"], ", ".join(known), one["mailbox"] or "by the call", calls, _moment(one["last_call_unix_ms"])
            )
        typer.echo("")
        Console().print(table)
    print_lamps(value)


def _moment(unix_ms: int | None) -> str:
    if unix_ms is None:
        return ""
    return datetime.fromtimestamp(unix_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def _span(seconds: object) -> str:
    if not isinstance(seconds, int):
        return ""
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
