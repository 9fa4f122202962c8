"""``aftertone call``: a test caller for people without a phone."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aftertone.cli.options import Json
from aftertone.errors import UsageError
from aftertone.model import Codec
from aftertone.sip.digest_client import DigestClient


class Encryption(StrEnum):
    """Whether keys for SRTP are offered."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


class CodecName(StrEnum):
    """Codecs by the names people type."""

    PCMU = "pcmu"
    PCMA = "pcma"
    G722 = "g722"
    OPUS = "opus"


def call(
    uri: Annotated[
        str, typer.Argument(help="Whom to call: sip:mailbox@host[:port][;transport=tcp or tls], or sips:...")
    ],
    play: Annotated[
        Path | None, typer.Option(help="Audio file to speak after the beep; without it, a spoken sample.")
    ] = None,
    codec: Annotated[CodecName | None, typer.Option(help="Offer this codec alone.", case_sensitive=False)] = None,
    caller: Annotated[str, typer.Option("--from", help="SIP address to call from.")] = "",
    name: Annotated[str, typer.Option(help="Name to show.")] = "",
    srtp: Annotated[
        Encryption, typer.Option(help="Encrypt the sound: off, optional (if the other side can), required.")
    ] = Encryption.OFF,
    user: Annotated[str, typer.Option(help="User name, for a machine or proxy that asks who calls.")] = "",
    secret_file: Annotated[Path | None, typer.Option(help="File that holds that user's password alone.")] = None,
    authorities: Annotated[
        Path | None, typer.Option(help="Over TLS: certificate (PEM) to trust besides the system's.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Over TLS: believe anybody.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Go away without hanging up, as an empty battery does.")] = False,
    as_json: Json = False,
) -> None:
    """Call a machine, wait for the beep, speak a file, hang up, and print what happens.

    Exit status 0 when everything was sent and the machine confirmed it, 1 otherwise.
    """
    from aftertone.audio.clips import load_clip
    from aftertone.audio.prompts import prompt
    from aftertone.roles.caller import TestCaller, Wish

    clip = load_clip(play) if play is not None else prompt("sample_message")
    chosen = None if codec is None else {c.value.lower(): c for c in Codec}[codec.value]
    wish = Wish(
        uri,
        clip,
        chosen,
        caller,
        name,
        not drop,
        srtp=srtp.value,
        login=_login(user, secret_file),
        authorities=authorities,
        verify=not insecure,
    )

    async def run() -> TestCaller:
        tester = TestCaller(wish, (lambda _: None) if as_json else typer.echo)
        await tester.run()
        return tester

    outcome = asyncio.run(run()).outcome
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(outcome)))
    good = outcome.answered and not outcome.failure and (outcome.hung_up or drop)
    sys.exit(0 if good else 1)


def _login(user: str, secret_file: Path | None) -> DigestClient | None:
    """Return who we are, None for a caller without a login."""
    if not user and secret_file is None:
        return None
    if not user or secret_file is None:
        raise UsageError("--user and --secret-file are given together")
    try:
        secret = secret_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {secret_file}: {error}") from None
    return DigestClient(user, secret, os.urandom)
