"""What the recorder inside the process misses, a file system in user space would see; see docs/decisions/0016."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.crash.powercut import search, sqlite_calls, user_mounts
from tests.crash.powercut.fuse_recorder import normal, record_from_outside
from tests.crash.powercut.operations import Log
from tests.crash.powercut.recording import record
from tests.support.peers import missing


@pytest.fixture(scope="module")
def outside() -> Log:
    if reason := user_mounts.why_not():
        missing(reason)
    return record_from_outside()


def test_both_recorders_see_the_same_operations(outside: Log) -> None:
    if reason := sqlite_calls.why_not():
        missing(reason)
    ours, theirs = normal(record()), normal(outside)
    pairs = enumerate(zip(ours, theirs, strict=False))
    first = next(((at, search.describe(a), search.describe(b)) for at, (a, b) in pairs if a != b), None)
    assert first is None
    assert len(ours) == len(theirs)


def test_no_cut_of_what_was_recorded_from_outside_loses_anything(outside: Log) -> None:
    """Every eighth moment: the operations are the same, and the whole search is that of test_power_cut."""
    with closing(search.Searcher()) as searcher:
        tally = searcher.search(outside, search.SHALLOW, seed=1, points=range(0, len(outside), 8), most=5)
    assert tally.violations == []
    assert tally.points > 40
