"""What the desk is given by whoever runs it.

Owns: the one value that carries every collaborator of the web application, and the way a request finds it. Refuses to
know: how the collaborators work, and which process they live in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from aftertone.store.blobs import DirectoryBlobs
from aftertone.store.catalog import Catalog

RoleStatus = Callable[[], Mapping[str, object] | None]
"""Returns what a role wrote about itself last, or None when that is too old to be believed."""


@dataclass(frozen=True, slots=True)
class DeskServices:
    """The collaborators of the web application. Every callable may be called from any thread."""

    catalog: Catalog
    blobs: DirectoryBlobs
    line_status: RoleStatus
    """Content of the line's status file: ``taking_calls``, ``alarms``, ``calls``, ``metrics``, ``sip_address``."""
    role_status: RoleStatus
    """The same for delivery."""
    publish_directory: Callable[[], None]
    """Writes the line's snapshot of mailboxes and greetings; durable on return."""
    import_audio: Callable[[bytes], bytes]
    """Turns any audio file into FLAC; raises UsageError when it is none."""
    now_unix_ms: Callable[[], int]
    entropy: Callable[[int], bytes]
    api_token_sha256: str
    """SHA-256 (hex) of the bearer token of the local command line."""
    secure_cookies: bool
    version: str
    names: tuple[str, ...] = ()
    """Host names under which the desk is reached, besides localhost and plain addresses."""


def services_of(request: Request) -> DeskServices:
    """Return the services of the application that handles ``request``."""
    return cast(DeskServices, request.app.state.services)


Desk = Annotated[DeskServices, Depends(services_of)]
"""Parameter type of an endpoint that wants the services."""
