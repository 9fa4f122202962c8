"""The mailboxes of the API, and the owner's greeting of each.

Owns: paths, parameters and answers. Refuses to know: audio formats (``import_audio``), the line's snapshot
(``publish_directory``).

Theory of operation: a change is in the catalog, then in the line's snapshot, then acknowledged. A greeting is stored
under the hash of its content before the catalog names it, so at every moment the whole old one or the whole new one is
in force.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from aftertone.errors import BusyError, NotFoundError, StateError, UsageError
from aftertone.web.audio import send_flac
from aftertone.web.gate import require_api
from aftertone.web.schemas import MailboxChange, MailboxesOut, MailboxOut, NewMailbox, mailbox_out
from aftertone.web.services import Desk, DeskServices

router = APIRouter(prefix="/mailboxes", tags=["mailboxes"], dependencies=[Depends(require_api)])

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9._+-]{1,64}$")]

_UPLOADS_AT_ONCE: Final = 2
"""An upload is decoded in memory; two at once are enough for people and small for the machine."""

_uploads = threading.BoundedSemaphore(_UPLOADS_AT_ONCE)
_changing = threading.Lock()
"""One change at a time, so that the snapshot that is published last is the newest."""


def _out(services: DeskServices, name: str) -> MailboxOut:
    row = services.catalog.mailbox(name)
    return mailbox_out(row, services.catalog.counts(row.name))


@router.get("")
def list_mailboxes(services: Desk) -> MailboxesOut:
    """List every mailbox."""
    rows = services.catalog.mailboxes()
    return MailboxesOut(mailboxes=[mailbox_out(row, services.catalog.counts(row.name)) for row in rows])


@router.post("", status_code=201, responses={409: {"description": "There is one of that name already"}})
def add_mailbox(services: Desk, wanted: NewMailbox, response: Response) -> MailboxOut:
    """Make a mailbox; callers reach it at once."""
    with _changing:
        known = {row.name.lower() for row in services.catalog.mailboxes()}
        if wanted.name.lower() in known:
            raise StateError(f"there is a mailbox {wanted.name!r} already")
        services.catalog.add_mailbox(wanted.name, wanted.rings, wanted.numbers)
        services.publish_directory()
    response.headers["Location"] = f"/api/v1/mailboxes/{wanted.name}"
    return _out(services, wanted.name)


@router.get("/{name}")
def show_mailbox(services: Desk, name: Name) -> MailboxOut:
    """Show one mailbox."""
    return _out(services, name)


@router.patch("/{name}")
def change_mailbox(services: Desk, name: Name, wanted: MailboxChange) -> MailboxOut:
    """Change rings or numbers; the next call finds it so."""
    given = wanted.model_fields_set
    with _changing:
        if "numbers" in given:
            services.catalog.set_numbers(name, wanted.numbers)
        if "rings" in given:
            services.catalog.set_rings(name, wanted.rings)
        services.publish_directory()
    return _out(services, name)


@router.get("/{name}/greeting", response_class=Response)
def greeting_audio(request: Request, services: Desk, name: Name) -> Response:
    """Send the owner's greeting as FLAC; takes a byte range. 404 while the default greeting is played."""
    row = services.catalog.mailbox(name)
    if row.greeting_blob is None or row.greeting_sha256 is None:
        raise NotFoundError(f"the mailbox {row.name!r} plays the default greeting")
    file_name = f"greeting-{row.name.strip('.')}"
    return send_flac(request, services, row.greeting_blob, row.greeting_sha256, file_name=file_name, attachment=False)


router.add_api_route("/{name}/greeting", greeting_audio, methods=["HEAD"], include_in_schema=False)


def _store_greeting(services: DeskServices, name: str, upload: bytes) -> MailboxOut:
    services.catalog.mailbox(name)
    if not upload:
        raise UsageError("the upload is empty; send the audio file as the request body")
    if not _uploads.acquire(blocking=False):
        raise BusyError("two greetings are being converted already")
    try:
        flac = services.import_audio(upload)
    finally:
        _uploads.release()
    sha256 = hashlib.sha256(flac).hexdigest()
    key = f"greetings/{sha256}.flac"
    with _changing:
        services.blobs.put(key, flac)
        services.catalog.set_greeting(name, key, sha256)
        services.publish_directory()
    return _out(services, name)


_UPLOAD: Final = {
    "requestBody": {
        "required": True,
        "description": "The audio file itself: WAV, FLAC, MP3, Opus, M4A and more; at most 20 MB",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.put("/{name}/greeting", openapi_extra=_UPLOAD)
async def set_greeting(request: Request, services: Desk, name: Name) -> MailboxOut:
    """Set the greeting; from the answer on, callers hear it. The request body is the audio file."""
    upload = await request.body()
    return await run_in_threadpool(_store_greeting, services, name, upload)


@router.delete("/{name}/greeting")
def clear_greeting(services: Desk, name: Name) -> MailboxOut:
    """Go back to the default greeting; the old audio is kept."""
    with _changing:
        services.catalog.clear_greeting(name)
        services.publish_directory()
    return _out(services, name)
