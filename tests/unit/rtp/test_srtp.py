"""SRTP against the vectors of the standards and of libsrtp, and what must be refused."""

from __future__ import annotations

import pytest

from aftertone.model import MasterKey, Suite
from aftertone.rtp.replay import WINDOW, ReplayWindow
from aftertone.rtp.srtp import MOST_SOURCES, SrtpReceiver, SrtpSender, is_rtcp
from aftertone.rtp.transform import CounterTransform, GcmTransform, derive

EACH_SUITE = pytest.mark.parametrize("suite", list(Suite))
CM_KEY = MasterKey(
    Suite.AES_128_CM_80,
    bytes.fromhex("e1f97a0d3e018be0d64fa32c06de4139"),
    bytes.fromhex("0ec675ad498afeebb6960b3aabe6"),
)
"""RFC 3711 appendix B.3, and the key of libsrtp's own vectors."""


def key(suite: Suite, mki: bytes = b"") -> MasterKey:
    return MasterKey(suite, bytes(range(suite.key_bytes)), bytes(range(100, 100 + suite.salt_bytes)), mki)


def rtp(sequence: int, payload: bytes = b"sound" * 32, ssrc: int = 0xCAFE, first: int = 0x80) -> bytes:
    return bytes((first, 0)) + sequence.to_bytes(2, "big") + bytes(4) + ssrc.to_bytes(4, "big") + payload


def rtcp(ssrc: int = 0xCAFE, body: bytes = b"report" * 4) -> bytes:
    return bytes.fromhex("81c80007") + ssrc.to_bytes(4, "big") + body


class TestVectors:
    def test_rfc_3711_b2_keystream(self) -> None:
        transform = CounterTransform(
            bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"),
            bytes(20),
            bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfd"),
            10,
        )
        sealed, _ = transform.seal(b"", bytes(48), 0, 0, b"")
        assert sealed.hex() == (
            "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab41e95b3bb0a2e8dd477901e4fca894c0"
        )

    def test_rfc_3711_b3_key_derivation(self) -> None:
        assert derive(CM_KEY, 0, 16).hex() == "c61e7a93744f39ee10734afe3ff7a087"
        assert derive(CM_KEY, 2, 14).hex() == "30cbbc08863d8c85d49db34a9ae1"
        assert derive(CM_KEY, 1, 94).hex() == (
            "cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbcee049646c43d9327ad175578ef7227098"
            "6371c10c9a369ac2f94a8c5fbcdddc256d6e919a48b610ef17c2041e474035766b68642c59bbfc2f34db60dbdfb2"
        )

    def test_rfc_6188_key_derivation_with_256_bits(self) -> None:
        master = MasterKey(
            Suite.AES_256_CM_80,
            bytes.fromhex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6"),
            bytes.fromhex("3b04803de51ee7c96423ab5b78d2"),
        )
        assert derive(master, 0, 32).hex() == "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"
        assert derive(master, 2, 14).hex() == "fa31791685ca444a9e07c6c64e93"
        assert derive(master, 1, 20).hex() == "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"

    @pytest.mark.parametrize(
        ("key_bytes", "expected"),
        [
            (
                16,
                (
                    "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833"
                    "899d7f27beb16a9152cf765ee4390cce"
                ),
            ),
            (
                32,
                (
                    "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b"
                    "7aa3db36dfffd6b0f9bb7878d7a76c13"
                ),
            ),
        ],
    )
    def test_rfc_7714_16_rtp(self, key_bytes: int, expected: str) -> None:
        transform = GcmTransform(bytes(range(key_bytes)), b"Quid pro quo")
        head, body = bytes.fromhex("8040f17b8041f8d35501a0b2"), b"Gallia est omnis divisa in partes tres"
        sealed, tag = transform.seal(head, body, 0x5501A0B2, 0xF17B, b"")
        assert (sealed + tag).hex() == expected
        assert transform.open(head, sealed, tag, 0x5501A0B2, 0xF17B, b"") == body

    @pytest.mark.parametrize(
        ("key_bytes", "word", "expected"),
        [
            (
                16,
                "800005d4",
                (
                    "63e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275b"
                    "c84aa45896cf4d2fc5abf87245d9eade"
                ),
            ),
            (
                32,
                "800005d4",
                (
                    "d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad"
                    "1d1eb30c4446839f57ff6f6cb26ac3be"
                ),
            ),
            (16, "000005d4", "841dd9683dd78ec92ae58790125f62b3"),
            (32, "000005d4", "91db4afbfeee5a978fab4393ed2615fe"),
        ],
    )
    def test_rfc_7714_17_rtcp(self, key_bytes: int, word: str, expected: str) -> None:
        transform = GcmTransform(bytes(range(key_bytes)), b"Quid pro quo")
        packet = bytes.fromhex("81c8000d4d617273") + bytes.fromhex(
            "4e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef"
        )
        start = 8 if word.startswith("8") else len(packet)
        sealed, tag = transform.seal(packet[:start], packet[start:], 0x4D617273, 0x5D4, bytes.fromhex(word))
        assert (sealed + tag).hex() == expected

    @pytest.mark.parametrize(
        ("master", "expected"),
        [
            (CM_KEY, "4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb"),
            (
                MasterKey(Suite.AES_128_GCM, bytes(range(16)), bytes(range(0xA0, 0xAC))),
                "c5002ede04cfdd2eb91159e0880aa06ed2976826f796b201df3131a127e8a392",
            ),
        ],
    )
    def test_a_whole_packet_is_libsrtps(self, master: MasterKey, expected: str) -> None:
        packet = bytes.fromhex("800f1234decafbadcafebabe" + "ab" * 16)
        protected = packet[:12] + bytes.fromhex(expected)
        assert SrtpSender(master).protect(packet) == protected
        assert SrtpReceiver(master).open(protected) == packet

    def test_a_whole_report_is_libsrtps(self) -> None:
        protected = "81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798"
        opened = SrtpReceiver(CM_KEY).open_rtcp(bytes.fromhex(protected))
        assert opened == bytes.fromhex("81c8000bcafebabe" + "ab" * 16)


