"""Machines for real peers to call: one for each test module, with short greetings."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from aftertone.audio.flac import write_wav
from tests.support.machine import Machine, machine, speech

GREETING_S = 0.4


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the mailboxes ``main`` (answers at once) and ``patient`` (rings three times, which are 1.5 s).

    What every test expects besides its own is asked when all are over: nothing was raised inside, the line that began is
    the line that ended, the books balance.
    """
    folder = tmp_path_factory.mktemp("machine")
    # The tests of bad input ask more in a few seconds, from one address, than anybody may who is not at war with it.
    budgets = {
        "DEFENCE__MESSAGES_A_SECOND": "100000",
        "DEFENCE__CALLS_A_SECOND": "1000",
        "DEFENCE__UNANSWERED_CALLS": "1000",
    }
    with machine(folder / "data", CALLS__RING_S="0.5", **budgets) as made:
        greeting = io.BytesIO()
        write_wav(greeting, speech(GREETING_S), 8000)
        with made.client() as client:
            client.post("/mailboxes", json={"name": "patient", "rings": 3}).raise_for_status()
            for name in ("main", "patient"):
                client.put(f"/mailboxes/{name}/greeting", content=greeting.getvalue()).raise_for_status()
        # A line reads its directory before it takes calls, so a second start needs no waiting for the first reload.
        made.stop()
        made.start()
        line = made.role_pid("line")
        yield made
        assert made.role_pid("line") == line, f"the line was started again:\n{made.log()}"
        assert "Traceback" not in made.log(), made.log()
        made.books()
