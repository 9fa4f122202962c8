"""The line's TLS: which certificate, where it comes from, and what an operator hears of it.

Owns: the certificate that a machine makes for itself, the look at it once a second, and the alarm. Refuses to know: handshakes
(``net.tls``), calls.

Theory of operation: without TLS in the settings there is only what connections of ours need. With it, the operator's files are
used, or a pair of our own in the data folder. Nothing that is wrong with them keeps the line from taking calls: it is said,
and tried again.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from aftertone.config.sip import Sip
from aftertone.errors import StorageError
from aftertone.files import OsFiles
from aftertone.net.addresses import WILDCARDS, local_host_towards
from aftertone.net.certificate import CERTIFICATE, KEY, own_certificate
from aftertone.net.tls import Tls, local_names

FOLDER: Final = "tls"
"""In the data folder: ``certificate.pem`` and ``key.pem``."""
ENDS_SOON: Final = timedelta(days=10)
"""Renewals that work by themselves come a month before the end."""
BEYOND: Final = (("192.0.2.1", 5060), ("2001:db8::1", 5060))
"""Addresses beyond every network of ours: the route to them tells our own address. Nothing is sent there."""


class Encryption:
    """The certificate of one line. ``tls`` is for its endpoint."""

    def __init__(self, sip: Sip, root: Path, logger: Any) -> None:
        """``root``: the data folder. Raises ConfigError when ``sip.tls_authorities`` cannot be read."""
        self._sip, self._folder, self._logger = sip, root / FOLDER, logger
        self._told = ""
        self._own = sip.tls and sip.tls_certificate is None
        certificate, key = sip.tls_certificate, sip.tls_key
        if self._own:
            certificate, key = self._folder / CERTIFICATE, self._folder / KEY
            self._unmade = self._make()
        else:
            self._unmade = ""
        self.tls = Tls(
            certificate if sip.tls else None,
            key if sip.tls else None,
            authorities=sip.tls_authorities,
            verify=sip.tls_verify,
            shown=not self._own,
        )
        self._tell()

    def look(self) -> None:
        """See whether the certificate has changed, and make a missing one of our own; once a second."""
        if self._unmade:
            self._unmade = self._make()
        if self.tls.look():
            self._logger.info("the certificate for TLS is in use", ends=str(self.tls.ends))
        self._tell()

    def alarm(self, now: datetime | None) -> str:
        """Return what is wrong with TLS, for the desk; nothing when all is well. ``now``: None when the clock is not trusted."""
        if self._fault():
            kept = "the one before it is shown" if self.tls.server is not None else "TLS connections are refused"
            return f"{self._fault()}; until that is mended {kept}"
        ends = self.tls.ends
        if ends is not None and now is not None and ends - now.astimezone(UTC) < ENDS_SOON:
            return f"The certificate for TLS ends on {ends:%Y-%m-%d %H:%M} UTC: renew {self._sip.tls_certificate}"
        return ""

    def _fault(self) -> str:
        return self._unmade or self.tls.fault

    def _tell(self) -> None:
        fault = self._fault()
        if fault and fault != self._told:
            self._logger.error("the certificate for TLS cannot be used", error=fault)
        self._told = fault

    def _make(self) -> str:
        hosts = [host for host in self._sip.hosts if host not in WILDCARDS]
        if len(hosts) < len(self._sip.hosts):
            hosts += [local_host_towards(far) for far in BEYOND]
        if self._sip.public_address:
            hosts.append(self._sip.public_address)
        try:
            own_certificate(OsFiles(), self._folder, local_names(hosts, socket.gethostname()))
        except StorageError as error:
            return str(error)
        return ""
