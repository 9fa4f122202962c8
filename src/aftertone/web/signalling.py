"""What was said about a call on the wire: as JSON, as a capture file, and as a page.

Owns: finding the stored document of a message, and its three faces. Refuses to know: what is blanked in it, and when it was written.

Theory of operation: the document lies beside the audio and is read when somebody asks. Not every message has one: calls of before it
was kept, calls that ended in a power cut, machines on which it is switched off. That is a plain 404.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from aftertone.errors import NotFoundError
from aftertone.model import Message
from aftertone.sip.pcap import MEDIA_TYPE, pack_pcap
from aftertone.sip.trace import StoredTrace, Traced, unpack_trace
from aftertone.store.blobs import SIGNALLING_SUFFIX, message_key
from aftertone.web.gate import PageUser, require_api
from aftertone.web.messages import file_name_of
from aftertone.web.present import clean, who
from aftertone.web.schemas import rfc3339
from aftertone.web.services import Desk, DeskServices
from aftertone.web.templating import page

router = APIRouter(prefix="/messages", tags=["messages"], dependencies=[Depends(require_api)])
pages = APIRouter(include_in_schema=False)


class SignalOut(BaseModel):
    """One message on the wire."""

    at: str
    offset_ms: int
    """Since the first one."""
    sent: bool
    """By this machine; the others were received."""
    transport: str
    local: str
    remote: str
    label: str
    """What it is in a few words."""
    text: str
    """All of it, without passwords and keys; what is no UTF-8 is replaced."""


class SignallingOut(BaseModel):
    """What was said about a call, in order."""

    call_id: str
    left_out: int
    """Messages in the middle of a long call that were not kept."""
    messages: list[SignalOut]


def _stored(services: DeskServices, message: Message) -> StoredTrace:
    """Raises NotFoundError when nothing was kept, DamagedError when it cannot be read."""
    try:
        document = services.blobs.get(message_key(message.id, SIGNALLING_SUFFIX))
    except NotFoundError:
        raise NotFoundError(f"no signalling was kept of the {message.kind} {message.id}") from None
    return unpack_trace(document)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _out(trace: StoredTrace) -> SignallingOut:
    first_ns = trace.messages[0].at_ns if trace.messages else 0
    return SignallingOut(
        call_id=trace.call_id, left_out=trace.left_out, messages=[_signal(one, first_ns) for one in trace.messages]
    )


def _signal(message: Traced, first_ns: int) -> SignalOut:
    return SignalOut(
        at=rfc3339(message.at_ns // 1_000_000),
        offset_ms=(message.at_ns - first_ns) // 1_000_000,
        sent=message.sent,
        transport=message.transport,
        local=_address(*message.local),
        remote=_address(*message.remote),
        label=message.label,
        text=message.data.decode("utf-8", "replace").replace("\r\n", "\n"),
    )


@router.get(
    "/{message_id}/signalling",
    responses={200: {"content": {"application/json": {}, MEDIA_TYPE: {}}}},
    response_model=SignallingOut,
)
def message_signalling(
    services: Desk,
    message_id: UUID,
    format: Annotated[Literal["json", "pcap"], Query(description="pcap is a capture file")] = "json",  # noqa: A002
) -> SignallingOut | Response:
    """Read what was said about a call on the wire, without passwords and keys; 404 when nothing was kept."""
    message = services.catalog.message(message_id)
    trace = _stored(services, message)
    if format == "pcap":
        name = f'attachment; filename="{file_name_of(message)}.pcap"'
        return Response(pack_pcap(trace.messages), media_type=MEDIA_TYPE, headers={"Content-Disposition": name})
    return _out(trace)


@pages.get("/signalling/{message_id}")
def signalling_page(request: Request, services: Desk, _: PageUser, message_id: UUID) -> Response:
    """Show what was said about a call on the wire, step by step."""
    message = services.catalog.message(message_id)
    try:
        found = _out(_stored(services, message))
    except NotFoundError:
        found = SignallingOut(call_id="", left_out=0, messages=[])
    values = {"message_id": str(message_id), "title": who(message.caller)[0], "call_id": clean(found.call_id)}
    return page(request, "signalling.html", {**values, "found": found})
