"""The pages of a signed-in owner: messages, hang-ups, the bin.

Owns: which messages a page lists and what stands around them; the forms that work without a script. Refuses to know: how
they look (templates, style), how a browser brings them to life (``static/desk.js``).

Theory of operation: every page is complete as it comes from here. The page's module listens to the event stream, reads
the same page again when something changed and puts the rows in place that differ, so there is one rendering of a row.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from aftertone.model import Action, Kind, Message, State
from aftertone.store.rows import Counts, MailboxRow
from aftertone.web.gate import PageUser, check_csrf, renew_session
from aftertone.web.present import item_of
from aftertone.web.services import Desk, DeskServices
from aftertone.web.standing import greeting_alarms, standing_of
from aftertone.web.templating import page

PAGE_ROWS: Final = 50

router = APIRouter(include_in_schema=False)

View = Literal["messages", "hangups", "bin"]
_KEPT: Final = (State.NEW, State.HEARD)
_LISTS: Final[dict[View, tuple[Kind | None, tuple[State, ...]]]] = {
    "messages": (Kind.MESSAGE, _KEPT),
    "hangups": (Kind.HANGUP, _KEPT),
    "bin": (None, (State.DELETED,)),
}
_TITLES: Final[dict[View, str]] = {"messages": "Messages", "hangups": "Hang-ups", "bin": "Bin"}


def _address(view: View, mailbox: str | None, before: str | None = None) -> str:
    query = {"mailbox": mailbox, "before": before}
    given = {name: value for name, value in query.items() if value}
    path = "/" if view == "messages" else f"/{view}"
    return f"{path}?{urlencode(given)}" if given else path


def _tabs(view: View, mailbox: str | None, counts: Counts) -> list[dict[str, object]]:
    numbers: dict[View, tuple[int, str]] = {
        "messages": (counts.new, "new"),
        "hangups": (counts.hangups, "in all"),
        "bin": (counts.deleted, "in all"),
    }
    return [
        {
            "name": name,
            "title": _TITLES[name],
            "href": _address(name, mailbox),
            "current": name == view,
            "number": number,
            "unit": unit,
        }
        for name, (number, unit) in numbers.items()
    ]


def _mailbox_choices(
    services: DeskServices, view: View, rows: list[MailboxRow], mailbox: str | None
) -> list[dict[str, object]]:
    if len(rows) < 2:
        return []
    chosen = mailbox.lower() if mailbox else None
    everything: dict[str, object] = {
        "name": "All mailboxes",
        "href": _address(view, None),
        "current": chosen is None,
        "new": 0,
    }
    return [everything] + [
        {
            "name": row.name,
            "href": _address(view, row.name),
            "current": row.name.lower() == chosen,
            "new": services.catalog.counts(row.name).new,
        }
        for row in rows
    ]


def _show(
    request: Request, services: DeskServices, user: PageUser, view: View, mailbox: str | None, before: UUID | None
) -> Response:
    if services.catalog.password_hash() is None:
        return RedirectResponse("/password", status_code=303)
    # Read before the list: a change in between is then told twice, never missed.
    sequence = services.catalog.last_change()
    if mailbox:
        services.catalog.mailbox(mailbox)
    kind, states = _LISTS[view]
    found = services.catalog.messages(
        mailbox=mailbox or None, kind=kind, states=states, limit=PAGE_ROWS + 1, before=before
    )
    shown = found[:PAGE_ROWS]
    standing = standing_of(services)
    rows = services.catalog.mailboxes()
    counts = services.catalog.counts(mailbox or None)
    values = {
        "csrf_token": user.csrf_token,
        "title": _TITLES[view],
        "view": view,
        "items": [item_of(message) for message in shown],
        "tabs": _tabs(view, mailbox, counts),
        "mailboxes": _mailbox_choices(services, view, rows, mailbox),
        "show_mailbox": len(rows) > 1,
        "counts": counts,
        "older": _address(view, mailbox, str(shown[-1].id)) if len(found) > PAGE_ROWS else "",
        "newest": _address(view, mailbox) if before else "",
        "here": _address(view, mailbox, str(before) if before else None),
        "standing": standing,
        "alarms": (*standing.alarms, *greeting_alarms(services)),
        "sequence": sequence,
    }
    response = page(request, "inbox.html", values)
    renew_session(services, request, response, user)
    return response


Mailbox = Annotated[str | None, Query(max_length=64)]
Before = Annotated[UUID | None, Query()]


@router.get("/")
def messages_page(
    request: Request, services: Desk, user: PageUser, mailbox: Mailbox = None, before: Before = None
) -> Response:
    """Show the messages."""
    return _show(request, services, user, "messages", mailbox, before)


@router.get("/hangups")
def hangups_page(
    request: Request, services: Desk, user: PageUser, mailbox: Mailbox = None, before: Before = None
) -> Response:
    """Show the calls that left nothing."""
    return _show(request, services, user, "hangups", mailbox, before)


@router.get("/bin")
def bin_page(
    request: Request, services: Desk, user: PageUser, mailbox: Mailbox = None, before: Before = None
) -> Response:
    """Show what was deleted and can come back."""
    return _show(request, services, user, "bin", mailbox, before)


def _home_of(message: Message) -> str:
    return "/" if message.kind is Kind.MESSAGE else "/hangups"


@router.post("/act/{message_id}/{action}")
def act(
    request: Request,
    services: Desk,
    user: PageUser,
    message_id: UUID,
    action: Action,
    csrf_token: Annotated[str, Form(max_length=200)] = "",
    view: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Do what a button without a script asks for, and show the list again."""
    check_csrf(request, user, csrf_token)
    message = services.catalog.act(message_id, action, services.now_unix_ms())
    return RedirectResponse("/bin" if view == "bin" else _home_of(message), status_code=303)
