"""The ciphers of SRTP: session keys, and the sealing and opening of one packet whose index is known.

Owns: key derivation, nonces, what is encrypted and what is authenticated. Refuses to know: how an index is found, replays,
the layout of packets. All the arithmetic with keys is OpenSSL's, by the package ``cryptography``.

Theory of operation: one object holds the keys of one kind of packet in one direction, and its OpenSSL contexts, which are
made once, since making one costs more than a packet. The counter mode gets a new nonce for each packet, the HMAC begins as
a copy of one that has taken the key. Opening checks the tag, in constant time, before anything is decrypted. What is only
to be authenticated is sealed with an empty body.

Counter mode binds what does not stand in front of the tag, the rollover counter of RTP or the index word of RTCP, by taking it
into the HMAC. GCM has the counter in its nonce, and takes the index word as associated data.

Spec: RFC 3711 sections 4.1.1, 4.2 and 4.3; RFC 6188 (256 bits); RFC 7714 sections 8 and 9.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.hmac import HMAC

from aftertone.model import MasterKey, Suite

GCM_TAG_BYTES: Final = 16
LONG_TAG_BYTES: Final = 10
SHORT_TAG_BYTES: Final = 4
_AUTHENTICATION_KEY_BYTES: Final = 20
_SHORT: Final = frozenset({Suite.AES_128_CM_32, Suite.AES_256_CM_32})
_RTP_LABELS: Final = (0, 1, 2)
_RTCP_LABELS: Final = (3, 4, 5)
"""Of the cipher's key, the authentication key and the salt (RFC 3711 section 4.3.2)."""


class CounterTransform:
    """AES in counter mode with HMAC-SHA1. Belongs to one thread."""

    __slots__ = ("_authenticator", "_cipher", "_salt", "tag_bytes")
    is_gcm: Final = False

    def __init__(self, key: bytes, authentication_key: bytes, salt: bytes, tag_bytes: int) -> None:
        self.tag_bytes = tag_bytes
        self._salt = int.from_bytes(salt, "big") << 16
        self._cipher = Cipher(AES(key), CTR(bytes(16))).encryptor()
        # As RFC 3711 section 4.2.1 demands; that SHA-1 has collisions is nothing to an HMAC.
        self._authenticator = HMAC(authentication_key, SHA1())  # noqa: S303

    def seal(self, head: bytes, body: bytes, ssrc: int, index: int, bound: bytes) -> tuple[bytes, bytes]:
        """Return ``body`` encrypted, and the tag over ``head``, that, and ``bound``."""
        sealed = self._crypt(body, ssrc, index)
        return sealed, self._tag(head + sealed + bound)

    def open(self, head: bytes, sealed: bytes, tag: bytes, ssrc: int, index: int, bound: bytes) -> bytes | None:
        """Return ``sealed`` decrypted, or None when the tag does not fit."""
        if not hmac.compare_digest(self._tag(head + sealed + bound), tag):
            return None
        return self._crypt(sealed, ssrc, index)

    def _crypt(self, data: bytes, ssrc: int, index: int) -> bytes:
        self._cipher.reset_nonce((self._salt ^ ssrc << 64 ^ index << 16).to_bytes(16, "big"))
        return self._cipher.update(data)

    def _tag(self, data: bytes) -> bytes:
        authenticator = self._authenticator.copy()
        authenticator.update(data)
        return authenticator.finalize()[: self.tag_bytes]


class GcmTransform:
    """AES in Galois/counter mode."""

    __slots__ = ("_cipher", "_salt")
    is_gcm: Final = True
    tag_bytes: Final = GCM_TAG_BYTES

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._salt = int.from_bytes(salt, "big")
        self._cipher = AESGCM(key)

    def seal(self, head: bytes, body: bytes, ssrc: int, index: int, bound: bytes) -> tuple[bytes, bytes]:
        """Return ``body`` encrypted, and the tag over ``head``, ``bound`` and that."""
        sealed = self._cipher.encrypt(self._nonce(ssrc, index), body, head + bound)
        return sealed[:-GCM_TAG_BYTES], sealed[-GCM_TAG_BYTES:]

    def open(self, head: bytes, sealed: bytes, tag: bytes, ssrc: int, index: int, bound: bytes) -> bytes | None:
        """Return ``sealed`` decrypted, or None when the tag does not fit."""
        try:
            return self._cipher.decrypt(self._nonce(ssrc, index), sealed + tag, head + bound)
        except InvalidTag:
            return None

    def _nonce(self, ssrc: int, index: int) -> bytes:
        return (self._salt ^ ssrc << 48 ^ index).to_bytes(12, "big")


Transform = CounterTransform | GcmTransform


def rtp_transform(master: MasterKey) -> Transform:
    """Return what protects the RTP packets of ``master``'s direction."""
    return _transform(master, _RTP_LABELS, SHORT_TAG_BYTES if master.suite in _SHORT else LONG_TAG_BYTES)


def rtcp_transform(master: MasterKey) -> Transform:
    """Return what protects the RTCP packets; these keep 80 bits of tag in every suite (RFC 4568 section 6.2.2)."""
    return _transform(master, _RTCP_LABELS, LONG_TAG_BYTES)


def derive(master: MasterKey, label: int, size: int) -> bytes:
    """Return ``size`` bytes of session key, with a key derivation rate of 0.

    A salt of 12 bytes counts as one of 14 that ends with zeros. Spec: RFC 3711 section 4.3.1, RFC 7714 section 11.
    """
    salt = int.from_bytes(master.salt.ljust(14, b"\0"), "big")
    nonce = ((salt ^ label << 48) << 16).to_bytes(16, "big")
    return Cipher(AES(master.key), CTR(nonce)).encryptor().update(bytes(size))


def _transform(master: MasterKey, labels: tuple[int, int, int], tag_bytes: int) -> Transform:
    key = derive(master, labels[0], master.suite.key_bytes)
    salt = derive(master, labels[2], master.suite.salt_bytes)
    if master.suite.is_gcm:
        return GcmTransform(key, salt)
    return CounterTransform(key, derive(master, labels[1], _AUTHENTICATION_KEY_BYTES), salt, tag_bytes)
