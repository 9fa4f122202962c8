"""An evening, recorded in this process.

Owns: putting together the evening, the recorder, a bug and a fault. Refuses to know: what becomes of the log.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.crash.powercut.evening import House, play
from tests.crash.powercut.mutants import SOUND, Mutant
from tests.crash.powercut.operations import Log
from tests.crash.powercut.recorder import Recorder, RecordingFiles
from tests.crash.powercut.sqlite_calls import recorded
from tests.support.files import Injector, nowhere


def record(mutant: Mutant = SOUND, inject: Injector = nowhere) -> Log:
    """Play the evening in a folder that is thrown away, and return what happened."""
    root = Path(tempfile.mkdtemp(prefix="aftertone-evening-", dir=memory()))
    recorder = Recorder(root, inject)
    try:
        perform(recorder, play, mutant)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return recorder.log


def perform(recorder: Recorder, script: Callable[[House], None], mutant: Mutant = SOUND) -> None:
    """Play a script in the recorder's folder. Raises what the script raises."""
    with recorded(recorder), mutant.patch():
        house = House(recorder.root, recorder.say, mutant.wrap(RecordingFiles(recorder)))
        try:
            script(house)
        finally:
            house.close()


def memory() -> str | None:
    """Return where files cost no disk, None for the usual folder for temporary ones."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
