"""A real file system that is cut off while it is written, under a machine that syncs and under one that only says so."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aftertone.roles.plug.trial import PlugTest
from tests.support.disks import small_disk
from tests.support.machine import wait_until
from tests.unit.roles.plug.loopback import counts_in, running_witness

FS_IOC_SHUTDOWN = 0x8004587D
WITHOUT_A_LAST_FLUSH = 2
RUN = "import sys; from aftertone.cli import main; sys.argv[0] = 'aftertone'; main()"
LIE = "import os; os.fdatasync = os.fsync = lambda descriptor: None; "


def shut_down(folder: Path) -> None:
    """Stop a file system at once: what it has not written is gone, as after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_A_LAST_FLUSH))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process between two calls of the kernel.

    A power cut is one moment, and this ioctl is not: ext4 says "shut down" first and gives up its journal then, and a sync that
    is under way in between may succeed although the blocks of its data were never noted (Linux 6.18, 1 run of 34 on a busy machine).
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir()), "it to stop")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_system_that_is_cut_off(tmp_path: Path, honest: bool) -> None:
    said: list[str] = []
    file = tmp_path / "acks.jsonl"
    with running_witness(file) as running, small_disk(tmp_path, 320) as disk:
        program = RUN if honest else LIE + RUN
        process = subprocess.Popen(
            [sys.executable, "-c", program, "doctor", "--pull-the-plug", running.address, "--data", str(disk)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: counts_in(file).mark >= 15, "some confirmations", within_s=60)
        with stopped(process.pid):
            shut_down(disk)
        _, complaint = process.communicate(timeout=30)
        assert "run the same command again" in complaint
        subprocess.run(["umount", str(disk)], check=True)
        subprocess.run(["mount", "-o", "loop", str(tmp_path / "disk.image"), str(disk)], check=True)
        assert PlugTest(disk, running.address, said.append).run() is honest, "\n".join(said)
    assert ("Nothing that was acknowledged is missing" if honest else "THE DISK LIED") in "\n".join(said)
