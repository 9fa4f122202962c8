"""Keys never leave the folder, and whatever is put comes back."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from aftertone.errors import UsageError
from aftertone.store.blobs import DirectoryBlobs

_PARTS = st.text(st.sampled_from("abAZ09._-/\\~ \0é"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(key=_PARTS | st.text(max_size=210), data=st.binary(max_size=300))
def test_a_key_is_refused_or_stays_inside(key: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "outside", "blobs")
        blobs = DirectoryBlobs(folder)
        with suppress(UsageError):
            assert blobs.put(key, data).size == len(data)
            assert blobs.get(key) == data
            assert list(blobs.list()) == [key]
        inside = [path for path in Path(root).rglob("*") if path.is_file()]
        assert all(path.resolve().is_relative_to(folder.resolve()) for path in inside)
        assert len(inside) == len(list(blobs.list()))
