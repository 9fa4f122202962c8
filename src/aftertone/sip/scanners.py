"""Programs that look for telephone systems to break into, as they introduce themselves.

Owns: the names of known ones. Refuses to know: what is done about them.

Theory of operation: most scanning is done with a few programs that nobody changed, and they say who they are: in User-Agent, in the
name of the caller, or by calling from an address that is nobody's telephone. Whoever hides is met by the budgets instead. An
answer, whatever it says, tells a scanner that there is something to come back for.
"""

from __future__ import annotations

from typing import Final

from aftertone.sip.faults import ParseError
from aftertone.sip.message import Request

AGENTS: Final = (
    "friendly-scanner",
    "sipvicious",
    "sip-scan",
    "sipscan",
    "sipsscuser",
    "siparmyknife",
    "vaxsipuseragent",
    "vaxasip",
    "sundayddr",
)
"""Parts of User-Agent, in lower case."""
SHORT_AGENTS: Final = ("sipcli", "pplsip", "smap", "iwar", "sivus", "gulp")
"""Beginnings of User-Agent: words that may stand in a telephone's name as well."""
CALLERS: Final = ("sipvicious", "friendly-scanner")
"""Parts of From, in lower case."""
NOWHERE: Final = ("@1.1.1.1",)
"""Hosts in From or To that a scanner writes because it has to write something."""
LONGEST: Final = 256
"""Characters of a header that are looked at; the names stand at the beginning."""


def scanner_of(request: Request) -> str:
    """Return by which name a request is known to be a scanner's, empty when it is not. Never raises."""
    agent = request.get("user-agent")[:LONGEST].lower()
    for name in AGENTS:
        if name in agent:
            return name
    for name in SHORT_AGENTS:
        if agent.startswith(name):
            return name
    for header in ("from", "to"):
        value = request.get(header)[:LONGEST].lower()
        for name in CALLERS:
            if name in value:
                return name
        if any(host in value for host in NOWHERE) and _host_of(request, header) == NOWHERE[0][1:]:
            return NOWHERE[0]
    return ""


def _host_of(request: Request, header: str) -> str:
    try:
        address = request.from_ if header == "from" else request.to
        return address.uri.partition("@")[2].partition(";")[0].partition(":")[0]
    except ParseError:
        return ""
