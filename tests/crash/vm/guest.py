"""A whole machine in QEMU: it boots, and at some moment its power is cut.

Owns: the command line of QEMU, the wire between guest and host, power on and power off. Refuses to know: what runs in the
guest, and what is asked of it.

Theory of operation: the guest has two disks. The root disk is the image, under a layer that is forgotten at power off. The
data disk is virtio-blk with a write cache that the guest knows of, behind ``blklogwrites``, which logs each write and each
flush. Power off is SIGKILL; then ``disk`` makes of the log what a disk may have kept. One thread does all of QEMU's writing,
so an entry of the log is never there without those before it. Whether QEMU's own files reach the host's disk does not
matter, so nothing is synced there. The wire is a tap device in a network that the harness has for itself (``isolate``), so
it takes no port of the host and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.crash.vm import disk
from tests.crash.vm.image import GUEST_ADDRESS, HOST_ADDRESS, PREFIX_BITS, Image, make_data_disk

EMULATOR: Final = "qemu-system-x86_64"
NEEDS: Final = {
    EMULATOR: "qemu-system-x86",
    "debootstrap": "debootstrap",
    "mkfs.ext4": "e2fsprogs",
    "ip": "iproute2",
    "setpriv": "util-linux",
}
"""Programs, and the Debian packages that hold them."""
PROCESSORS: Final = {"kvm": "host", "tcg": "max"}
"""The library that tells speech from noise needs AVX2: without, delivery ends with an illegal instruction."""
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWNET: Final = 0x4000_0000
MEMORY_MB: Final = 768
TAP: Final = "aftertone0"
LOG_BYTES: Final = 8 << 30
"""Sparse, and more than a guest writes between two cuts."""
PROBE_S: Final = 8.0
APPEND: Final = (
    "root=/dev/nvme0n1 rw rootwait rootfstype=ext4 console=ttyS0 loglevel=4 panic=-1 net.ifnames=0 "
    "mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on systemd.show_status=0"
)


def missing() -> list[str]:
    """Return what this machine lacks, each as a sentence for a person."""
    lacks = [
        f"{program} (Debian: apt-get install {package})"
        for program, package in NEEDS.items()
        if not shutil.which(program)
    ]
    if os.geteuid() != 0:
        lacks.append("root, for the image's files and owners, and for a network of its own")
    if not Path("/dev/net/tun").exists():
        lacks.append("/dev/net/tun (modprobe tun), for the wire to the guest")
    return lacks


def accelerator(kernel: Path) -> str:
    """Return ``kvm`` if a kernel boots with it, else ``tcg``. A machine may have /dev/kvm that does not work."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    command = [*_machine("kvm", kernel), "-append", "console=ttyS0 panic=-1", "-serial", "null"]
    try:
        # Without a root disk the kernel panics, and the panic ends QEMU.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        return "tcg"
    return "kvm" if done.returncode == 0 else "tcg"


def isolate() -> None:
    """Give this process, and what it starts from now on, a network and mounts of its own, with the host's end of the wire.

    They vanish with the last process in them. Call it from the main thread, before others are started.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare: no network and mounts of one's own")
    for command in (
        "mount --make-rprivate /",
        "ip link set lo up",
        f"ip tuntap add dev {TAP} mode tap",
        f"ip addr add {HOST_ADDRESS}/{PREFIX_BITS} dev {TAP}",
        f"ip link set {TAP} up",
    ):
        subprocess.run(command.split(), check=True)


def _machine(accel: str, kernel: Path) -> list[str]:
    return [
        *(EMULATOR, "-accel", accel, "-cpu", PROCESSORS[accel], "-smp", "1", "-m", str(MEMORY_MB)),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-kernel", str(kernel)),
    ]


class Guest:
    """One guest and its data disk, in ``folder``. ``power_on`` and ``power_off`` may follow each other any number of times."""

    def __init__(self, folder: Path, image: Image, accel: str, *, barriers: bool = True) -> None:
        self._image, self._accel = image, accel
        self._disk, self._running, self._log = folder / "data.img", folder / "running.img", folder / "writes.log"
        self.console = folder / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        make_data_disk(self._disk, image, barriers=barriers)

    @property
    def data_disk(self) -> Path:
        """The disk as the last cut left it; of use while the power is off."""
        return self._disk

    @property
    def address(self) -> str:
        return GUEST_ADDRESS

    @property
    def is_emulated(self) -> bool:
        """Tell whether the processor is emulated, and so many times slower than a real one."""
        return self._accel == "tcg"

    def power_on(self) -> None:
        """Start the guest on the disk that the last cut left. It ends with the thread that calls this."""
        subprocess.run(["cp", "--sparse=always", str(self._disk), str(self._running)], check=True)
        self._log.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            log.truncate(LOG_BYTES)
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=console, stderr=console)

    async def wait_for_mid_write(self, within_s: float) -> None:
        """Wait until the disk holds writes that it was not told to flush yet, but no longer than ``within_s``.

        Most of the time there are none: a random cut would seldom find any.
        """
        deadline_s = time.monotonic() + within_s
        with disk.LogTail(self._log) as tail:
            while time.monotonic() < deadline_s:
                if tail.advance() and tail.cached > 1:
                    return
                await asyncio.sleep(0)

    def power_off(self) -> None:
        """Cut the power."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def settle(self, rng: random.Random) -> disk.Loss:
        """After a cut: let chance decide what the disk has kept of what it was not told to flush."""
        return disk.leave_what_remains(self._disk, self._log, rng)

    def is_on(self) -> bool:
        """Tell whether the guest still runs: a kernel that panics ends it."""
        return self._process is not None and self._process.poll() is None

    def console_tail(self, lines: int = 40) -> str:
        """Return the last that the guest said on its console."""
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])

    def _command(self) -> list[str]:
        def file(node: str, path: Path) -> tuple[str, str]:
            return "-blockdev", f"driver=file,filename={path},node-name={node},cache.no-flush=on"

        return [
            *("setpriv", "--pdeathsig", "KILL"),
            *_machine(self._accel, self._image.kernel),
            *(
                "-append",
                APPEND,
                "-chardev",
                f"file,id=console,path={self.console},append=on",
                "-serial",
                "chardev:console",
            ),
            *("-object", "main-loop,id=main-loop,thread-pool-max=1"),
            *("-drive", f"file={self._image.root},format=raw,if=none,id=root,snapshot=on,cache=unsafe"),
            *("-device", "nvme,drive=root,serial=root"),
            *file("disk", self._running),
            *file("log", self._log),
            *("-blockdev", f"driver=blklogwrites,file=disk,log=log,node-name=data,log-sector-size={disk.SECTOR_BYTES}"),
            *("-device", "virtio-blk-pci,drive=data,write-cache=on,discard=off,write-zeroes=off"),
            *("-netdev", f"tap,id=wire,ifname={TAP},script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=wire,romfile="),
            *("-device", "virtio-rng-pci"),
        ]
