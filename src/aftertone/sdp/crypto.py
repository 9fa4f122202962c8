"""Keys in session descriptions: ``a=crypto`` lines as values, and the choice among those that are offered.

Owns: the text of SDES, which offered line we take, what we answer. Refuses to know: what a suite does with a key, streams and
profiles, and how a text that is kept is freed of its keys (``sip.trace``). The randomness of keys comes in.

Theory of operation: a line says with which suite and key its writer protects what *it* sends, and numbers that by a tag. An
answer repeats tag and suite of the one line that it takes, with a key of its own. A line that we cannot take as a whole is
passed over, as RFC 4568 section 5.1.2 wants: an unknown suite or key method, more than one key, a key of the wrong length, a
lifetime that a long message could use up, a session parameter that changes the packets (no encryption, no authentication, FEC,
key derivation rate) or that we do not know and that is not marked as ignorable by ``-``. ``WSH``, a hint about the replay
window, changes nothing. Nothing here raises because of what a peer wrote, and each line is read once.

An identifier of the key (MKI) is taken, and given back with our key: what a peer puts into its packets it expects in ours, since
common libraries have one switch for both directions.

Spec: RFC 4568 sections 4, 5.1, 6 and 9; suites of RFC 6188 and RFC 7714.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from aftertone.model import MAX_MKI_BYTES, MasterKey, Suite
from aftertone.sdp.description import Attribute, decimal

Policy = Literal["off", "optional", "required"]
"""Whether sound is encrypted: never, when the peer offers it, or always."""

NAME: Final = "crypto"
MAX_LINES: Final = 32
"""Lines of one stream that are read. Telephones offer up to a dozen, best first."""
MAX_LINE: Final = 1024
MAX_TAG: Final = 999_999_999
SHORTEST_LIFETIME: Final = 1 << 20
"""Packets that a key must be good for: nearly three hours at 100 a second. Peers write 2^20, 2^31 or 2^48."""
LONGEST_LIFETIME: Final = 1 << 48
"""More is no lifetime of a key (RFC 4568 section 6.1), and the line is invalid."""
SMALLEST_WINDOW: Final = 64

OFFERED: Final = (Suite.AES_256_GCM, Suite.AES_128_GCM, Suite.AES_128_CM_80, Suite.AES_256_CM_80, Suite.AES_128_CM_32)
"""What we offer, best first. 128 bits of counter mode come before 256, since every peer has them right (RFC 4568 section 6.2)."""
_RANK: Final = {
    Suite.AES_256_GCM: 0,
    Suite.AES_128_GCM: 0,
    Suite.AES_256_CM_80: 1,
    Suite.AES_128_CM_80: 1,
    Suite.AES_256_CM_32: 2,
    Suite.AES_128_CM_32: 2,
}
"""Our preference; among equals the order of the offer decides."""
_SUITES: Final = {suite.value.upper(): suite for suite in Suite}


@dataclass(frozen=True, slots=True)
class Keys:
    """What both sides of a call have agreed on."""

    sending: MasterKey
    receiving: MasterKey
    profile: str
    """The protocol of the stream's ``m=`` line that they were agreed under."""


@dataclass(frozen=True, slots=True)
class Secrecy:
    """What is wanted of one description, and what it takes."""

    policy: Policy
    entropy: Callable[[int], bytes] = field(repr=False)
    """Returns that many random bytes, for keys."""
    agreed: Keys | None = None
    """What holds in the call so far: a peer that offers its key again gets ours again."""


@dataclass(frozen=True, slots=True)
class CryptoLine:
    """One ``a=crypto`` line that we understand."""

    tag: int
    master: MasterKey


def parse_line(value: str) -> CryptoLine | None:
    """Read the value of an ``a=crypto`` attribute; None for one that cannot be taken."""
    fields = value.split() if len(value) <= MAX_LINE else []
    if len(fields) < 3:
        return None
    tag, suite = decimal(fields[0], MAX_TAG), _SUITES.get(fields[1].upper())
    if tag is None or suite is None or not all(_is_harmless(parameter) for parameter in fields[3:]):
        return None
    master = _parse_key(suite, fields[2])
    return None if master is None else CryptoLine(tag, master)


def parse_lines(attributes: Iterable[Attribute]) -> tuple[CryptoLine, ...]:
    """Return those of a stream's ``a=crypto`` lines that can be taken, in their order."""
    values = [value for name, value in attributes if name == NAME][:MAX_LINES]
    return tuple(line for line in map(parse_line, values) if line is not None)


