"""Every legal state of the disk at every moment of an evening: nothing that was confirmed is missing, nothing is invented.

The figures are printed below the results of the run. docs/reliability.md says what they mean.
"""

from __future__ import annotations

from functools import cache

from tests.crash.powercut import faults, search
from tests.crash.powercut.mutants import MUTANTS
from tests.crash.powercut.operations import Log
from tests.crash.powercut.oracle import Promises
from tests.crash.powercut.recording import record
from tests.crash.powercut.sqlite_calls import why_not
from tests.support.figures import tell
from tests.support.peers import missing

NESTED = 4


@cache
def evening() -> Log:
    """Return the evening as it happened."""
    if why_not():
        missing(why_not())
    return record()


def test_the_evening_has_everything_in_it() -> None:
    """A search that looks at nothing finds nothing: see that there is something to lose."""
    said = Promises()
    for cut in search.cuts(evening()):
        said = cut.said
    assert said.ended == {1, 2, 3, 5}
    assert said.begun - said.ended == {4}, "one call is cut off by the end of its line"
    assert said.held[2][0] < said.held[2][1]
    assert said.signalling == {2, 5}
    assert said.refused == {1}
    assert said.epochs == {1, 2}
    assert {what: len(values) for what, values in said.values.items()} == dict.fromkeys(
        ("greeting", "state 1", "state 2", "rings", "numbers", "password"), 1
    )
    kinds = {type(operation).__name__ for operation in evening()}
    assert kinds >= {"Create", "MakeDirectory", "Write", "Truncate", "Sync", "Rename", "Unlink", "SyncDirectory"}


def test_a_cut_at_any_moment_loses_nothing_that_was_confirmed() -> None:
    tally = search.search(evening())
    assert not tally.violations, [tally.kinds.most_common(5), tally.violations[:3]]
    assert tally.states > 5_000
    tell(
        f"power cuts: {tally.points} moments, {tally.states} states of the disk, {tally.recoveries} of them different, "
        "each recovered and judged: nothing lost"
    )


def test_recovery_may_be_cut_as_well() -> None:
    tally = search.nest(evening(), NESTED)
    assert not tally.violations, [tally.kinds.most_common(5), tally.violations[:3]]
    assert tally.nested == NESTED
    assert tally.states > 1_000
    tell(
        f"power cuts during recovery: {tally.nested} recoveries cut at {tally.points} moments, {tally.recoveries} states "
        "recovered again: nothing lost"
    )


def test_every_mutant_is_caught() -> None:
    found = search.hunt([mutant.name for mutant in MUTANTS])
    for mutant in MUTANTS:
        tally = found[mutant.name]
        told = tally.violations[0].text if tally.violations else "NOT CAUGHT"
        tell(f"mutant {mutant.name:20} after {tally.states:5} states: {told}")
    assert [name for name, tally in found.items() if not tally.violations] == []


def test_a_disk_that_fails_at_the_nth_call_loses_nothing() -> None:
    if why_not():
        missing(why_not())
    calls = faults.calls_of_a_short_evening()
    outcome = faults.strike_all(faults.strikes(calls))
    assert not outcome.violations, [len(outcome.violations), outcome.violations[:5]]
    assert min(outcome.strikes.values()) > 50
    kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(outcome.strikes.items()))
    tell(f"faults: one at each of {len(calls)} calls ({kinds}), {outcome.recoveries} recoveries: nothing lost")
