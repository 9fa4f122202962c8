"""Waiting for the disk: each callback once, in order, on the loop's thread."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given
from hypothesis import strategies as st

from aftertone.roles.durability import Durability
from tests.unit.roles.world import VirtualLoop


def test_what_is_durable_already_runs_at_once() -> None:
    loop, ran = VirtualLoop(), list[int]()
    durability = Durability(loop.face)
    durability.notify(7)
    loop.advance()
    durability.when(7, lambda: ran.append(7))
    durability.when(8, lambda: ran.append(8))
    assert ran == [7]


def test_the_writer_wakes_the_loop_once_however_often_it_tells() -> None:
    loop = VirtualLoop()
    durability = Durability(loop.face)
    for number in range(100):
        durability.notify(number)
    assert loop.pending() == 1


def test_numbers_never_go_back() -> None:
    loop, ran = VirtualLoop(), list[int]()
    durability = Durability(loop.face)
    durability.notify(9)
    durability.notify(3)
    loop.advance()
    durability.when(9, lambda: ran.append(9))
    assert ran == [9]


def test_a_callback_runs_on_the_loops_thread_when_another_thread_tells() -> None:
    async def run() -> int:
        durability = Durability(asyncio.get_running_loop())
        ran: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        durability.when(1, lambda: ran.set_result(threading.get_ident()))
        thread = threading.Thread(target=durability.notify, args=(1,))
        thread.start()
        found = await asyncio.wait_for(ran, 5)
        thread.join()
        return found

    assert asyncio.run(run()) == threading.get_ident()


def test_a_loop_that_is_closed_is_told_in_vain() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    Durability(loop).notify(1)


STEPS = st.lists(st.one_of(st.just("wait"), st.just("turn"), st.integers(0, 6)), max_size=40)


@given(STEPS)
def test_callbacks_run_once_in_order_and_never_too_early(steps: list[str | int]) -> None:
    loop, ran = VirtualLoop(), list[int]()
    durability = Durability(loop.face)
    asked = durable = 0

    def note(number: int) -> None:
        assert number <= durable
        ran.append(number)

    for step in steps:
        if step == "wait":
            asked += 1
            durability.when(asked, lambda number=asked: note(number))  # type: ignore[misc]
        elif step == "turn":
            loop.advance()
        else:
            durable = max(durable, asked - int(step))
            durability.notify(durable)
        assert ran == list(range(1, len(ran) + 1))
    durable = asked
    durability.notify(durable)
    loop.advance()
    assert ran == list(range(1, asked + 1))
