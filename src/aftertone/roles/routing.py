"""Routing: what a request, its peer and the directory together say about a call.

Owns: the two places where they meet, the mailbox and the origin. Refuses to know: what each of them means on its own
(``sip.diversion``, ``sip.identity``, ``roles.peers``, ``voicemail.choice``).
"""

from __future__ import annotations

from aftertone.model import Origin
from aftertone.roles.peers import Peer, PeerKind
from aftertone.sip.diversion import Diversion, called_of
from aftertone.sip.identity import Claims, target_user
from aftertone.sip.message import Request
from aftertone.voicemail.choice import Choice, choose
from aftertone.voicemail.directory import Directory


def mailbox_of(directory: Directory, request: Request, peer: Peer) -> Choice | None:
    """Return whose mailbox an INVITE of ``peer`` is for and why, None when there is none for it."""
    named = ((called.user, called.header) for called in called_of(request))
    # Where we registered, calls ring a number of ours: whoever is not found by it must not hear that there is nobody.
    ours = peer.kind is PeerKind.ACCOUNT
    return choose(directory, named, user=target_user(request), rule=(peer.mailbox, peer.label), ours=ours)


def origin_of(peer: Peer, claims: Claims, diversion: Diversion | None) -> Origin:
    """Return by which way a call came, for its envelope."""
    return Origin(
        line_kind=peer.kind.value,
        line=peer.name,
        caller_header=claims.header,
        verstat=claims.verstat,
        diverted_by="" if diversion is None else diversion.by,
        divert_reason=None if diversion is None else diversion.reason,
    )
