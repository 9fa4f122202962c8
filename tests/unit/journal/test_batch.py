"""Packet batches: columns, bytes, shares of calls."""

from __future__ import annotations

import numpy as np
import pytest

from aftertone.errors import DamagedError
from aftertone.journal.batch import BATCH_BYTES, ROW_BYTES, PacketBatch, join_batches, pack_batch, unpack_batch
from aftertone.journal.record import MAX_PAYLOAD_BYTES

COLUMNS = ("call", "arrival_ns", "sequence", "timestamp", "ssrc", "payload_type", "marker", "length")


def make_batch(calls: list[int], payloads: list[bytes]) -> PacketBatch:
    n = len(calls)
    return PacketBatch(
        call=np.array(calls, np.uint32),
        arrival_ns=np.arange(n, dtype=np.int64) * 20_000_000 - 5,
        sequence=np.arange(n).astype(np.uint16),
        timestamp=(np.arange(n) * 160).astype(np.uint32),
        ssrc=np.full(n, 0xDEADBEEF, np.uint32),
        payload_type=np.full(n, 8, np.uint8),
        marker=(np.arange(n) % 2).astype(np.uint8),
        length=np.array([len(p) for p in payloads], np.uint16),
        payloads=b"".join(payloads),
    )


def test_a_batch_round_trips() -> None:
    batch = make_batch([3, 3, 9], [b"one", b"", b"three"])
    packed = pack_batch(batch)
    assert len(packed) == BATCH_BYTES + 3 * ROW_BYTES + 8
    for source in (packed, memoryview(packed)):
        read = unpack_batch(source)
        for name in COLUMNS:
            assert np.array_equal(getattr(read, name), getattr(batch, name)), name
            assert not getattr(read, name).flags.writeable
        assert read.payload_list() == [b"one", b"", b"three"]
    assert len(unpack_batch(pack_batch(make_batch([], [])))) == 0


def test_the_layout_is_the_documented_one() -> None:
    packed = pack_batch(make_batch([3, 9], [b"ab", b"c"]))
    assert packed.hex(" ").replace(" ", "") == (
        "02000000"
        "03000000"
        "fbffffffffffffff"
        "fb2c310100000000"
        "03000000"
        "09000000"
        "00000000"
        "a0000000"
        "efbeadde"
        "efbeadde"
        "0000"
        "0100"
        "0200"
        "0100"
        "08"
        "08"
        "00"
        "01"
        "616263"
    )


@pytest.mark.parametrize("calls", [[1, 1, 2, 2, 2, 7], [2, 1, 7, 1, 2, 2]])
def test_each_call_gets_its_share_in_order(calls: list[int]) -> None:
    payloads = [bytes([65 + i]) * (i + 1) for i in range(6)]
    batch = make_batch(calls, payloads)
    shares = dict(batch.split_by_call())
    assert sorted(shares) == [1, 2, 7]
    for call, share in shares.items():
        rows = [i for i, c in enumerate(calls) if c == call]
        assert share.payload_list() == [payloads[i] for i in rows]
        assert share.sequence.tolist() == rows
        assert set(share.call.tolist()) == {call}
    assert batch.take(np.array([5, 0])).payload_list() == [payloads[5], payloads[0]]
    assert len(batch.take(np.array([], np.int64))) == 0
    assert list(make_batch([], []).split_by_call()) == []


@pytest.mark.parametrize("call", [0, 2**32 - 1])
def test_a_batch_of_one_call_is_one_share(call: int) -> None:
    ((found, share),) = make_batch([call, call], [b"a", b"bc"]).split_by_call()
    assert (found, share.payload_list()) == (call, [b"a", b"bc"])


def test_batches_are_joined_in_order() -> None:
    joined = join_batches([make_batch([1, 2], [b"a", b"bc"]), make_batch([], []), make_batch([1], [b"def"])])
    assert joined.call.tolist() == [1, 2, 1]
    assert joined.payload_list() == [b"a", b"bc", b"def"]
    for name in COLUMNS:
        assert getattr(joined, name).dtype == getattr(make_batch([], []), name).dtype
    assert {call: share.payload_list() for call, share in joined.split_by_call()} == {1: [b"a", b"def"], 2: [b"bc"]}
    assert len(join_batches([])) == 0


def test_what_does_not_add_up_is_refused() -> None:
    batch = make_batch([1, 2], [b"ab", b"c"])
    with pytest.raises(ValueError, match="do not add up"):
        pack_batch(PacketBatch(**{name: getattr(batch, name) for name in COLUMNS}, payloads=b"abcd"))
    columns = {name: getattr(batch, name) for name in COLUMNS} | {"ssrc": batch.ssrc[:1]}
    with pytest.raises(ValueError, match="column ssrc"):
        pack_batch(PacketBatch(**columns, payloads=b"abc"))
    with pytest.raises(ValueError, match="passes the limit"):
        pack_batch(make_batch([1] * 65, [bytes(65535)] * 65))
    assert MAX_PAYLOAD_BYTES < 65 * 65535
    packed = pack_batch(batch)
    for length in range(len(packed)):
        with pytest.raises(DamagedError):
            unpack_batch(packed[:length])
    with pytest.raises(DamagedError, match="lengths"):
        unpack_batch(packed.replace(b"\x02\x00\x01\x00\x08\x08", b"\x02\x00\x02\x00\x08\x08"))
