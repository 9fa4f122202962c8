"""Offers and answers with keys: which stream is taken under which policy, and what the answer says."""

from __future__ import annotations

import base64

import pytest

from aftertone.model import Codec, MasterKey, Suite
from aftertone.sdp.crypto import Policy, Secrecy
from aftertone.sdp.description import parse
from aftertone.sdp.negotiation import MediaPlan, NotAcceptable, answer, offer, plan_from_answer

KEY = bytes(range(30))
THEIRS = MasterKey(Suite.AES_128_CM_80, KEY[:16], KEY[16:])
LINE = f"a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(KEY).decode()}"
UNKNOWN = f"a=crypto:1 F8_128_HMAC_SHA1_80 inline:{base64.b64encode(KEY).decode()}"


def _entropy(size: int) -> bytes:
    return b"u" * size


def _offer(*lines: str) -> bytes:
    head = ["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0"]
    return "\r\n".join([*head, *lines, ""]).encode()


def _answer(data: bytes, policy: Policy, secrecy: Secrecy | None = None) -> tuple[bytes, MediaPlan]:
    return answer(
        data,
        local_host="198.51.100.7",
        local_port=20000,
        session_id=1,
        version=1,
        secrecy=secrecy or Secrecy(policy, _entropy),
    )


def _our_offer(policy: Policy) -> bytes:
    return offer(
        local_host="198.51.100.7",
        local_port=20000,
        session_id=1,
        version=1,
        codecs=(Codec.PCMU,),
        secrecy=Secrecy(policy, _entropy),
    )


PLAIN = ("m=audio 4000 RTP/AVP 0",)
SECURE = ("m=audio 4000 RTP/SAVP 0", LINE)
FEEDBACK = ("m=audio 4000 RTP/SAVPF 0", UNKNOWN, LINE)
OPPORTUNE = ("m=audio 4000 RTP/AVP 0", LINE)
BOTH = ("m=audio 4000 RTP/AVP 0", "m=audio 4002 RTP/SAVP 0", LINE)
NO_KEY = ("m=audio 4000 RTP/SAVP 0", UNKNOWN)
DTLS = ("m=audio 4000 UDP/TLS/RTP/SAVP 0", LINE)


@pytest.mark.parametrize(
    ("lines", "policy", "taken"),
    [
        (PLAIN, "off", ["RTP/AVP"]),
        (PLAIN, "optional", ["RTP/AVP"]),
        (PLAIN, "required", None),
        (SECURE, "off", None),
        (SECURE, "optional", ["RTP/SAVP*"]),
        (SECURE, "required", ["RTP/SAVP*"]),
        (FEEDBACK, "optional", ["RTP/SAVPF*"]),
        (OPPORTUNE, "off", ["RTP/AVP"]),
        (OPPORTUNE, "optional", ["RTP/AVP*"]),
        (OPPORTUNE, "required", ["RTP/AVP*"]),
        (BOTH, "off", ["RTP/AVP", ""]),
        (BOTH, "optional", ["", "RTP/SAVP*"]),
        (BOTH, "required", ["", "RTP/SAVP*"]),
        (NO_KEY, "optional", None),
        ((*PLAIN, UNKNOWN), "optional", ["RTP/AVP"]),
        ((*PLAIN, UNKNOWN), "required", None),
        (DTLS, "optional", None),
        (("m=audio 4000 RTP/SAVP 18", LINE, *PLAIN), "optional", ["", "RTP/AVP"]),
        (("m=audio 0 RTP/SAVP 0", LINE, *PLAIN), "optional", ["", "RTP/AVP"]),
    ],
)
def test_which_stream_is_taken_and_whether_encrypted(
    lines: tuple[str, ...], policy: Policy, taken: list[str] | None
) -> None:
    """A profile for each stream that is answered with a port; the asterisk means: with a key."""
    if taken is None:
        with pytest.raises(NotAcceptable):
            _answer(_offer(*lines), policy)
        return
    body, plan = _answer(_offer(*lines), policy)
    streams = parse(body).media
    found = [f"{s.protocol}{'*' if s.attribute('crypto') else ''}" if s.port else "" for s in streams]
    assert found == taken
    assert (plan.keys is not None) is any(protocol.endswith("*") for protocol in taken)


