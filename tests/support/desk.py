"""A delivery over real folders, whose parts a test may take out and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aftertone.audio.samples import Samples
from aftertone.delivery.deliver import Deliverer
from aftertone.delivery.verify import Books, verify
from aftertone.files import OsFiles
from aftertone.journal import JournalReader
from aftertone.store.blobs import DirectoryBlobs
from aftertone.store.catalog import Catalog

NOW_UNIX_MS = 1_760_000_000_000


def loud(samples: Samples, rate_hz: int) -> list[tuple[int, int]]:
    """Stand in for the speech detector: whatever is loud speaks."""
    return [(0, len(samples) * 1000 // rate_hz)] if np.abs(samples.astype(np.int32)).max(initial=0) > 500 else []


class Shop:
    """The folders of one machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal = root / "journal"
        self.blobs = DirectoryBlobs(root / "blobs")
        self.catalog = Catalog.open(root / "catalog" / "aftertone.db", unix_ms=lambda: NOW_UNIX_MS)
        self.now_ns = 10**12

    def reader(self) -> JournalReader:
        """Return a fresh reader."""
        return JournalReader(OsFiles(), self.journal)

    def deliverer(self, **parts: Any) -> Deliverer:
        """Return a fresh deliverer; ``parts`` replace its own."""
        reader, blobs, catalog = (parts.pop(name, None) for name in ("reader", "blobs", "catalog"))
        options = {"detect": loud, "unix_ms": lambda: NOW_UNIX_MS, **parts}
        return Deliverer(reader or self.reader(), blobs or self.blobs, catalog or self.catalog, **options)

    def run(self, deliverer: Deliverer, *, steps: int = 400) -> None:
        """Step until nothing is left to do and nothing waits for another try."""
        for _ in range(steps):
            self.now_ns += 10**9
            metrics = deliverer.metrics()
            if not deliverer.step(self.now_ns) and not deliverer.metrics()["waiting"] and not metrics["waiting"]:
                return
        raise AssertionError(f"delivery does not come to rest: {deliverer.failing()}")

    def segments(self) -> list[str]:
        """Return the names of the segments that are there, put aside or not."""
        return sorted(path.name for path in self.journal.iterdir() if ".journal" in path.name)

    def books(self) -> Books:
        """Check the books."""
        return verify(self.reader(), self.blobs, self.catalog)

    def close(self) -> None:
        """Close the catalog."""
        self.catalog.close()
