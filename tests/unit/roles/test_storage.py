"""The ground under the data folder: what it means, in words."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from aftertone.errors import StorageError, StorageFullError
from aftertone.roles import storage
from aftertone.roles.block_device import Disk
from aftertone.roles.mounts import Mount
from aftertone.roles.storage import (
    GOOD,
    WEAK,
    Advice,
    Ground,
    Level,
    judge,
    judge_disk,
    judge_mount,
    look,
    measure_sync_ms,
    percentile,
    report,
)

SSD = Disk("sda", "Fast 1000", "scsi", "write back")


def a_ground(kind: str, options: str = "rw", journal: bool | None = True, *disks: Disk) -> Ground:
    mount = Mount("/srv", kind, options, "/dev/sda1", "8:1")
    return Ground(Path("/srv/var"), mount, journal if kind in ("ext4", "ext3") else None, disks or (SSD,))


# file systems


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_what_keeps_the_promise(kind: str) -> None:
    advice = judge_mount(a_ground(kind))
    assert advice.level is Level.GOOD
    assert advice.found.startswith(f"{kind} (/dev/sda1 on /srv, rw): good")
    assert advice.todo == ""


@pytest.mark.parametrize("kind", sorted(WEAK))
def test_what_does_not_keep_the_promise_says_why_and_what_to_do(kind: str) -> None:
    (advice,) = judge(a_ground(kind))
    assert advice.level is Level.BAD
    assert "it works, but a power cut can cost finished messages, because" in advice.found
    assert WEAK[kind] in advice.found
    assert advice.todo


@pytest.mark.parametrize("kind", ["vfat", "exfat", "tmpfs", "nfs", "nfs4", "cifs", "overlay", "ext2"])
def test_the_weak_ones_that_people_have(kind: str) -> None:
    assert kind in WEAK
    assert kind not in GOOD


@pytest.mark.parametrize("kind", ["ext4", "ext3"])
def test_ext4_without_a_journal_is_not_ext4(kind: str) -> None:
    advice = judge_mount(a_ground(kind, journal=False))
    assert advice.level is Level.BAD
    assert "has no journal" in advice.found
    assert "tune2fs -O has_journal /dev/sda1" in advice.todo


def test_ext4_of_which_nobody_knows() -> None:
    advice = judge_mount(a_ground("ext4", journal=None))
    assert advice.level is Level.CAUTION
    assert "tune2fs -l /dev/sda1" in advice.todo


@pytest.mark.parametrize(
    ("kind", "option"),
    [("ext4", "nobarrier"), ("ext4", "barrier=0"), ("btrfs", "nobarrier"), ("f2fs", "fsync_mode=nobarrier")],
)
def test_barriers_that_are_off_spoil_the_best_file_system(kind: str, option: str) -> None:
    advice = judge_mount(a_ground(kind, f"rw,{option}"))
    assert advice.level is Level.BAD
    assert f"the option {option}" in advice.found
    assert f"Remove {option}" in advice.todo


def test_all_that_is_wrong_is_told() -> None:
    advice = judge_mount(a_ground("ext4", "rw,nobarrier", False))
    assert "no journal" in advice.found
    assert "nobarrier keeps" in advice.found
    assert "tune2fs" in advice.todo
    assert "/etc/fstab" in advice.todo


def test_a_container_and_its_very_long_options() -> None:
    advice = judge_mount(a_ground("overlay", "rw,volatile,lowerdir=" + "x" * 5000))
    assert advice.level is Level.BAD
    assert "Mount a volume" in advice.todo
    assert "volatile" in advice.todo
    assert len(advice.sentence) < 700


def test_what_is_unknown_is_said_to_be_unknown() -> None:
    advice = judge_mount(a_ground("newfs"))
    assert advice.level is Level.CAUTION
    assert "not known to us" in advice.found
    (advice,) = judge(Ground(Path("/srv/var"), None))
    assert advice.level is Level.CAUTION
    assert "could not be found out" in advice.found


def test_a_disk_that_cannot_be_found_is_a_caution() -> None:
    _, advice = judge(replace(a_ground("ext4"), disks=()))
    assert (advice.level, "/dev/sda1" in advice.found) == (Level.CAUTION, True)


def test_each_disk_of_an_array_is_judged() -> None:
    usb = Disk("sdb", "", "usb", "write back")
    assert [a.level for a in judge(a_ground("btrfs", "rw", None, SSD, usb))] == [Level.GOOD, Level.GOOD, Level.CAUTION]


# disks


@pytest.mark.parametrize(
    ("disk", "level", "said"),
    [
        (SSD, Level.GOOD, "sda, a disk (Fast 1000; it has a write cache, which the kernel flushes at each sync): good"),
        (replace(SSD, rotational=True), Level.GOOD, "a disk with platters"),
        (Disk("nvme0n1", "", "nvme", "write through", fua=True), Level.GOOD, "power-loss protection; FUA"),
        (Disk("sdb", "Stick", "usb", "write back"), Level.CAUTION, "USB bridges confirm a sync before"),
        (Disk("sdb", "Stick", "usb", "write through"), Level.CAUTION, "the kernel sends it no flushes"),
        (Disk("mmcblk0", "SC32G", "sd"), Level.CAUTION, "mmcblk0, an SD card (SC32G): many cards"),
        (Disk("mmcblk1", "", "mmc"), Level.CAUTION, "eMMC flash"),
        (Disk("vda", "", "virtual", "write back"), Level.CAUTION, "the host's choice"),
        (Disk("nbd0", "", "network"), Level.CAUTION, "the server's choice"),
        (Disk("loop0", "", "loop", "write back", backing="/srv/i"), Level.CAUTION, "over the file /srv/i"),
        (Disk("zram0", "", "memory"), Level.BAD, "it lives in memory"),
        (replace(SSD, removable=True), Level.CAUTION, "taken out"),
        (Disk("sdc", "", "scsi"), Level.CAUTION, "does not tell whether it has a write cache"),
        (
            Disk("sdc", "", "scsi", "write through", cache_type="write back"),
            Level.BAD,
            "the disk has a write cache that the kernel was told not to flush",
        ),
    ],
)
def test_what_is_thought_of_a_disk(disk: Disk, level: Level, said: str) -> None:
    advice = judge_disk(disk)
    assert (advice.level, said in advice.found) == (level, True), advice
    assert bool(advice.todo) == (level is not Level.GOOD)


@pytest.mark.parametrize("bus", ["usb", "sd", "mmc"])
def test_of_some_disks_only_the_plug_tells_the_truth(bus: str) -> None:
    assert "--pull-the-plug" in judge_disk(Disk("x", "", bus, "write back")).todo


def test_a_sentence_has_both_parts() -> None:
    assert Advice(Level.GOOD, "good").sentence == "good."
    assert Advice(Level.BAD, "bad", "Run.").sentence == "bad. Run."


# measuring


def test_measuring_leaves_nothing_behind(tmp_path: Path) -> None:
    p50_ms, p99_ms = measure_sync_ms(tmp_path)
    assert 0 < p50_ms <= p99_ms
    assert not list(tmp_path.iterdir())


def test_a_slow_disk_is_not_measured_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(storage, "MEASURE_S", 0.0)
    monkeypatch.setattr(os, "fdatasync", seen.append)
    measure_sync_ms(tmp_path)
    assert len(seen) == storage.FEWEST_PROBES


def test_percentiles() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values[:1], 0.99)) == (50, 99, 1)
    assert percentile([], 0.5) == 0


def test_a_folder_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        measure_sync_ms(tmp_path / "nowhere")


def test_a_disk_that_fails_while_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        measure_sync_ms(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_report_puts_it_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PROBES", 3)
    found = report(tmp_path)
    assert found.disk_bytes > found.free_bytes > 0
    assert found.free_files is None or found.free_files > 0
    assert (found.advice, *found.disks) == judge(look(tmp_path))


@pytest.mark.parametrize(("number", "kind"), [(28, StorageFullError), (122, StorageFullError), (30, StorageError)])
def test_a_disk_that_takes_nothing_is_reported_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError]
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail)
    found = report(tmp_path)
    assert (found.advice, *found.disks) == judge(look(tmp_path))
    assert found.disk_bytes > found.free_bytes > 0
    assert type(found.unmeasured) is kind
    assert os.strerror(number) in str(found.unmeasured)
    assert (found.sync_p50_ms, found.sync_p99_ms) == (0, 0)


def test_a_disk_that_does_not_answer_is_an_error_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    with pytest.raises(StorageError, match="does not answer: Input/output error"):
        report(tmp_path)


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PROBES", 3)
    found = report(tmp_path, proc=tmp_path / "proc", sys=tmp_path / "sys")
    assert (found.advice.level, found.disks) == (Level.CAUTION, ())
