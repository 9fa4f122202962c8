"""Session timers: a call whose other side has vanished ends by itself.

Owns: what the two headers ask for, what is agreed, and when a session is refreshed or over. Refuses to know: how a refresh is
sent, what a BYE looks like.

Specification: RFC 4028 (sections 4, 5, 7, 9 and 10).

Theory of operation: every 2xx to an INVITE or UPDATE, whoever asked, agrees anew on an interval and on who refreshes. The one
who does sends a refresh when half of the interval is over; the other one waits until shortly before its end. Nobody has
refreshed by then: the session is over. Nothing is asked of a peer that does not know session timers and whose
proxies do not either: refreshing an old telephone's calls might end them, and silence ends the recording of a ghost. A header that cannot be read counts as absent: a caller is not turned away for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aftertone.sip.builder import Fields
from aftertone.sip.faults import ParseError
from aftertone.sip.headers import parse_number, parse_params
from aftertone.sip.message import Request, Response
from aftertone.sip.settings import SECOND_NS, AgentSettings

if TYPE_CHECKING:
    from aftertone.sip.dialog import Dialog

TAG: Final = "timer"
SMALLEST_S: Final = 90
"""No interval may be shorter (section 5)."""
LARGEST_S: Final = 2**31 - 1
MARGIN_S: Final = 32
"""A session ends this much before its interval, or a third of it when that is less (section 10)."""
RETRY_NS: Final = 10 * SECOND_NS
"""A refresh that failed without ending the call is tried again after half of what is left, and not sooner than this."""
EXPIRED: Final = (("Reason", 'SIP;cause=408;text="Session timer expired"'),)


@dataclass(frozen=True, slots=True)
class Interval:
    """A Session-Expires header."""

    seconds: int
    refresher: str = ""
    """``uac`` or ``uas`` of the request it belongs to; empty leaves it to the answer."""

    def field(self) -> tuple[str, str]:
        """Return the header."""
        return "Session-Expires", f"{self.seconds}{f';refresher={self.refresher}' if self.refresher else ''}"


def read_interval(message: Request | Response) -> Interval | None:
    """Return what a message says of the session's interval, None when it says nothing that can be read."""
    text, semicolon, tail = message.get("session-expires").partition(";")
    try:
        refresher = (parse_params(tail).get("refresher") or "").lower() if semicolon else ""
        return Interval(parse_number(text.strip(), LARGEST_S), refresher if refresher in ("uac", "uas") else "")
    except ParseError:
        return None


def read_minimum(message: Request | Response) -> int:
    """Return the shortest interval that a message allows."""
    try:
        return max(SMALLEST_S, parse_number(message.get("min-se").partition(";")[0].strip(), LARGEST_S))
    except ParseError:
        return SMALLEST_S


def too_short(request: Request, settings: AgentSettings) -> Fields | None:
    """Return the headers of the 422 for an interval that is too short, None when it will do (section 9).

    A peer that does not know session timers could make nothing of a 422: some proxy asked, and gets our own interval.
    """
    asked = read_interval(request)
    if asked is None or asked.seconds >= settings.min_se_s or not _supports(request):
        return None
    return (("Min-SE", str(settings.min_se_s)),)


def agree(request: Request, settings: AgentSettings, before: SessionTimer | None = None) -> Interval | None:
    """Return what our 2xx to a request of the peer says; None leaves the session without a limit (section 9).

    ``before``: what holds in the dialog. A request that says nothing of timers does not end it; we refresh then.
    """
    asked, ours, supports = read_interval(request), settings.session_expires_s, _supports(request)
    longest = max(ours, settings.min_se_s, read_minimum(request)) if ours else LARGEST_S
    if asked is not None:
        seconds = max(min(asked.seconds, longest), settings.min_se_s)
    elif ours and supports:
        seconds = longest
    elif before is not None:
        seconds = before.interval_s
    else:
        return None
    if not supports:
        return Interval(seconds, "uas")
    return Interval(seconds, asked.refresher if asked is not None and asked.refresher else "uac")


def answer_fields(agreed: Interval) -> Fields:
    """Return the headers of our 2xx; a peer that is to refresh must know how (section 9)."""
    return (agreed.field(), ("Require", TAG)) if agreed.refresher == "uac" else (agreed.field(),)


def request_fields(settings: AgentSettings, timer: SessionTimer | None, minimum_s: int = 0) -> Fields:
    """Return the headers of an INVITE or UPDATE of ours (sections 7.1 and 7.4). ``minimum_s`` is what a 422 asked for."""
    if timer is not None:
        interval = Interval(max(timer.interval_s, minimum_s), "uac" if timer.we_refresh else "uas")
    elif settings.session_expires_s:
        interval = Interval(max(settings.session_expires_s, minimum_s))
    else:
        return ()
    least_s = max(settings.min_se_s, minimum_s)
    return (interval.field(), ("Min-SE", str(least_s))) if least_s > SMALLEST_S else (interval.field(),)


def _supports(request: Request) -> bool:
    return TAG in request.words("supported") or TAG in request.words("require")


@dataclass(eq=False, slots=True)
class SessionTimer:
    """The interval that runs in one dialog."""

    dialog: Dialog
    interval_s: int
    we_refresh: bool
    end_ns: int = 0
    refresh_ns: int = 0

    def restart(self, now_ns: int) -> None:
        """The session was refreshed: begin a new interval."""
        self.refresh_ns = now_ns + self.interval_s * SECOND_NS // 2
        self.end_ns = now_ns + (self.interval_s - min(MARGIN_S, self.interval_s // 3)) * SECOND_NS

    def deadline_ns(self) -> int:
        """Return when something is to be done next."""
        return min(self.refresh_ns, self.end_ns) if self.we_refresh else self.end_ns

    def postpone(self, now_ns: int) -> None:
        """A refresh is on its way: look again later, in case it fails."""
        self.refresh_ns = now_ns + max(RETRY_NS, (self.end_ns - now_ns) // 2)
