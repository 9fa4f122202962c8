"""Fuzz one parser: ``python -m tests.fuzz.run sip --seconds 60``.

Owns: the command line around atheris. Refuses to know: what a target checks.

Theory of operation: atheris (libFuzzer with Python's coverage) starts from the corpus and runs until the time is over or a target
raises, which ends this process with libFuzzer's exit status and prints the input.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["aftertone.sip", "aftertone.sdp", "aftertone.rtp", "tests.fuzz.kinds"], exclude=["aftertone.rtp.batch"]
):
    from tests.fuzz import corpus
    from tests.fuzz.targets import TARGETS

LONGEST_BYTES = 8192
"""Longer inputs find the same code more slowly; the limits of messages have tests of their own."""
KNOWN = "known-"
"""How files are called that hold an input of the corpus."""
SLOWEST_S = 2
"""One input that takes longer is a finding."""


def main() -> None:
    """Run; never returns, libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description="Fuzz one parser.")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0 takes another one each time")
    parser.add_argument("--folder", type=Path, help="where inputs that reach new code stay")
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="aftertone-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(corpus.read(arguments.target)):
        (folder / f"{KNOWN}{number}").write_bytes(one)

    def check(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            sys.stderr.write(f"\n{arguments.target}: found by {base64.b64encode(data).decode()}\n")
            raise

    options = [
        f"-max_total_time={arguments.seconds}",
        f"-max_len={LONGEST_BYTES}",
        f"-timeout={SLOWEST_S}",
        f"-seed={arguments.seed}",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
