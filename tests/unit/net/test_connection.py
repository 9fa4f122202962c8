"""aftertone.net.connection: one TCP peer, with a transport of wood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aftertone.net.connection import Connection, ConnectionLimits
from aftertone.sip.flow import Flow
from tests.unit.sip.kit import TCP_FLOW, request


class WoodenTransport(asyncio.Transport):
    """Remembers what is done to it; nothing leaves it, as with a peer that does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = False
        self.pauses: list[bool] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.pauses.append(True)

    def resume_reading(self) -> None:
        self.pauses.append(False)


class Owner:
    """Takes what a connection tells."""

    def __init__(self, flow: Flow | None = TCP_FLOW) -> None:
        self.flow = flow
        self.messages: list[bytes] = []
        self.closed = 0
        self.busy = False
        self.cuts: list[str] = []

    def connection_opened(self, connection: Connection) -> Flow | None:
        return self.flow

    def connection_message(self, data: bytes, flow: Flow) -> None:
        assert flow == TCP_FLOW
        self.messages.append(data)

    def connection_closed(self, connection: Connection) -> None:
        self.closed += 1

    def in_use(self, flow: Flow) -> bool:
        return self.busy

    def cut_off(self, why: str) -> None:
        self.cuts.append(why)


def opened(owner: Owner, limits: ConnectionLimits | None = None) -> tuple[Connection, WoodenTransport]:
    connection, transport = Connection(owner, limits or ConnectionLimits()), WoodenTransport()
    connection.connection_made(transport)
    return connection, transport


def test_a_peer_that_does_not_read_is_not_read_from_and_then_cut_off() -> None:
    async def main() -> None:
        owner = Owner()
        connection, transport = opened(owner, ConnectionLimits(max_waiting_bytes=100))
        assert transport.high == 25
        connection.send(b"x" * 60)
        connection.pause_writing()
        connection.resume_writing()
        assert transport.pauses == [True, False]
        connection.send(b"x" * 60)
        assert transport.aborted
        assert owner.cuts == ["unread"]
        assert len(transport.written) == 60
        connection.send(b"x")
        connection.pause_writing()
        assert transport.pauses == [True, False]
        connection.connection_lost(None)
        assert owner.closed == 1

    asyncio.run(main())


def test_trickling_does_not_buy_time() -> None:
    async def main() -> None:
        connection, _ = opened(Owner())
        first = connection._alarm
        for byte in b"INVITE sip:a@b SIP/2.0\r\n":
            connection.data_received(bytes([byte]))
        assert connection._alarm is first
        connection.connection_lost(None)
        assert first is not None
        assert first.cancelled()

    asyncio.run(main())


def test_a_whole_message_buys_the_long_wait() -> None:
    async def main() -> None:
        owner = Owner()
        limits = ConnectionLimits(idle_s=1000.0, unfinished_s=1.0)
        connection, transport = opened(owner, limits)
        connection.data_received(request())
        assert owner.messages == [request()]
        alarm = connection._alarm
        assert alarm is not None
        assert alarm.when() > asyncio.get_running_loop().time() + 500
        connection.data_received(b"INV")
        assert connection._alarm is not None
        assert connection._alarm.when() < alarm.when()
        connection.connection_lost(None)
        transport.closed = True
        connection.data_received(request())
        assert len(owner.messages) == 1

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (nothing tells)
            await asyncio.sleep(0.001)


def test_nothing_and_half_a_message_end_with_their_time() -> None:
    async def main() -> None:
        for bytes_first, limits in (
            (b"", ConnectionLimits(first_s=0.01, unfinished_s=1000)),
            (request() + b"INV", ConnectionLimits(first_s=1000, unfinished_s=0.01)),
        ):
            owner = Owner()
            connection, transport = opened(owner, limits)
            connection.data_received(bytes_first)
            await until(lambda transport=transport: transport.aborted)  # type: ignore[misc]
            assert owner.cuts == ["slow"]
            connection.connection_lost(None)

    asyncio.run(main())


def test_a_quiet_connection_lives_as_long_as_something_lives_on_it() -> None:
    async def main() -> None:
        owner = Owner()
        owner.busy = True
        connection, transport = opened(owner, ConnectionLimits(idle_s=0.005, idle_in_use_s=1000))
        connection.data_received(request())
        looks = []
        owner.in_use = lambda flow: not looks.append(flow)  # type: ignore[method-assign, func-returns-value]
        await until(lambda: len(looks) > 2)
        assert not transport.aborted
        owner.in_use = lambda flow: False  # type: ignore[method-assign]
        await until(lambda: transport.aborted)
        assert owner.cuts == ["idle"]
        connection.connection_lost(None)

    asyncio.run(main())


def test_even_a_call_does_not_keep_a_silent_connection_for_ever() -> None:
    async def main() -> None:
        owner = Owner()
        owner.busy = True
        connection, transport = opened(owner, ConnectionLimits(idle_s=0.005, idle_in_use_s=0.02))
        connection.data_received(request())
        await until(lambda: transport.aborted)
        assert owner.cuts == ["idle"]
        connection.connection_lost(None)

    asyncio.run(main())


def test_a_ping_that_is_answered_and_one_that_is_not() -> None:
    async def main() -> None:
        owner = Owner()
        connection, transport = Connection(owner, ConnectionLimits(pong_s=0.01), TCP_FLOW), WoodenTransport()
        connection.connection_made(transport)
        connection.keep_alive(answered=True)
        connection.keep_alive(answered=True)
        assert transport.written == b"\r\n\r\n"
        connection.data_received(b"\r\n")
        assert connection._pong_alarm is None
        assert transport.written == b"\r\n\r\n"
        connection.data_received(b"\r\n\r\n")
        assert transport.written == b"\r\n\r\n\r\n"
        connection.keep_alive(answered=True)
        await until(lambda: transport.aborted)
        assert owner.cuts == ["silent"]
        connection.connection_lost(None)

    asyncio.run(main())


def test_bytes_that_come_with_the_end_of_a_handshake_are_not_lost() -> None:
    async def main() -> None:
        owner = Owner()
        connection, transport = Connection(owner, ConnectionLimits()), WoodenTransport()
        connection.data_received(request()[:40])
        connection.data_received(request()[40:])
        connection.connection_made(transport)
        assert owner.messages == [request()]
        connection.connection_lost(None)
        assert owner.closed == 1

    asyncio.run(main())


def test_a_connection_that_ends_with_its_handshake_leaves_nothing() -> None:
    async def main() -> None:
        owner = Owner()
        connection, transport = Connection(owner, ConnectionLimits()), WoodenTransport()
        connection.connection_lost(None)
        assert owner.closed == 0
        connection.connection_made(transport)
        assert transport.aborted
        assert owner.closed == 1
        assert connection._alarm is None

    asyncio.run(main())


def test_a_connection_that_is_not_wanted_is_aborted() -> None:
    async def main() -> None:
        connection, transport = opened(Owner(None))
        assert transport.aborted
        connection.data_received(request())
        connection.connection_lost(None)

    asyncio.run(main())
