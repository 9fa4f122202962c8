"""The scribe's place: the process that will write down what was said.

Owns: nothing yet but its place under the supervisor and its status. It does no work, claims none, and says so.
"""

from __future__ import annotations

import signal

from aftertone.roles.folder import write_status
from aftertone.roles.process import Start, run_role


def main(start: Start) -> None:
    """Stay until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    start.ready({})
    while True:
        write_status(start.folder, "scribe", {"engine": "none"})
        if signal.sigtimedwait({signal.SIGTERM}, 2.0) is not None:
            return


if __name__ == "__main__":
    run_role("scribe", main)
