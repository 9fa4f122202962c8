"""Plays the evening, cuts it everywhere, and prints what was tried: ``python -m tests.crash.powercut --seeds 5``.

Owns: the command line. Every seed chooses other states where there are too many to try all; nested recoveries and torn writes
change with it, too.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

from tests.crash.powercut import search
from tests.crash.powercut.mutants import MUTANTS
from tests.crash.powercut.recording import record
from tests.crash.powercut.sqlite_calls import why_not


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.powercut", description="Power cuts on a model of the disk."
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many choices of states to try")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--nested", type=int, default=4, help="recoveries that are cut themselves, for each seed")
    parser.add_argument("--mutants", action="store_true", help="let every deliberate bug live through the evening, too")
    arguments = parser.parse_args()
    if why_not():
        sys.exit(why_not())
    log = record()
    bad = 0
    print(f"{'seed':>6} {'moments':>8} {'states':>8} {'different':>10} {'violations':>11} {'seconds':>8}")
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        for name, tally_of in (
            (str(seed), partial(search.search, log, search.Depth(full=6, some=10), seed=seed)),
            ("nested", partial(search.nest, log, arguments.nested, seed=seed)),
        ):
            began_s = time.monotonic()
            tally = tally_of()
            took_s = time.monotonic() - began_s
            print(
                f"{name:>6} {tally.points:8} {tally.states:8} {tally.recoveries:10} {len(tally.violations):11} {took_s:8.0f}",
                flush=True,
            )
            bad += len(tally.violations)
            for violation in tally.violations[:10]:
                print(f"       VIOLATION after {violation.after} at {violation.point}: {violation.text}")
    if arguments.mutants:
        for name, tally in search.hunt([mutant.name for mutant in MUTANTS]).items():
            caught = tally.violations[0].text if tally.violations else "NOT CAUGHT"
            bad += not tally.violations
            print(f"mutant {name:20} after {tally.states:5} states: {caught}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
