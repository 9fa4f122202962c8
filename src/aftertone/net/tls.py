"""TLS for SIP: our certificate and its renewal, and whom we believe.

Owns: the two contexts, the look at files that may have changed, and whether a certificate stands for a host. Refuses to know:
connections, SIP messages.

Specification: RFC 5922 sections 4 and 7, RFC 3261 section 26.3.1; RFC 8446 and RFC 5246, nothing older.

Theory of operation: the files are looked at once a second. When they have changed and make a working pair, connections that
come from then on see the new certificate; those that live keep theirs. A pair that does not work changes nothing, and is
told of when it still does not work at the next look, since certificate and key are rarely written in one moment.
A server's certificate must come from an authority that we trust, and then stand for the host that was asked for.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from aftertone.errors import ConfigError

_Stamps = tuple[tuple[int, int, int], ...]

MAX_NAMES: Final = 256
"""Names of a peer's certificate that are compared."""


class Tls:
    """The certificate that we show and the authorities that we trust. One thread."""

    def __init__(
        self,
        certificate: Path | None = None,
        key: Path | None = None,
        *,
        authorities: Path | None = None,
        verify: bool = True,
        shown: bool = False,
    ) -> None:
        """Load everything; without a certificate only connections of our own can be opened.

        ``shown``: show it also to servers that ask for one; for a certificate that an authority gave. A certificate that
        cannot be used is a ``fault`` and no error: phones without TLS go on, and ``look`` tries again. Raises ConfigError for
        authorities that cannot be read.
        """
        self.fault = ""
        """Why no certificate, or not the newest one, is shown; empty when all is well."""
        self.ends: datetime | None = None
        """When the certificate that is shown ends."""
        self.server: ssl.SSLContext | None = None
        """For connections that come; None until there is a certificate that works."""
        self.client = client_context(authorities, verify=verify)
        self.verify = verify
        self._certificate, self._key = certificate, key
        self._shown = shown
        self._seen: _Stamps = ()
        self._tried = self._stamps()
        self.look()

    def look(self) -> bool:
        """Take a changed certificate into use; return True when that happened. Call it about once a second."""
        if self._certificate is None or self._key is None:
            return False
        stamps = self._stamps()
        if stamps == self._seen:
            self.fault = ""
            return False
        try:
            self._load(self._certificate, self._key)
        except (OSError, ValueError) as error:
            # The first time it may be half a renewal.
            if stamps == self._tried:
                self.fault = _explain(self._certificate, self._key, error)
            self._tried = stamps
            return False
        self._seen, self.fault = stamps, ""
        return True

    def accepts(self, certificate: Mapping[str, Any] | None, host: str) -> bool:
        """Return whether a peer with this certificate (``SSLSocket.getpeercert``) may be ``host``."""
        return not self.verify or (bool(certificate) and stands_for(certificate or {}, host))

    def _load(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.load_cert_chain(certificate, key, password=_no_password)
        ends = _end_of(certificate)
        if self._shown:
            self.client.load_cert_chain(certificate, key, password=_no_password)
        self.server, self.ends = context, ends

    def _stamps(self) -> _Stamps:
        return tuple(_stamp(path) for path in (self._certificate, self._key) if path is not None)


def client_context(authorities: Path | None, *, verify: bool) -> ssl.SSLContext:
    """Return the context for connections that we open. Raises ConfigError for a file that holds no certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The host is compared by ``stands_for``, which knows the names that SIP servers have.
    context.check_hostname = False
    if not verify:
        context.verify_mode = ssl.CERT_NONE
        return context
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{authorities} (`sip.tls_authorities`) holds no certificates that can be read: {error}"
            ) from None
    return context


def stands_for(certificate: Mapping[str, Any], host: str) -> bool:
    """Return whether a certificate, already found to be genuine, stands for a host: a name, or an address literal.

    A SIP URI among its names counts before its DNS names (RFC 5922 section 7.1). Unlike section 7.2, ``*`` stands for one
    first label of a DNS name: providers have such certificates. The common name never counts.
    """
    names = tuple(certificate.get("subjectAltName", ()))[:MAX_NAMES]
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        address = None
    if address is not None:
        return any(kind == "IP Address" and _address(value) == address for kind, value in names)
    wanted = host.rstrip(".").lower()
    if not wanted:
        return False
    uris = [domain for kind, value in names if kind == "URI" and (domain := _domain(value))]
    if uris:
        return wanted in uris
    return any(kind == "DNS" and _matches(value, wanted) for kind, value in names)


def local_names(hosts: Iterable[str], hostname: str) -> list[str]:
    """Return what a certificate of our own should stand for: the machine's name and the addresses that it listens on."""
    return [name for name in dict.fromkeys([hostname, *hosts]) if name and name not in ("0.0.0.0", "::")]  # noqa: S104


def _domain(uri: str) -> str:
    """Return the domain of a SIP URI without a user (RFC 5922 section 7.1), or nothing."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() not in ("sip", "sips") or "@" in rest:
        return ""
    return rest.partition(";")[0].partition("?")[0].rstrip(".").lower()


def _matches(pattern: str, wanted: str) -> bool:
    pattern = pattern.rstrip(".").lower()
    if not pattern.startswith("*."):
        return pattern == wanted
    label, dot, rest = wanted.partition(".")
    return bool(label and dot) and "." in rest and rest == pattern[2:]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip())
    except ValueError:
        return None


def _end_of(certificate: Path) -> datetime:
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size


def _no_password() -> str:
    """Refuse an encrypted key: OpenSSL would ask at the terminal, and nobody is there."""
    raise ValueError("the key is encrypted, and nobody is there to type its password")


def _explain(certificate: Path, key: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the certificate {certificate} with the key {key} cannot be used for TLS: {reason}"
