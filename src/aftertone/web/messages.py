"""The messages of the API: list, one, its audio, and the four things that may be asked of one.

Owns: paths, parameters and answers. Refuses to know: how states follow each other (``model``), where audio lies.

Theory of operation: every action says what shall be, not what shall change, so that repeating one is harmless; what is
answered is durable. Endpoints are plain functions and run in worker threads, because catalog and disk may wait.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from aftertone.errors import NotFoundError
from aftertone.model import Action, Kind, Message, State
from aftertone.web.audio import send_flac, send_wav
from aftertone.web.gate import require_api
from aftertone.web.schemas import MessageOut, MessagesOut, message_out, rfc3339
from aftertone.web.services import Desk, DeskServices

MAX_LIMIT: Final = 500

router = APIRouter(prefix="/messages", tags=["messages"], dependencies=[Depends(require_api)])


@router.get("")
def list_messages(
    services: Desk,
    mailbox: Annotated[str | None, Query(max_length=64, description="Only this mailbox")] = None,
    kind: Annotated[Kind | None, Query(description="Only messages or only hang-ups")] = None,
    state: Annotated[list[State] | None, Query(description="Only these states; default: all but the bin")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    before: Annotated[UUID | None, Query(description="`next` of the page before")] = None,
) -> MessagesOut:
    """List messages and hang-ups, newest first."""
    states = tuple(state) if state else (State.NEW, State.HEARD)
    if mailbox is not None:
        services.catalog.mailbox(mailbox)
    found = services.catalog.messages(mailbox=mailbox, kind=kind, states=states, limit=limit + 1, before=before)
    page = found[:limit]
    return MessagesOut(
        messages=[message_out(message) for message in page],
        next=str(page[-1].id) if len(found) > limit else None,
    )


@router.get("/{message_id}")
def show_message(services: Desk, message_id: UUID) -> MessageOut:
    """Show one message."""
    return message_out(services.catalog.message(message_id))


def file_name_of(message: Message) -> str:
    """Return a file name, without ending, that sorts by time and says who called; plain ASCII."""
    moment = datetime.fromisoformat(rfc3339(message.started_unix_ms)).astimezone(UTC)
    who = re.sub(r"[^A-Za-z0-9+]+", "-", message.caller.name or message.caller.number).strip("-")[:40]
    return f"{moment:%Y-%m-%d_%H-%M-%S}_{who or 'unknown'}"


_AUDIO_ANSWERS: Final[dict[int | str, dict[str, object]]] = {
    200: {"content": {"audio/flac": {}, "audio/wav": {}}, "description": "All of it"},
    206: {"content": {"audio/flac": {}}, "description": "The range asked for"},
    304: {"description": "The client has it already"},
    416: {"description": "No byte of that range exists"},
}


@router.get("/{message_id}/audio", response_class=Response, responses=_AUDIO_ANSWERS)
def message_audio(
    request: Request,
    services: Desk,
    message_id: UUID,
    format: Annotated[Literal["flac", "wav"], Query(description="flac is the original")] = "flac",  # noqa: A002
    download: Annotated[bool, Query(description="Offer it as a file to save")] = False,
) -> Response:
    """Send the audio of a message; FLAC takes a byte range. Listening to it marks nothing."""
    message = services.catalog.message(message_id)
    if not message.blob:
        raise NotFoundError(f"the {message.kind} {message.id} brought no audio")
    name = file_name_of(message)
    if format == "wav":
        return send_wav(request, services, message.blob, message.blob_sha256, file_name=name)
    return send_flac(request, services, message.blob, message.blob_sha256, file_name=name, attachment=download)


router.add_api_route("/{message_id}/audio", message_audio, methods=["HEAD"], include_in_schema=False)


def _act(services: DeskServices, message_id: UUID, action: Action) -> MessageOut:
    return message_out(services.catalog.act(message_id, action, services.now_unix_ms()))


@router.post("/{message_id}/heard")
def mark_heard(services: Desk, message_id: UUID) -> MessageOut:
    """Mark a message as heard."""
    return _act(services, message_id, Action.HEAR)


@router.post("/{message_id}/unheard")
def mark_unheard(services: Desk, message_id: UUID) -> MessageOut:
    """Mark a message as new again."""
    return _act(services, message_id, Action.UNHEAR)


@router.delete("/{message_id}")
def delete_message(services: Desk, message_id: UUID) -> MessageOut:
    """Move a message to the bin; nothing is erased."""
    return _act(services, message_id, Action.DELETE)


@router.post("/{message_id}/restore")
def restore_message(services: Desk, message_id: UUID) -> MessageOut:
    """Take a message out of the bin; it is new or heard as it was before."""
    return _act(services, message_id, Action.RESTORE)
