"""Secrecy: what the settings want of each call's encryption, and what is said about it.

Owns: the policy of a call, the word about keys that travelled readably and about sound that no key opened. Refuses to know: keys, packets, descriptions.

Theory of operation: the policy is the setting ``sip.srtp``, unless the account or trunk of a call has one of its own. Keys by SDES
are text in SIP, so whoever reads the signalling can listen. That is said once, not in each call, since nobody can change it
for a single one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from aftertone.sdp.crypto import Policy, Secrecy
from aftertone.sdp.negotiation import MediaPlan
from aftertone.sip.flow import Flow

NOTABLE_PACKETS: Final = 25
"""Half a second of sound that no key opens is more than a stray packet."""
ALARM_STAYS_S: Final = 3600.0
"""Somebody should see that a caller was not heard, and messages are not looked at every five minutes."""


class Secrecies:
    """The encryption of one line's calls. Everything happens on the event loop's thread."""

    def __init__(
        self, policy: Policy, entropy: Callable[[int], bytes], logger: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._policy, self._entropy, self._logger = policy, entropy, logger
        self._told = False
        self._deaf: tuple[float, str] | None = None

    def wanted(self, agreed: MediaPlan | None = None, own: Policy | None = None) -> Secrecy:
        """Return what a description is to be like: ``agreed`` holds in the call so far, ``own`` is its account's policy."""
        return Secrecy(own or self._policy, self._entropy, agreed.keys if agreed is not None else None)

    def offered(self, agreed: MediaPlan | None = None, own: Policy | None = None) -> Secrecy | None:
        """Return what an offer of ours is to be like: it has keys where they are required or held before.

        Elsewhere "optional" means that a caller's keys are taken: some peers refuse an offer over keys that they did not ask for.
        """
        secrecy = self.wanted(agreed, own)
        return secrecy if secrecy.policy == "required" or secrecy.agreed is not None else None

    def takes_plain(self, own: Policy | None = None) -> bool:
        """Tell whether plain sound is better than none in a call with keys: where nobody required them."""
        return (own or self._policy) != "required"

    def unheard(self, peer: str) -> None:
        """A recording ended in which nothing could be heard although sound came."""
        self._deaf = (time.monotonic(), peer)

    def alarms(self) -> list[dict[str, str]]:
        """Return the alarm about callers who could not be heard, if there was one of late."""
        if self._deaf is None or time.monotonic() - self._deaf[0] > ALARM_STAYS_S:
            return []
        text = (
            f"The sound of a call from {self._deaf[1]} could not be opened: it was encrypted with another key than the one that was "
            'agreed on, or not at all although sip.srtp requires it. Until that is mended, sip.srtp = "off" lets its calls be heard'
        )
        return [{"code": "unopened_sound", "text": text}]

    def note(self, plan: MediaPlan | None, flow: Flow) -> None:
        """Say once, if this call's keys could be read on the way, what that means."""
        if self._told or plan is None or plan.keys is None or flow.transport == "TLS":
            return
        self._told = True
        self._logger.info(
            "keys for SRTP came over a transport that is not encrypted: they protect the sound only from those who cannot "
            "read the signalling; use TLS (sip.tls) for more",
            transport=flow.transport,
        )


def suite_of(plan: MediaPlan | None) -> str:
    """Return the name of what a call's sound is encrypted with, empty when it is not."""
    return plan.keys.sending.suite.value if plan is not None and plan.keys is not None else ""
