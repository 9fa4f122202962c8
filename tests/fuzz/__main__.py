"""Fuzz every parser in turn: ``python -m tests.fuzz --minutes 10``.

Owns: the order, the table, the corpus that is kept. Refuses to know: atheris, which each run has in a process of its own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

MOST_KEPT_BYTES = 32_768
"""New inputs of one run that a corpus keeps, the shortest ones."""


def main() -> None:
    """Run all, print what each did; exit status 1 when one found something."""
    parser = argparse.ArgumentParser(description="Fuzz every parser in turn.")
    parser.add_argument("--minutes", type=float, default=10, help="of one processor, for all of them together")
    parser.add_argument("--keep", action="store_true", help="write inputs that reach new code into the corpus")
    arguments = parser.parse_args()
    seconds = max(1, round(arguments.minutes * 60 / len(TARGETS)))
    print(f"{'target':<12}{'inputs':>12}{'coverage':>10}{'found':>8}", flush=True)
    found = 0
    for name in TARGETS:
        folder = Path(tempfile.mkdtemp(prefix="aftertone-fuzz-"))
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--seconds", str(seconds), "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        inputs = re.findall(r"Done (\d+) runs", done.stderr)
        coverage = re.findall(r"cov: (\d+)", done.stderr)
        broken = done.returncode != 0
        found += broken
        print(f"{name:<12}{(inputs or ['-'])[-1]:>12}{(coverage or ['-'])[-1]:>10}{int(broken):>8}", flush=True)
        if broken:
            print(done.stderr[-4000:], flush=True)
        elif arguments.keep:
            corpus.write(name, [*corpus.read(name), *_fresh(folder)])
        shutil.rmtree(folder)
    print("\nnothing was found" if not found else f"\n{found} parsers broke")
    sys.exit(1 if found else 0)


def _fresh(folder: Path) -> list[bytes]:
    """Return inputs that reached new code, the shortest ones."""
    inputs = sorted((path.read_bytes() for path in folder.iterdir() if not path.name.startswith("known-")), key=len)
    room = MOST_KEPT_BYTES
    kept = []
    for one in inputs:
        room -= len(one)
        if room < 0:
            break
        kept.append(one)
    return kept


if __name__ == "__main__":
    main()
