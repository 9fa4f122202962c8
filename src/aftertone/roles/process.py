"""What every role's process has in common: arguments, the word 'ready', stopping, dying with its supervisor.

Owns: the small contract between the supervisor and a role. Refuses to know: what a role does.

Theory of operation: a role is started as ``python -m aftertone.roles.<role> --data D [--config C] [--ready-fd N]
[--supervisor PID]``. When it does its work it writes one JSON line to the descriptor. It stops on SIGTERM, and when its
supervisor is gone. It exits with ``EXIT_USAGE`` when a person must change something first (a port in use, an unknown
setting): starting it again would not help.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from aftertone.config import Settings, load
from aftertone.errors import AftertoneError, ConfigError
from aftertone.roles.folder import Folder
from aftertone.roles.logs import set_up

EXIT_USAGE: Final = 64
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Start:
    """What a role was started with."""

    role: str
    settings: Settings
    folder: Folder
    logger: structlog.typing.FilteringBoundLogger
    ready_descriptor: int | None

    def ready(self, facts: Mapping[str, object]) -> None:
        """Tell the supervisor that this role does its work. Does nothing when nobody asked, or no longer listens."""
        if self.ready_descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.write(self.ready_descriptor, json.dumps(dict(facts)).encode() + b"\n")
            os.close(self.ready_descriptor)


def run_role(role: str, main: Callable[[Start], None]) -> None:
    """Run a role's ``main`` as this process, and exit with a status that tells the supervisor what to do."""
    parser = argparse.ArgumentParser(prog=f"python -m aftertone.roles.{role}")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--supervisor", type=int)
    arguments = parser.parse_args()
    _die_with_the_supervisor(arguments.supervisor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settings = load(arguments.config)
        folder = Folder(arguments.data.absolute())
        folder.make()
        main(Start(role, settings, folder, set_up(settings.log, role), arguments.ready_fd))
    except ConfigError as error:
        sys.stderr.write(f"aftertone {role}: {error}\n")
        sys.exit(EXIT_USAGE)
    except AftertoneError as error:
        sys.stderr.write(f"aftertone {role}: {error}\n")
        sys.exit(1)


def _die_with_the_supervisor(supervisor: int | None) -> None:
    """Ask the kernel for a SIGTERM when the supervisor is gone, however it went, so that no role is left alone.

    ``supervisor`` is its process id, None when a person started this role alone. A supervisor that died while we were still
    being loaded is no longer our parent, and the kernel would never tell.
    """
    if supervisor is None or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:
        sys.exit(0)
