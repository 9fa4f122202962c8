"""What the line remembers of its phones over a restart.

Owns: the file ``run/phones.json``: where phones are, and who subscribed to what. Refuses to know: what is done with them.

Theory of operation: written whole under another name and renamed, not synced, and only when something changed: after a power cut
it may be gone or older, which costs lamps that are right again when their phones come by themselves. Times are of the monotonic clock;
after a reboot, which starts it anew, what was left at the time of writing is left now. That is a little too much, and harmless:
what a phone knows nothing of ends with its next answer. Whatever cannot be read is forgotten.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from aftertone.roles.clerk import Clerk
from aftertone.sip.events import DialogId
from aftertone.sip.flow import Flow
from aftertone.sip.registrar import Binding
from aftertone.sip.subscriptions import Kept

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Watch:
    """What a subscriber was granted."""

    mailboxes: tuple[str, ...]
    account: str
    """The URI that it asked for: Message-Account."""
    peer: str
    """Who it is: ``phone hall``, ``trunk pbx``."""
    remote: tuple[str, int]


Bindings = Iterable[tuple[str, Binding]]
Subscriptions = Iterable[tuple[Kept, Watch]]


class Memory:
    """One file."""

    def __init__(self, path: Path, *, boot_id: bytes, clerk: Clerk) -> None:
        self._path, self._boot, self._clerk = path, boot_id.hex(), clerk
        self._written = ""

    def write(self, bindings: Bindings, subscriptions: Subscriptions, now_ns: int) -> None:
        """Keep these, if they differ from what was kept last. A disk that does not take it costs the memory alone."""
        value = {
            "bindings": [[user, _binding_out(binding)] for user, binding in bindings],
            "subscriptions": [[_kept_out(kept), _watch_out(watch)] for kept, watch in subscriptions],
        }
        text = json.dumps(value)
        if text == self._written:
            return
        whole = json.dumps({"v": VERSION, "boot": self._boot, "written_ns": now_ns, **value})
        self._clerk.write("phones", lambda: self._write(whole, text))

    def _write(self, whole: str, text: str) -> None:
        temporary = self._path.with_name(f".{self._path.name}")
        with contextlib.suppress(OSError):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(whole)
            temporary.replace(self._path)
            self._written = text

    def read(self, now_ns: int) -> tuple[list[tuple[str, Binding]], list[tuple[Kept, Watch]]]:
        """Return what was kept and is not over; nothing when there is nothing that can be read."""
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
            if value["v"] != VERSION:
                return [], []
            shift_ns = 0 if value["boot"] == self._boot else now_ns - int(value["written_ns"])
            bindings = [(str(user), _binding_in(one)) for user, one in value["bindings"]]
            subscriptions = [(_kept_in(kept), _watch_in(watch)) for kept, watch in value["subscriptions"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [], []
        return (
            [
                (user, replace(one, expires_ns=one.expires_ns + shift_ns))
                for user, one in bindings
                if one.expires_ns + shift_ns > now_ns
            ],
            [
                (replace(kept, expires_ns=kept.expires_ns + shift_ns), watch)
                for kept, watch in subscriptions
                if kept.expires_ns + shift_ns > now_ns
            ],
        )


def _flow_out(flow: Flow) -> list[object]:
    return [flow.transport, list(flow.remote), list(flow.local)]


def _flow_in(value: Any) -> Flow:
    transport, (host, port), (own_host, own_port) = value
    if transport not in ("UDP", "TCP", "TLS"):
        raise ValueError(f"a transport {transport!r}")
    return Flow(transport, (str(host), int(port)), (str(own_host), int(own_port)))


def _binding_out(one: Binding) -> dict[str, object]:
    return {
        "uri": one.uri,
        "call_id": one.call_id,
        "cseq": one.cseq,
        "expires_ns": one.expires_ns,
        "flow": _flow_out(one.flow),
        "path": list(one.path),
        "key": list(one.key),
        "instance": one.instance,
    }


def _binding_in(value: Any) -> Binding:
    instance, number = value["key"]
    return Binding(
        str(value["uri"]),
        str(value["call_id"]),
        int(value["cseq"]),
        int(value["expires_ns"]),
        _flow_in(value["flow"]),
        tuple(map(str, value["path"])),
        (str(instance), str(number)),
        str(value["instance"]),
    )


def _kept_out(one: Kept) -> dict[str, object]:
    return {
        "id": [one.id.call_id, one.id.local_tag, one.id.remote_tag],
        "local": one.local,
        "remote": one.remote,
        "routes": list(one.routes),
        "target": one.target,
        "flow": _flow_out(one.flow),
        "cseq": [one.local_cseq, one.remote_cseq],
        "event": one.event,
        "user": one.user,
        "expires_ns": one.expires_ns,
    }


def _kept_in(value: Any) -> Kept:
    call_id, local_tag, remote_tag = map(str, value["id"])
    local_cseq, remote_cseq = map(int, value["cseq"])
    return Kept(
        DialogId(call_id, local_tag, remote_tag),
        str(value["local"]),
        str(value["remote"]),
        tuple(map(str, value["routes"])),
        str(value["target"]),
        _flow_in(value["flow"]),
        local_cseq,
        remote_cseq,
        str(value["event"]),
        str(value["user"]),
        int(value["expires_ns"]),
    )


def _watch_out(one: Watch) -> dict[str, object]:
    return {"mailboxes": list(one.mailboxes), "account": one.account, "peer": one.peer, "remote": list(one.remote)}


def _watch_in(value: Any) -> Watch:
    host, port = value["remote"]
    return Watch(tuple(map(str, value["mailboxes"])), str(value["account"]), str(value["peer"]), (str(host), int(port)))
