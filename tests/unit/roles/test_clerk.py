"""Small files are written beside the loop: nobody waits for the disk, the newest counts, the end is bounded."""

from __future__ import annotations

import threading
import time

import pytest

from aftertone.roles.clerk import Clerk


def test_jobs_are_done_in_order_of_their_kinds() -> None:
    clerk, done = Clerk(), list[str]()
    gate = threading.Event()
    clerk.write("first", lambda: done.append("first") if gate.wait(10) else None)
    clerk.write("status", lambda: done.append("status"))
    clerk.write("phones", lambda: done.append("phones"))
    gate.set()
    assert clerk.close(10)
    assert done == ["first", "status", "phones"]


def test_whoever_hands_over_does_not_wait_and_the_newest_of_a_kind_counts() -> None:
    clerk, done = Clerk(), list[int]()
    disk, begun = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        disk.wait(10)

    clerk.write("status", slow)
    assert begun.wait(10)
    for number in range(1000):
        clerk.write("status", lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == [], "the disk has not answered yet"
    assert not clerk.is_free("status")
    assert clerk.is_free("phones")
    disk.set()
    assert clerk.close(10)
    assert done == [999]
    assert clerk.is_free("status")


def test_a_disk_that_never_answers_does_not_keep_the_end_waiting() -> None:
    clerk, disk = Clerk(), threading.Event()

    def stuck() -> None:
        disk.wait(60)

    clerk.write("status", stuck)
    begun_s = time.monotonic()
    assert not clerk.close(0.05)
    assert time.monotonic() - begun_s < 30
    clerk.write("status", lambda: None)
    assert not clerk.is_free("status"), "what comes after the end is not begun"
    disk.set()


def test_a_disk_that_refuses_costs_that_file_alone() -> None:
    clerk, done = Clerk(), list[str]()

    def refused() -> None:
        raise OSError("no space left")

    clerk.write("status", refused)
    clerk.write("phones", lambda: done.append("phones"))
    assert clerk.close(10)
    assert done == ["phones"]


def test_a_mistake_costs_that_file_alone_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    clerk, done = Clerk(), list[str]()

    def mistaken() -> None:
        raise TypeError("not JSON")

    clerk.write("status", mistaken)
    clerk.write("phones", lambda: done.append("phones"))
    assert clerk.close(10)
    assert done == ["phones"]
    assert "could not be written" in caplog.text