def choose(lines: Sequence[CryptoLine]) -> CryptoLine | None:
    """Return the line to take: GCM, else 80 bits of authentication, else 32; the first of its kind."""
    return min(lines, key=lambda line: _RANK[line.master.suite], default=None)


def answer_line(offered: CryptoLine, secrecy: Secrecy) -> CryptoLine:
    """Return the line that takes ``offered``, with a fresh key of ours: same tag, suite and identifier.

    A peer that offers the key that it has already is not asked to change ours either (RFC 4568 section 7.1.4).
    """
    suite, agreed = offered.master.suite, secrecy.agreed
    if agreed is not None and agreed.receiving == offered.master:
        return CryptoLine(offered.tag, agreed.sending)
    key, salt = secrecy.entropy(suite.key_bytes), secrecy.entropy(suite.salt_bytes)
    return CryptoLine(offered.tag, MasterKey(suite, key, salt, offered.master.mki))


def offer_lines(secrecy: Secrecy, suites: Sequence[Suite] = OFFERED) -> tuple[CryptoLine, ...]:
    """Return lines to offer, tagged from 1 on, each with a key of its own; the one key that holds where there is one."""
    if secrecy.agreed is not None:
        return (CryptoLine(1, secrecy.agreed.sending),)
    entropy = secrecy.entropy
    return tuple(
        CryptoLine(tag, MasterKey(suite, entropy(suite.key_bytes), entropy(suite.salt_bytes)))
        for tag, suite in enumerate(suites, start=1)
    )


def accepted(offered: Sequence[CryptoLine], answered: Iterable[CryptoLine]) -> tuple[MasterKey, MasterKey] | None:
    """Return our key and the peer's when a line of its answer takes one of ours; None when none does."""
    ours = {(line.tag, line.master.suite): line.master for line in offered}
    for line in answered:
        found = ours.get((line.tag, line.master.suite))
        if found is not None:
            return found, line.master
    return None


def serialize_line(line: CryptoLine) -> Attribute:
    """Return ``line`` as an attribute."""
    master = line.master
    secret = base64.b64encode(master.key + master.salt).decode("ascii")
    identifier = f"|{int.from_bytes(master.mki, 'big')}:{len(master.mki)}" if master.mki else ""
    return NAME, f"{line.tag} {master.suite} inline:{secret}{identifier}"


def _parse_key(suite: Suite, text: str) -> MasterKey | None:
    method, _, rest = text.partition(":")
    secret, *options = rest.split("|")
    if method.lower() != "inline" or ";" in rest or len(options) > 2:
        return None
    decoded = _decode(secret)
    if decoded is None or len(decoded) != suite.key_bytes + suite.salt_bytes:
        return None
    mki = b""
    for place, option in enumerate(options):
        if ":" in option:
            identifier = _parse_mki(option)
            if identifier is None or place != len(options) - 1:
                return None
            mki = identifier
        elif place != 0 or not _is_long_life(option):
            return None
    return MasterKey(suite, decoded[: suite.key_bytes], decoded[suite.key_bytes :], mki)


def _decode(text: str) -> bytes | None:
    # Some peers leave the padding away.
    bare = text.rstrip("=")
    if not bare.isascii() or len(text) - len(bare) > 2:
        return None
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error:
        return None


def _parse_mki(text: str) -> bytes | None:
    """Read ``value:length`` (RFC 4568 section 6.1): a number, and the bytes that it takes in a packet."""
    value, _, length = text.partition(":")
    size = decimal(length, MAX_MKI_BYTES)
    if not size or not value.isascii() or not value.isdigit() or len(value) > 3 * MAX_MKI_BYTES:
        return None
    try:
        return int(value).to_bytes(size, "big")
    except OverflowError:
        return None


def _is_long_life(text: str) -> bool:
    if text.startswith("2^"):
        power = decimal(text[2:], 48)
        lifetime = 0 if power is None else 1 << power
    else:
        lifetime = decimal(text, LONGEST_LIFETIME) or 0
    return SHORTEST_LIFETIME <= lifetime <= LONGEST_LIFETIME


def _is_harmless(parameter: str) -> bool:
    if parameter.startswith("-"):
        return True
    name, _, value = parameter.partition("=")
    return name.upper() == "WSH" and (decimal(value, 2**31) or 0) >= SMALLEST_WINDOW
