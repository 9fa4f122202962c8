"""The disks of the guest: a Debian with Aftertone installed as the documents say, and an empty data disk.

Owns: building both, and the folder in which what is expensive to build is kept. Refuses to know: QEMU, calls, cuts.

Theory of operation: three layers, each a folder or file under its own key, so that only what changed is built again.
``base`` is Debian and the kernel; ``root`` is a copy of it with the virtual environment of ``requirements.lock``; into it
goes the package, built from the checkout, and with it the unit of ``docs/operation.md``, word for word; ``root.img`` is
its file system. Wheels are fetched outside, where pip is configured, and installed inside, by the guest's own Python.
What only costs time at boot is switched off; nothing that Aftertone touches is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUITE: Final = "bookworm"
PYTHON: Final = "3.11"
"""The Python of that suite."""
PACKAGES: Final = ("systemd", "systemd-sysv", "udev", "kmod", "iproute2", "python3", "python3-venv")
KERNEL_PACKAGE: Final = "linux-image-cloud-amd64"
MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng")
"""ext4 and NVMe are built into that kernel, virtio is not: so the root disk is NVMe, and there is no initial ramdisk."""
MASKED: Final = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "systemd-tmpfiles-clean.timer", "systemd-logind.service", "systemd-pstore.service"),
    *("getty@tty1.service", "serial-getty@ttyS0.service", "getty-static.service", "systemd-update-utmp.service"),
    *("systemd-update-utmp-runlevel.service", "systemd-firstboot.service", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "dev-hugepages.mount", "proc-sys-fs-binfmt_misc.automount"),
)
ROOT_MB: Final = 1500
DATA_MB: Final = 512
HOST_ADDRESS: Final = "10.77.0.1"
GUEST_ADDRESS: Final = "10.77.0.2"
PREFIX_BITS: Final = 30
TOKEN: Final = "crash-vm-token-known-to-the-harness-and-the-guest"
CHECKOUT: Final = Path(__file__).resolve().parents[3]
STATUS_PORT: Final = 9999
TELLER: Final = f"""\
import socket, time
wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        with open("/var/lib/aftertone/run/line.json", "rb") as file:
            wire.sendto(file.read().rstrip(), ("{HOST_ADDRESS}", {STATUS_PORT}))
    except OSError:
        pass
    time.sleep(0.5)
"""
"""The one thing in the guest that is the harness' own: it sends the line's status, without asking the desk to work for it."""
FILES: Final = {
    "etc/hostname": "aftertone-guest\n",
    "etc/fstab": "/dev/nvme0n1 / ext4 rw 0 0\n/dev/vda /var/lib/aftertone ext4 rw 0 0\n",
    "etc/modules-load.d/guest.conf": "".join(f"{name}\n" for name in MODULES),
    "etc/systemd/network/10-guest.network": f"[Match]\nName=eth0\n[Network]\nAddress={GUEST_ADDRESS}/{PREFIX_BITS}\n"
    "LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    "opt/teller.py": TELLER,
    "etc/systemd/system/teller.service": "[Service]\nExecStart=/usr/bin/python3 -ISE /opt/teller.py\n"
    "[Install]\nWantedBy=multi-user.target\n",
    "etc/systemd/journald.conf.d/guest.conf": "[Journal]\nStorage=volatile\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\n",
}
SETTINGS: Final = """\
[web]
host = "0.0.0.0"
[calls]
rings = 0
[storage]
low_water_mb = 20
"""
"""The guest's aftertone.toml: the desk answers the harness, nobody waits for a ring, a small disk is big enough."""
Say = Callable[[str], None]


class BuildError(Exception):
    """A disk could not be built; says what was tried and what it answered."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a guest boots from."""

    root: Path
    kernel: Path
    uid: int
    gid: int