def test_the_text_and_the_keys_of_an_answer() -> None:
    body, plan = _answer(_offer(*SECURE), "optional")
    ours = base64.b64encode(b"u" * 30)
    assert b"a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:" + ours + b"\r\n" in body
    assert plan.keys is not None
    assert plan.keys.receiving == THEIRS
    assert plan.keys.sending == MasterKey(Suite.AES_128_CM_80, b"u" * 16, b"u" * 14)
    assert "uuuu" not in repr(plan)


def test_without_secrecy_nothing_is_encrypted() -> None:
    body, plan = answer(_offer(*OPPORTUNE), local_host="198.51.100.7", local_port=20000, session_id=1, version=1)
    assert plan.keys is None and b"crypto" not in body


def test_a_later_offer_with_the_same_key_keeps_ours_and_a_new_key_gets_a_new_one() -> None:
    _, first = _answer(_offer(*SECURE), "optional")
    later = Secrecy("optional", lambda size: b"n" * size, first.keys)
    assert _answer(_offer(*SECURE), "optional", later)[1].keys == first.keys
    other = LINE[:-8] + "AAAAAAAA"
    _, second = _answer(_offer("m=audio 4000 RTP/SAVP 0", other), "optional", later)
    assert second.keys is not None and second.keys.sending.key == b"n" * 16
    assert _answer(_offer(*PLAIN), "optional", later)[1].keys is None


@pytest.mark.parametrize(("policy", "profile"), [("required", "RTP/SAVP"), ("optional", "RTP/AVP"), ("off", "RTP/AVP")])
def test_an_offer_of_ours_and_its_answer(policy: Policy, profile: str) -> None:
    ours = _our_offer(policy)
    stream = parse(ours).media[0]
    assert stream.protocol == profile
    assert sum(name == "crypto" for name, _ in stream.attributes) == (0 if policy == "off" else 5)
    theirs, their_plan = _answer(ours, "optional", Secrecy("optional", lambda size: b"t" * size))
    plan = plan_from_answer(ours, theirs)
    if policy == "off":
        assert plan.keys is None and their_plan.keys is None
        return
    assert plan.keys is not None and their_plan.keys is not None
    assert plan.keys.sending == their_plan.keys.receiving and plan.keys.receiving == their_plan.keys.sending
    assert plan.keys.sending.suite is Suite.AES_256_GCM


def test_an_answer_without_a_key_takes_what_was_offered_in_a_plain_profile_only() -> None:
    bare = _offer("m=audio 4000 RTP/AVP 0")
    assert plan_from_answer(_our_offer("optional"), bare).keys is None
    with pytest.raises(NotAcceptable, match="none of the keys"):
        plan_from_answer(_our_offer("required"), bare)
    with pytest.raises(NotAcceptable, match="none of the keys"):
        plan_from_answer(_our_offer("required"), _offer("m=audio 4000 RTP/SAVP 0", UNKNOWN))
    with pytest.raises(NotAcceptable, match="none of the keys"):
        plan_from_answer(_our_offer("off"), _offer(*SECURE))


@pytest.mark.parametrize("lines", [SECURE, OPPORTUNE])
def test_a_later_offer_of_ours_keeps_key_and_profile(lines: tuple[str, ...]) -> None:
    _, first = _answer(_offer(*lines), "optional")
    later = Secrecy("optional", lambda size: b"n" * size, first.keys)
    again = offer(local_host="198.51.100.7", local_port=20000, session_id=1, version=2, secrecy=later)
    stream = parse(again).media[0]
    assert stream.protocol == parse(_offer(*lines)).media[0].protocol
    assert [value for name, value in stream.attributes if name == "crypto"] == [
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(b'u' * 30).decode()}"
    ]
