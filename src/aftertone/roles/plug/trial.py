"""The test as a person runs it: the same command before the cut and after it.

Owns: what is to be done now, by what the folder and the witness say; the verdict in words. Refuses to know: how things are
written and found (`load`, `evidence`), how the witness remembers.

Theory of operation: the witness remembers each run by its name, and by its place (this machine and folder), so that even a
disk that forgot the whole folder is found out. A run that the witness calls open was cut, and is looked at; else a new one
begins. The witness hears of a run before the folder is made, and of its verdict before the folder is removed, so that a cut
in between leaves nothing that could be misread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aftertone.errors import AftertoneError, EnvironmentFault, StorageError, StorageFullError, UsageError
from aftertone.files import machine_boot_id
from aftertone.roles.plug.evidence import SCRATCH, Losses, Scratch, find_losses
from aftertone.roles.plug.link import Link, Told
from aftertone.roles.plug.load import Load
from aftertone.roles.plug.protocol import KINDS, NAME_DIGITS, Counts, RunState

LONGEST_S: Final = 900.0
NEEDED_BYTES: Final = 200_000_000
LEFT_BYTES: Final = 100_000_000
"""With less room than this a run ends: a full disk is another test."""
PROGRESS_EVERY_S: Final = 2.0
REASONS_SHOWN: Final = 5


class PlugTest:
    """One call of the command. ``address`` is the witness's; ``say`` hears sentences for a person."""

    def __init__(self, folder: Path, address: str, say: Callable[[str], None]) -> None:
        self._folder, self._address, self._say = folder, address, say
        self._scratch = Scratch(folder / SCRATCH)
        self._confirmed = dict.fromkeys(KINDS, 0)
        self._lost_witness: EnvironmentFault | None = None

    def run(self) -> bool:
        """Write until the plug is pulled, or say whether anything is missing after it was; False when something is.

        Raises UsageError for a folder or address that cannot be, EnvironmentFault when the witness is not there, StorageError
        when the disk fails or has no room.
        """
        if not self._folder.is_dir():
            raise UsageError(f"there is no folder {self._folder}: name one on the disk to be tested with --data")
        place = _place(self._folder)
        with Link(self._address) as link:
            named = self._scratch.run()
            told = link.ask(named, place)
            waiting = link.ask("", place)
            if told.state in (RunState.ENDED, RunState.GOOD) and waiting.state is RunState.OPEN:
                # That run is over and its folder was removed; a disk that has it again forgot all that came since.
                told = waiting
                self._say(f"{self._scratch.root} is of run {named[:8]}, which was over, and whose folder was removed.")
            elif told.state is RunState.OPEN:
                self._refuse_another(named, told)
            if told.state is RunState.OPEN:
                if told.counts != Counts():
                    return self._look(link, told)
                self._say("The last run was cut before anything was confirmed, which proves nothing; a new one begins.")
                link.judge(told.run, 0)
            elif self._scratch.root.exists():
                self._refuse_foreign(told)
            self._scratch.remove()
            return self._write(link, place)

    def _refuse_another(self, named: str, told: Told) -> None:
        """Refuse to look for one run in the folder of another: a disk that lies forgets a name, and invents none."""
        if named and named != told.run:
            raise UsageError(
                f"{self._scratch.root} is of run {named[:8]}, which the witness at {self._address} does not know; the one "
                f"it waits for here is {told.run[:8]}. Start the witness with the --file that it had for {named[:8]}, or "
                f"remove that folder: what is then said of {told.run[:8]} means nothing, and after it a new run begins"
            )

    def _refuse_foreign(self, told: Told) -> None:
        root = self._scratch.root
        if told.state is RunState.BAD:
            raise UsageError(f"{root} is kept from a run that lost something: look at it, remove it, and try again")
        if told.state is RunState.NONE:
            raise UsageError(
                f"{root} is of a run that the witness at {self._address} does not know: start the witness with the --file "
                "that it had then, or remove that folder to begin anew"
            )

    # -- before the cut

    def _write(self, link: Link, place: str) -> bool:
        if (free_bytes := self._free_bytes()) < NEEDED_BYTES:
            raise StorageFullError(
                f"only {free_bytes // 1_000_000} MB are free in {self._folder}, and the test wants "
                f"{NEEDED_BYTES // 1_000_000} MB: make room"
            )
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise StorageError(
                f"you may not write in {self._folder}: run this as its owner, or name another with --data"
            )
        run = secrets.token_hex(NAME_DIGITS // 2)
        link.begin(run, place, _boot())
        load = Load(self._scratch, run, lambda what, number: self._confirm(link, what, number))
        self._say(
            f"Run {run[:8]} writes to {self._scratch.root}; the witness at {self._address} hears of all that the disk "
            "confirms.\n\n"
            "  Pull the plug of this machine now, whenever you like. The plug, not the reset button: only without power does\n"
            "  a disk forget its cache. Then start it, and run the same command again: it says whether anything is missing.\n"
            "  Ctrl-C stops without a verdict.\n"
        )
        try:
            self._make(link, run)
            load.run(self._goes_on(load))
        except KeyboardInterrupt:
            self._say("")
        except StorageFullError:
            self._stop(link)
            raise
        except StorageError as error:
            if Counts(**self._confirmed) == Counts():
                raise
            # Somebody pulled the disk and not the machine: that is a cut as good as any.
            raise StorageError(
                f"{error}. When the disk is back, run the same command again: it looks for what was confirmed"
            ) from None
        # Without the witness nothing is removed: the run is open there, and the next call looks for it here.
        if self._lost_witness is not None:
            raise EnvironmentFault(
                f"{self._lost_witness}. The run ends; when the witness is back, run the same command again"
            )
        self._stop(link)
        self._say(f"Stopped without a cut after {Counts(**self._confirmed)}: nothing is proven.")
        return True

    def _make(self, link: Link, run: str) -> None:
        try:
            self._scratch.make(run)
        except StorageError:
            self._stop(link)
            raise

    def _stop(self, link: Link) -> None:
        with contextlib.suppress(AftertoneError):
            link.end()
            self._scratch.remove()

    def _goes_on(self, load: Load) -> Callable[[], bool]:
        began_s = told_s = time.monotonic()

        def goes_on() -> bool:
            nonlocal told_s
            now_s = time.monotonic()
            if now_s - told_s >= PROGRESS_EVERY_S:
                told_s = now_s
                p50_ms, p99_ms = load.sync_ms()
                counts = Counts(**self._confirmed)
                self._say(f"confirmed: {counts}; a sync takes {p50_ms:.1f} ms (p50), {p99_ms:.1f} ms (p99)")
            if now_s - began_s >= LONGEST_S:
                self._say(f"Nobody pulled the plug in {LONGEST_S / 60:.0f} minutes.")
                return False
            if self._free_bytes() < LEFT_BYTES:
                self._say(f"Less than {LEFT_BYTES // 1_000_000} MB are left in {self._folder}.")
                return False
            return self._lost_witness is None

        return goes_on

    def _confirm(self, link: Link, what: str, number: int) -> None:
        if self._lost_witness is not None:
            return
        try:
            link.acknowledge(what, number)
        except EnvironmentFault as error:
            self._lost_witness = error
        else:
            self._confirmed[what] = number

    def _free_bytes(self) -> int:
        try:
            status = os.statvfs(self._folder)
        except OSError as error:
            raise StorageError(f"the disk under {self._folder} does not answer: {error.strerror}") from None
        return status.f_bavail * status.f_frsize

    # -- after the cut

    def _look(self, link: Link, told: Told) -> bool:
        self._say(
            f"Run {told.run[:8]} was cut. The witness heard that the disk had confirmed {told.counts}. Looking for them."
        )
        losses = find_losses(self._scratch, told.run, told.counts)
        link.judge(told.run, losses.total)
        if losses.total:
            self._say(self._accusation(losses))
            return False
        self._scratch.remove()
        self._say(f"Nothing that was acknowledged is missing: {told.counts}.")
        if told.boot and told.boot == _boot():
            self._say(
                "But this machine was not started anew since the run began. Unless the disk itself was pulled out, that says "
                "nothing about it: run the same command again, and pull the plug while it runs."
            )
        else:
            self._say("A disk that lies may be lucky once: do it two or three times more.")
        return True

    def _accusation(self, losses: Losses) -> str:
        first = ", ".join(f"{kind} {number}" for kind, number in losses.first)
        lines = [
            f"THE DISK LIED: {losses.counts.above_zero()} that it had confirmed are gone (first: {first})."
            if first
            else "THE DISK LIED: what it had confirmed is there, but the storage is damaged."
        ]
        lines += [f"  {reason}" for reason in losses.reasons[:REASONS_SHOWN]]
        if not self._scratch.root.exists():
            lines.append(f"  {self._scratch.root} is gone altogether. If you removed it, this verdict means nothing.")
        lines.append(
            "Do not keep messages on it: use another disk; or switch its write cache off (SATA: hdparm -W 0 DEVICE), make sure "
            "that it stays off after a boot, and test again."
        )
        if self._scratch.root.exists():
            lines.append(f"{self._scratch.root} is kept for whoever wants to look; remove it before the next test.")
        return "\n".join(lines)


def _place(folder: Path) -> str:
    """Return a name for this machine and folder that is the same after a boot."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = socket.gethostname()
    return hashlib.sha256(f"{machine}\0{folder.resolve()}".encode("utf-8", "surrogateescape")).hexdigest()[:NAME_DIGITS]


def _boot() -> str:
    """Return a name for this boot of the machine, empty when the kernel gives none."""
    try:
        return machine_boot_id().hex()
    except OSError:
        return ""