class TestPackets:
    @EACH_SUITE
    @pytest.mark.parametrize("mki", [b"", b"\x01", bytes(range(128))])
    def test_what_is_protected_comes_back_once(self, suite: Suite, mki: bytes) -> None:
        sender, receiver = SrtpSender(key(suite, mki)), SrtpReceiver(key(suite, mki))
        for packet in (rtp(7), rtp(8, b""), rtp(9, bytes(4) + b"\xbe\xde\x00\x01exts" + b"sound", first=0x91)):
            protected = sender.protect(packet)
            assert b"sound" not in protected
            assert receiver.open(protected) == packet
            assert receiver.open(protected) is None
        for _ in range(3):
            protected = sender.protect_rtcp(rtcp())
            assert b"report" not in protected
            assert receiver.open_rtcp(protected) == rtcp()
            assert receiver.open_rtcp(protected) is None

    @EACH_SUITE
    def test_a_report_may_be_authentic_without_being_encrypted(self, suite: Suite) -> None:
        master = key(suite, b"\x05")
        receiver = SrtpReceiver(master)
        transform, packet, word = receiver._rtcp, rtcp(), bytes(3) + b"\x09"
        _, tag = transform.seal(packet, b"", 0xCAFE, 9, word)
        parts = (packet, tag, word, b"\x05") if suite.is_gcm else (packet, word, b"\x05", tag)
        assert receiver.open_rtcp(b"".join(parts)) == packet

    @EACH_SUITE
    def test_sizes_of_tags(self, suite: Suite) -> None:
        sender = SrtpSender(key(suite))
        tag = 16 if suite.is_gcm else 4 if suite.endswith("_32") else 10
        assert len(sender.protect(rtp(1))) == len(rtp(1)) + tag
        assert len(sender.protect_rtcp(rtcp())) == len(rtcp()) + 4 + (16 if suite.is_gcm else 10)

    @EACH_SUITE
    def test_another_key_or_identifier_opens_nothing(self, suite: Suite) -> None:
        sender = SrtpSender(key(suite, b"\x01"))
        other = MasterKey(suite, bytes(suite.key_bytes), bytes(suite.salt_bytes), b"\x01")
        for master in (other, key(suite, b"\x02"), key(suite), key(suite, b"\x00\x01")):
            assert SrtpReceiver(master).open(sender.protect(rtp(1))) is None
            assert SrtpReceiver(master).open_rtcp(sender.protect_rtcp(rtcp())) is None

    @EACH_SUITE
    def test_the_counter_goes_over_many_rounds(self, suite: Suite) -> None:
        sender, receiver = SrtpSender(key(suite)), SrtpReceiver(key(suite))
        for number in range(60_000, 300_000, 13_001):
            packet = rtp(number & 0xFFFF)
            assert receiver.open(sender.protect(packet)) == packet

    @EACH_SUITE
    def test_packets_around_a_wrap_in_any_order(self, suite: Suite) -> None:
        sender, receiver = SrtpSender(key(suite)), SrtpReceiver(key(suite))
        packets = [rtp(n & 0xFFFF) for n in range(65_530, 65_546)]
        protected = [sender.protect(packet) for packet in packets]
        for n in (3, 8, 1, 15, 5, 0, 12, 2, 14, 4, 13, 6, 11, 7, 10, 9):
            assert receiver.open(protected[n]) == packets[n]
        assert all(receiver.open(packet) is None for packet in protected)

    @EACH_SUITE
    def test_a_stream_that_wrapped_before_we_listened(self, suite: Suite) -> None:
        sender, receiver = SrtpSender(key(suite)), SrtpReceiver(key(suite))
        sender.protect(rtp(65_535))
        for sequence in (3, 4, 2):
            packet = rtp(sequence)
            late = SrtpSender(key(suite))
            late.protect(rtp(65_535))
            assert receiver.open(late.protect(packet)) == packet

    def test_a_new_source_begins_anew_and_the_oldest_is_forgotten(self) -> None:
        master = key(Suite.AES_128_GCM)
        receiver = SrtpReceiver(master)
        for ssrc in range(MOST_SOURCES + 5):
            sender = SrtpSender(master)
            assert receiver.open(sender.protect(rtp(40_000, ssrc=ssrc))) is not None
            assert receiver.open_rtcp(sender.protect_rtcp(rtcp(ssrc))) is not None
        assert len(receiver._rtp_windows) == len(receiver._rtcp_windows) == MOST_SOURCES

    def test_what_is_not_authentic_leaves_no_trace(self) -> None:
        receiver = SrtpReceiver(key(Suite.AES_128_CM_80))
        for ssrc in range(100):
            assert receiver.open(rtp(1, ssrc=ssrc)) is None
            assert receiver.open_rtcp(rtcp(ssrc)) is None
        assert not receiver._rtp_windows and not receiver._rtcp_windows

    def test_our_own_mistakes_are_told(self) -> None:
        sender = SrtpSender(key(Suite.AES_128_GCM))
        with pytest.raises(ValueError, match="not an RTP packet"):
            sender.protect(b"\x80" * 11)
        with pytest.raises(ValueError, match="not an RTCP packet"):
            sender.protect_rtcp(b"\x80" * 7)
        with pytest.raises(ValueError, match="bytes of key"):
            MasterKey(Suite.AES_128_GCM, bytes(15), bytes(12))
        with pytest.raises(ValueError, match="identifier"):
            MasterKey(Suite.AES_128_GCM, bytes(16), bytes(12), bytes(129))
        sender._rtcp_index = 1 << 31
        with pytest.raises(ValueError, match="as many"):
            sender.protect_rtcp(rtcp())

    def test_a_key_does_not_show(self) -> None:
        master = MasterKey(Suite.AES_128_GCM, b"K" * 16, b"S" * 12)
        for text in (repr(master), str(master), repr(SrtpSender(master)), f"{[master]}"):
            assert "KKK" not in text and "SSS" not in text

    def test_rtcp_is_told_from_rtp(self) -> None:
        assert is_rtcp(rtcp()) and not is_rtcp(rtp(1)) and not is_rtcp(b"\x80")


class TestWindow:
    def test_late_but_within_the_window(self) -> None:
        window = ReplayWindow()
        window.take(1000)
        assert window.is_fresh(1000 - WINDOW + 1) and not window.is_fresh(1000 - WINDOW)
        assert not window.is_fresh(1000)
        window.take(1000 - WINDOW + 1)
        assert not window.is_fresh(1000 - WINDOW + 1)
        window.take(1000 + 10 * WINDOW)
        assert window.is_fresh(1000 + 10 * WINDOW - 1) and not window.is_fresh(1000)

    def test_the_nearest_round_is_meant(self) -> None:
        window = ReplayWindow()
        assert window.guess(65_000) == 65_000
        window.take(65_000)
        assert window.guess(5) == 65_541
        window.take(65_541)
        assert window.guess(65_535) == 65_535
        assert window.guess(32_000) == 65_536 + 32_000
        window = ReplayWindow()
        window.take(5)
        assert window.guess(65_000) == 65_000, "there is no round before the first"
