"""Proving who we are inside a call, when our own request there is challenged.

Owns: whether such a challenge is answered at all, and the credentials of one dialog. Refuses to know: requests and when they are sent
again (``client``, ``own_offers``), and which account a call came by (the application says that).

Specification: RFC 3261 sections 22.2 and 22.3; RFC 7616 sections 5.9 to 5.11 (what an answer gives away).

Theory of operation: an answer to a challenge lets its reader guess at the password in peace, and in a call the other side may be
anybody. So a proof is given only when the application vouches for who asks: the next hop for a 407, which is a proxy's word, and
the place that the other side named as its own (Contact), with no proxy before it, for a 401, which is the word of the end. It
answers only what the registrar has asked for as well, no weaker (``DigestClient.for_dialog``). Each dialog learns for itself: a
challenge that somebody made up changes nothing for the registration or for other calls. What was learned authorises later requests
before anybody asks, on the same condition. A refused answer is the end of it: the dialog answers no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aftertone.sip.builder import Fields
from aftertone.sip.digest_client import AuthenticationError, DigestClient, NoChallengeError
from aftertone.sip.faults import ParseError
from aftertone.sip.flow import Flow
from aftertone.sip.message import Response
from aftertone.sip.uri import parse_uri

MAX_IN_A_ROW: Final = 4
"""Challenges in a dialog that are answered before a request passes: a proxy's, the end's, and a stale nonce of each."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login for one dialog, and who may ask for it."""

    client: Callable[[], DigestClient]
    """Called at the first challenge; what it returns belongs to this dialog."""
    serves: Callable[[Flow, str], bool]
    """Whether a challenge may be answered that comes by way of a flow, in the name of a host."""


class Proof:
    """The credentials of one dialog."""

    def __init__(self, login: Login, known: DigestClient | None = None) -> None:
        """``known``: a client that was asked before the dialog began, by whom the login serves."""
        self._login = login
        self._client = known
        self._in_a_row = 0
        self._spent = False
        self._by_end = False
        """The other side itself has asked, so what is said is meant for it."""

    def fields(self, method: str, uri: str, body: bytes, flow: Flow) -> tuple[tuple[str, str], ...]:
        """Return the header fields that authorise a request over ``flow``; none before a challenge."""
        readers = (flow.remote[0], _host_of(uri)) if self._by_end else (flow.remote[0],)
        if self._client is None or self._spent or not all(self._login.serves(flow, host) for host in readers):
            return ()
        return self._client.authorize(method, uri, body)

    def mends(self, response: Response, said: Fields, flow: Flow, target: str) -> bool:
        """Take the answer to a request; return whether it is a challenge and the request may pass when it is sent again.

        ``said``: what ``fields`` returned for it. ``flow``: where it went. ``target``: URI of the other side, empty behind proxies.
        """
        if response.status not in (401, 407):
            self._in_a_row = 0
            if self._client is not None:
                self._client.accepted()
            return False
        asker = flow.remote[0] if response.status == 407 else _host_of(target)
        if self._spent or self._in_a_row >= MAX_IN_A_ROW or not asker or not self._login.serves(flow, asker):
            return False
        self._client = self._client or self._login.client()
        try:
            self._client.challenged(response, said)
        except NoChallengeError:
            return False
        except AuthenticationError:
            self._spent = True
            return False
        self._in_a_row += 1
        self._by_end = self._by_end or response.status == 401
        return True


def _host_of(uri: str) -> str:
    try:
        return parse_uri(uri).host.strip("[]").lower()
    except ParseError:
        return ""