def unit_of(document: str) -> tuple[str, str]:
    """Return path and text of the systemd unit in a document: its block ``ini``, whose first line names the file."""
    found = re.search(r"^```ini\n# (/\S+\.service)\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    if found is None:
        raise BuildError("docs/operation.md has no block ``ini`` that begins with the path of a unit")
    return found[1], found[2]


def useradd_of(document: str) -> list[str]:
    """Return the command that makes the user, as the document gives it."""
    found = re.search(r"`(useradd [^`]+)`", document)
    if found is None:
        raise BuildError("docs/operation.md does not say how the user is made")
    return found[1].split()


def key_of(parts: Iterable[Path | str]) -> str:
    """Return a digest of texts and of files with their names; folders count with all their files but caches."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode() + b"\0")
            continue
        files = sorted(path for path in part.rglob("*") if path.is_file()) if part.is_dir() else [part]
        for path in files:
            if "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(part.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def build(cache: Path, mirror: str, say: Say) -> Image:
    """Return the image of this checkout, building what is not in the cache. Raises BuildError.

    The cache is this process' alone until it ends: who comes second waits.
    """
    cache.mkdir(parents=True, exist_ok=True)
    fcntl.flock(os.open(cache / "lock", os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    base, root, image = cache / "base", cache / "root", cache / "root.img"
    base_key = key_of([SUITE, *PACKAGES, KERNEL_PACKAGE])
    root_key = key_of([base_key, CHECKOUT / "requirements.lock"])
    sources = [CHECKOUT / "pyproject.toml", CHECKOUT / "src", CHECKOUT / "docs" / "operation.md"]
    image_key = key_of([root_key, *sources, *FILES, *FILES.values(), *MASKED, str(ROOT_MB)])
    if not _is_built(image, image_key):
        if not _is_built(root, root_key):
            if not _is_built(base, base_key):
                say(f"building a Debian {SUITE} (once; a few minutes) ...")
                _make(base, base_key, lambda new: _debootstrap(new, mirror))
            say("installing what Aftertone needs (when requirements.lock has changed) ...")
            _make(root, root_key, lambda new: _install_requirements(base, new, cache / "wheels"))
        say("installing Aftertone (when the source has changed) ...")
        _install_aftertone(root, cache / "package")
        _make(image, image_key, lambda new: _run("mkfs.ext4", *_ext4(root, new, ROOT_MB)))
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    owner = next(line.split(":") for line in (root / "etc/passwd").read_text().splitlines() if "aftertone" in line)
    return Image(image, kernels[-1], int(owner[2]), int(owner[3]))


def make_data_disk(path: Path, image: Image, *, barriers: bool) -> None:
    """Make the data disk: an empty data folder, but for the settings and the token of the desk.

    Without ``barriers`` its file system never tells the disk to flush, so that a sync says nothing.
    """
    staging = path.with_name("staging")
    staging.mkdir()
    for name, text in (("aftertone.toml", SETTINGS), ("desk.token", TOKEN + "\n")):
        (staging / name).write_text(text)
        (staging / name).chmod(0o600)
        os.chown(staging / name, image.uid, image.gid)
    os.chown(staging, image.uid, image.gid)
    staging.chmod(0o700)
    _run("mkfs.ext4", *_ext4(staging, path, DATA_MB))
    if not barriers:
        _run("tune2fs", "-o", "nobarrier", str(path))
    shutil.rmtree(staging)


def _debootstrap(target: Path, mirror: str) -> None:
    _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(target), mirror)
    # Unpacked aside: a package's own folder /lib would take the place of the link of that name.
    fetch = (
        "mkdir /tmp/kernel && cd /tmp/kernel && apt-get -qq update && "
        f"apt-get -qq download $(apt-cache depends {KERNEL_PACKAGE} | sed -n 's/ *Depends: \\(linux-image[^ ]*\\)/\\1/p') && "
        "dpkg-deb -x linux-image*.deb . && mv boot/vmlinuz-* /boot/ && mv lib/modules /usr/lib/ && cd / && "
        "rm -rf /tmp/kernel /var/lib/apt/lists/* && apt-get clean && "
        "for tree in /lib/modules/*; do depmod ${tree##*/}; done"
    )
    _inside(target, "sh", "-c", fetch)


def _install_requirements(base: Path, target: Path, wheels: Path) -> None:
    wheels.mkdir(exist_ok=True)
    lock = CHECKOUT / "requirements.lock"
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)] + ["manylinux2014_x86_64"]
    _pip(
        *("download", "--quiet", "--dest", str(wheels), "--only-binary", ":all:", "--requirement", str(lock)),
        *("--python-version", PYTHON, "--implementation", "cp", "--abi", f"cp{PYTHON.replace('.', '')}"),
        *(word for platform in platforms for word in ("--platform", platform)),
    )
    _run("cp", "-a", "--reflink=auto", str(base), str(target))
    _inside(target, "python3", "-m", "venv", "/opt/aftertone/.venv")
    inside = target / "opt/aftertone/wheels"
    shutil.copytree(wheels, inside)
    shutil.copy(lock, inside)
    _inside(target, *_PIP_INSIDE, "--find-links", "/opt/aftertone/wheels", "-r", f"/opt/aftertone/wheels/{lock.name}")
    shutil.rmtree(inside)


_PIP_INSIDE: Final = ("/opt/aftertone/.venv/bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--compile")


def _install_aftertone(root: Path, package: Path) -> None:
    shutil.rmtree(package, ignore_errors=True)
    _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(package), str(CHECKOUT))
    wheel = next(package.glob("*.whl"))
    shutil.copy(wheel, root / "opt/aftertone" / wheel.name)
    _inside(root, *_PIP_INSIDE, "--no-deps", "--force-reinstall", f"/opt/aftertone/{wheel.name}")
    (root / "opt/aftertone" / wheel.name).unlink()
    document = (CHECKOUT / "docs" / "operation.md").read_text()
    if "aftertone:" not in (root / "etc/passwd").read_text():
        _inside(root, *useradd_of(document))
    path, text = unit_of(document)
    for name, content in {**FILES, path.lstrip("/"): text}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "var/lib/aftertone").mkdir(exist_ok=True)
    # An image that believes to be up to date does not look at boot whether it is.
    for name in ("etc/.updated", "var/.updated"):
        (root / name).touch()
    _inside(root, "systemctl", "--quiet", "enable", Path(path).stem, "teller", "systemd-networkd")
    _inside(root, "systemctl", "--quiet", "mask", *MASKED)


def _ext4(content: Path, image: Path, size_mb: int) -> Sequence[str]:
    """Options for mkfs.ext4: owned by whoever owns ``content``, in blocks as large as what a disk writes at once."""
    owner = content.stat()
    extended = f"lazy_itable_init=0,lazy_journal_init=0,root_owner={owner.st_uid}:{owner.st_gid}"
    return ("-q", "-F", "-b", "4096", "-m", "0", "-E", extended, "-d", str(content), str(image), f"{size_mb}M")


def _is_built(path: Path, key: str) -> bool:
    stamp = path.with_name(f"{path.name}.key")
    return path.exists() and stamp.exists() and stamp.read_text() == key


def _make(path: Path, key: str, make: Callable[[Path], None]) -> None:
    """Make under another name and rename, so that what was interrupted is never taken for whole."""
    stamp, new = path.with_name(f"{path.name}.key"), path.with_name(f"{path.name}.new")
    stamp.unlink(missing_ok=True)
    for old in (new, path):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    make(new)
    new.rename(path)
    stamp.write_text(key)


def _inside(root: Path, *command: str) -> None:
    """Run a command inside a root folder, without the pip settings and the locale of the outside."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON", "LC_", "LANG"))}
    clean |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    _run("chroot", str(root), *command, environment=clean | {"HOME": "/root"})


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BuildError(f"{' '.join(command)[:300]}: exit status {done.returncode}\n{tail}")
