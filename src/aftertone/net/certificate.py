"""A certificate of our own, for a machine to which nobody gave one.

Owns: its key, its names, and where both lie. Refuses to know: who trusts it, and TLS.

Specification: RFC 5280 section 4.2.1.6 (names), RFC 5922 section 4 (which names stand for a SIP server).

Theory of operation: a P-256 key and a certificate that it signed itself, both written whole, the key first; either is made
again when it is missing, from the other where that is possible. The validity is fixed and long: at its first start a machine
may not know the time, and a phone that was told to trust this certificate must not lose it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aftertone.errors import StorageError
from aftertone.files import Files, make_directories, write_whole

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

NOT_BEFORE: Final = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER: Final = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The last moment that the short form of a time can say (RFC 5280 section 4.1.2.5); old phones know no other."""
MAX_NAMES: Final = 32

CERTIFICATE: Final = "certificate.pem"
KEY: Final = "key.pem"


def own_certificate(files: Files, folder: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """Return certificate and key in ``folder``, made for ``names`` (hosts and addresses) when they are not there.

    Both are durable on return, readable by their owner alone. Raises StorageError when they cannot be written or the key is
    none.
    """
    certificate, key = folder / CERTIFICATE, folder / KEY
    try:
        if certificate.exists() and key.exists():
            return certificate, key
        make_directories(files, folder)
        if not key.exists():
            write_whole(files, key, new_key())
        write_whole(files, certificate, self_signed(key.read_bytes(), names))
    except (OSError, ValueError) as error:
        raise StorageError(f"no certificate can be made in {folder}: {error}; see to the disk") from None
    return certificate, key


def new_key() -> bytes:
    """Return a fresh P-256 key, PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def self_signed(key_pem: bytes, names: Sequence[str]) -> bytes:
    """Return a certificate for ``names``, PEM, signed by its own key. Raises ValueError for a key that is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is not one that we made")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Aftertone")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        # Its own authority, so that a phone that is given this file trusts it; and it signs nothing further.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _general_names(names: Sequence[str]) -> list[GeneralName]:
    from cryptography import x509

    found: list[GeneralName] = []
    for name in dict.fromkeys([*names, "localhost"][:MAX_NAMES]):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name.partition("%")[0])))
        except ValueError:
            if name.isascii():
                found.append(x509.DNSName(name))
    return found
