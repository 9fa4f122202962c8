"""The two or three things about directories that durability needs.

Owns: making folders and syncing them. Refuses to know: what is put inside.

Theory of operation: a file or folder exists after a power cut only when the directory that names it was synced
(fsync(2)), so a folder that was just made needs its parent synced too.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make every name in ``path`` durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make ``path`` and its missing parents (mode 0700), durably. Raises OSError.

    The parent is synced even when the folder was there already: whoever made it may have died before its own sync.
    """
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_directory(folder.parent)
