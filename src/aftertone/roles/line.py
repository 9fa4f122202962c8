"""The line's process: it takes calls and journals them, whatever else is broken.

Owns: putting SIP, the media plane, the journal and the directory together, and their clockwork. Refuses to know: the
catalog, the desk, delivery; it imports none of them and goes on when all of them are dead.

Theory of operation: one event loop, one tick of 20 ms while there are calls, one writer thread. Once a second the line looks at its disk and at
the directory, and publishes its status. A journal that cannot be opened, because the disk is full or broken, is tried again
then; until it opens, callers are told so. Stopping ends every call politely within ``STOP_WITHIN_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import secrets
import signal
import time
import uuid
from datetime import UTC, datetime
from typing import Final

from aftertone.errors import (
    AftertoneError,
    BusyError,
    ConfigError,
    DamagedError,
    EnvironmentFault,
    StorageError,
    StorageFullError,
)
from aftertone.files import OsFiles, machine_boot_id
from aftertone.journal.committer import JournalInUse
from aftertone.journal.record import Kind
from aftertone.journal.stats import SYNC_BOUNDS_S, WriterState, WriterStats
from aftertone.journal.writer import JournalWriter
from aftertone.media.plane import TICK_NS, Limits, Plane
from aftertone.model import Clock
from aftertone.net.addresses import WILDCARDS, family_of, is_literal, is_private, local_host_towards
from aftertone.net.endpoint import SipEndpoint
from aftertone.net.resolver import Resolver
from aftertone.roles import attackers, storage
from aftertone.roles.accounts import Accounts
from aftertone.roles.clerk import Clerk
from aftertone.roles.clips import Clips
from aftertone.roles.clock import LineClock
from aftertone.roles.counts import read_counts
from aftertone.roles.durability import Durability
from aftertone.roles.encryption import Encryption
from aftertone.roles.folder import write_status
from aftertone.roles.identity import SECRET_BYTES, Identity, identity
from aftertone.roles.lamps import Lamps, lamp_settings
from aftertone.roles.memory import Memory
from aftertone.roles.peers import Peers
from aftertone.roles.process import Start, run_role
from aftertone.roles.room import mark_of, reserve_bytes
from aftertone.roles.switchboard import Switchboard
from aftertone.roles.traces import Traces, Watch
from aftertone.sip.events import Event
from aftertone.sip.flow import Address, Flow
from aftertone.sip.settings import AgentSettings
from aftertone.sip.trace import Recorder
from aftertone.voicemail import directory as directories

STOP_WITHIN_S: Final = 0.8
OLD_AUDIO_MS: Final = 200
"""Audio that has waited longer than this for the disk is an alarm: the promise ends at 250 ms."""
ALARM_STAYS_S: Final = 300.0
"""A disk that was slow for a moment is shown for a while, so that somebody can see it."""
LATE_TICK_NS: Final = 200_000_000
DISK_CHECK_S: Final = 1.0
CLOCK_ALARM: Final = (
    "The clock is not set: times of new messages may be wrong until it is; nothing is lost or reordered. "
    "Let the machine synchronise its clock, or set it."
)
OTHER_DESCRIPTORS: Final = 256
"""Descriptors for everything that is no sound: journal, SIP over TCP, the directory."""
SPARE_DIALOGS: Final = 100
"""Dialogs that are just ending need not keep new calls out."""


class Line:
    """One line, from start to stop."""

    def __init__(self, start: Start) -> None:
        settings = start.settings
        self._start, self._settings, self._logger = start, settings, start.logger
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._durability = Durability(self._loop)
        self._clock = LineClock(start.logger)
        self.journal = JournalWriter(
            OsFiles(),
            start.folder.journal,
            boot_id=_boot_id(),
            notify=self._durability.notify,
            segment_bytes=settings.journal.segment_mb * 1024 * 1024,
            commit_interval_ms=settings.journal.commit_ms,
            reserve_bytes=reserve_bytes(settings),
            floor=self._clock.floor,
            resume=self._clock.resume,
        )
        self._not_open: StorageError | None = StorageError("the journal is not open yet")
        self._recorder = Recorder(bytes_a_call=settings.trace.keep_kb * 1024)
        self._clerk = Clerk()
        self._watch = Watch(start.folder, self._recorder, clerk=self._clerk)
        self._encryption = Encryption(settings.sip, start.folder.root, start.logger)
        self._endpoint = SipEndpoint(
            # A call that its last proxy let through with no hop left has arrived: only proxies must refuse it.
            AgentSettings(
                max_dialogs=settings.calls.at_once + SPARE_DIALOGS,
                max_transactions=settings.defence.transactions,
                refuse_spent_hops=False,
                ignore_scanners=settings.sip.scanners == "ignore",
                **lamp_settings(settings.sip),
            ),
            self._on_sip,
            hosts=settings.sip.hosts,
            port=settings.sip.port,
            tls=self._encryption.tls,
            tls_port=settings.sip.tls_port if settings.sip.tls else None,
            advertise=self._advertise,
            guard=attackers.guard_of(settings),
            limits=attackers.connection_limits(settings),
            recorder=self._recorder,
        )
        self._clips = Clips()
        self.plane = Plane(
            settings.calls.at_once,
            host=_sound_host(settings.sip.hosts),
            ports=settings.rtp.ports,
            limits=Limits(
                silence_ns=int(settings.calls.silence_s * 1e9),
                tone_ns=int(settings.calls.tone_s * 1e9),
                longest_ns=int(settings.calls.longest_s * 1e9),
            ),
            silence=self._clips.silence,
            journal=self._journal_packets,
            entropy=secrets.token_bytes,
            report_sockets=_spare_descriptors(settings.calls.at_once),
        )
        self._board = Switchboard(
            settings,
            self._endpoint,
            self.plane,
            self._clips,
            self.journal,
            self._durability,
            admission=self._admission,
            entropy=secrets.token_bytes,
            logger=start.logger,
            clock=self._clock,
            traces=Traces(settings.trace, self._recorder, self._clock),
            peers=Peers(
                settings.sip,
                secret=secrets.token_bytes(16),
                logger=start.logger,
                on_wrong_login=self._wrong_login,
                user_failures=settings.defence.user_failures,
            ),
        )
        self._endpoint.agent.admit_by(self._board.peers.door, self._board.peers.label_of)
        self._board.peers.open_calls_by = self._endpoint.guard.open_calls_by
        self._endpoint.guard.known = self._board.peers.knows
        resolve = Resolver(families={family_of(host) for host in settings.sip.hosts}).resolve
        self._accounts = Accounts(
            settings.sip,
            self._endpoint,
            resolve,
            self._identity(),
            logger=start.logger,
        )
        self._endpoint.lives_on.append(self._accounts.lives_on)
        self._endpoint.agent.reach_by(self._accounts.reached)
        self._board.peers.account_of = self._accounts.account_of
        self._board.peers.dialog_login = self._accounts.dialog_login
        self._board.peers.also_known.append(self._accounts.serves)
        self._lamps = Lamps(
            settings.sip,
            self._endpoint,
            self._board.peers,
            counts=lambda: read_counts(start.folder, time.monotonic_ns()),
            directory=lambda: self._board.directory,
            sender=self._accounts.sender,
            resolve=resolve,
            memory=Memory(start.folder.run / "phones.json", boot_id=_boot_id(), clerk=self._clerk),
            logger=start.logger,
        )
        self._endpoint.lives_on.append(self._lamps.lives_on)
        self._board.peers.also_at_home.append(self._lamps.phones.is_at)
        self._clock_trusted = True
        self._free_bytes = 0
        self._mark = mark_of(settings, 0)
        self._room_unknown: StorageError | None = None
        self._reserve_bytes = 0
        self._reserve_why = ""
        self._directory_seen: tuple[int, int] | None = None
        self._directory_alarm = ""
        self._oldest_audio_ms = 0.0
        self._slow_disk = (0.0, 0.0)
        self._weak_storage = self._judge_storage()
        self._lost_batches = 0
        self._late_ticks = 0
        self._journal_was_ok = True
        self._next_tick_ns = 0
        self._ticking = False

    async def run(self) -> None:
        """Take calls until SIGTERM. Raises ConfigError for a port in use, JournalInUse when another line has the journal."""
        public = self._settings.sip.public_address
        if public and not is_literal(public):
            # A name would fail in every session description, which takes addresses.
            raise ConfigError(f"sip.public_address must be an IP address, not {public!r}")
        try:
            await self._open_journal()
            await self._learn_directory()
            self._look_at_the_disk()
            self._look_at_the_clock()
            try:
                await self._endpoint.start()
            except EnvironmentFault as error:
                raise ConfigError(str(error)) from None
            self._accounts.start()
            self._lamps.start()
            self._loop.add_signal_handler(signal.SIGTERM, self._stop.set)
            self._publish_status()
            # Whoever hears that the line is ready may read how it is.
            await asyncio.to_thread(self._clerk.settle)
            # What was made so far stays for ever: the collector, which stops the sound of all calls, need not look at it again.
            gc.collect()
            gc.freeze()
            blocked = self._admission()
            facts: dict[str, object] = {"sip": self._address(), "port": self._endpoint.port}
            self._start.ready(facts if blocked is None else {**facts, "refuses": str(blocked)})
            if blocked is None:
                self._logger.info("line takes calls", sip=self._address(), epoch=self.journal.stats().epoch)
            else:
                self._logger.warning("line refuses calls", sip=self._address(), why=str(blocked))
            while not self._stop.is_set():
                await self._pause(DISK_CHECK_S)
                if self._not_open is not None and not self._stop.is_set():
                    await self._open_journal()
                self._look_at_the_disk()
                self._look_at_the_clock()
                self._encryption.look()
                attackers.tell(self._endpoint.guard, self._logger, self._board.peers.guesses)
                self._watch.look()
                await self._learn_directory()
                self._publish_status()
            await asyncio.gather(self._end_calls(), self._accounts.stop())
        finally:
            self._watch.end()
            await self._lamps.stop()
            await self._endpoint.stop()
            self.journal.close()
            self._clerk.close()
        self._logger.info("line stopped")

    def _identity(self) -> Identity:
        if not self._settings.sip.accounts:
            return Identity(uuid.uuid4(), secrets.token_bytes(SECRET_BYTES))
        found, why_not_kept = identity(self._start.folder.identity_file)
        if why_not_kept:
            self._logger.warning("registrars will take this for a new phone after a restart", why=why_not_kept)
        return found

    async def _open_journal(self) -> None:
        """Begin an epoch, or note why not, for a disk that may recover. Raises JournalInUse: a person must choose."""
        try:
            # On another thread: a broken disk may take its time, and callers are to hear why nothing is recorded.
            epoch = await asyncio.to_thread(self.journal.open)
        except JournalInUse:
            raise
        except StorageError as error:
            if str(error) != str(self._not_open):
                self._logger.error("the journal cannot be opened: new calls are refused", error=str(error))
            self._not_open = error
        else:
            self._not_open = None
            self._logger.info("the journal is open", epoch=epoch)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _end_calls(self) -> None:
        self._board.shut_down()
        deadline_s = time.monotonic() + STOP_WITHIN_S
        while self._board.live_calls and time.monotonic() < deadline_s:  # noqa: ASYNC110 - ends with the process
            await asyncio.sleep(0.01)

    # -- the clockwork

    def _tick(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._next_tick_ns > LATE_TICK_NS:
            self._late_ticks += 1
            self._next_tick_ns = now_ns
        try:
            self._board.on_media(self.plane.tick(now_ns))
        except Exception:
            # One call's bug must not end the sound of all the others.
            self._logger.exception("a media tick failed")
        oldest_ns = self.journal.oldest_pending_ns()
        if oldest_ns is not None:
            self._oldest_audio_ms = max(self._oldest_audio_ms, (now_ns - oldest_ns) / 1e6)
        self._next_tick_ns += TICK_NS
        self._ticking = self.plane.live > 0
        if self._ticking:
            self._loop.call_at(self._next_tick_ns / 1e9, self._tick)

    def _on_sip(self, event: Event) -> None:
        try:
            if not (self._accounts.on_sip(event) or self._lamps.on_sip(event)):
                self._board.on_sip(event)
        except Exception:
            self._logger.exception("a SIP event could not be handled", sip_event=type(event).__name__)
        if self.plane.live and not self._ticking:
            self._ticking = True
            self._next_tick_ns = time.monotonic_ns() + TICK_NS
            self._loop.call_at(self._next_tick_ns / 1e9, self._tick)

    def _wrong_login(self, flow: Flow) -> None:
        self._endpoint.guard.failed(flow.remote[0], time.monotonic_ns())

    def _advertise(self, peer: Address) -> str | None:
        """Return our public address, except for a peer on this side of the router."""
        public = self._settings.sip.public_address
        return public if public and family_of(public) == family_of(peer[0]) and not is_private(peer[0]) else None

    def _journal_packets(self, batch: bytes, oldest_ns: int) -> None:
        try:
            self.journal.append(Kind.PACKETS, batch, arrival_ns=oldest_ns)
        except BusyError as error:
            self._lost_batches += 1
            self._logger.error("sound was lost: the journal is full", error=str(error))
            self._loop.call_soon(self._board.storage_failed)

    # -- once a second

    def _admission(self) -> AftertoneError | None:
        """Return why a new call cannot be kept, or None when it can."""
        if isinstance(self._not_open, StorageFullError):
            return StorageFullError(f"{self._not_open}; make room: new calls need {self._mark}")
        if self._not_open is not None:
            return StorageError(f"{self._not_open}; see to the disk")
        stats = self.journal.stats()
        root = self._start.folder.root
        if stats.state is not WriterState.OK and not stats.full:
            return StorageError(f"the journal in {root} cannot be written: {stats.last_error}; see to the disk")
        if self._room_unknown is not None:
            return self._room_unknown
        if stats.state is not WriterState.OK or self._free_bytes < self._mark.free_bytes:
            return StorageFullError(
                f"{self._free_bytes / 1e6:.0f} MB are free in {root}, and new calls need {self._mark}; make room"
            )
        return None

    def _look_at_the_disk(self) -> None:
        try:
            self._free_bytes = self.journal.free_bytes()
            self._mark = mark_of(self._settings, self.journal.disk_bytes())
            self._room_unknown = None
        except StorageError as error:
            self._free_bytes = 0
            if str(error) != str(self._room_unknown):
                self._logger.error("the disk does not say how much room it has", error=str(error))
            self._room_unknown = error
        if self._not_open is not None:
            return
        if self._room_unknown is None:
            self.journal.keep_reserve(self._mark.free_bytes)
        stats = self.journal.stats()
        self._tell_of_the_reserve(stats)
        is_ok = stats.state is WriterState.OK
        if self._journal_was_ok and not is_ok:
            self._logger.error("the journal failed: callers are told, new calls are refused", error=stats.last_error)
            self._board.storage_failed()
        elif is_ok and not self._journal_was_ok:
            self._logger.warning("the journal works again: calls are taken")
        self._journal_was_ok = is_ok

    def _tell_of_the_reserve(self, stats: WriterStats) -> None:
        if stats.reserve_why and stats.reserve_why != self._reserve_why:
            log = self._logger.warning if stats.reserve_bytes < self._reserve_bytes else self._logger.info
            log("no room is kept in reserve for calls in progress", why=stats.reserve_why)
        elif stats.reserve_bytes > self._reserve_bytes:
            megabytes = round(stats.reserve_bytes / 1e6)
            self._logger.info("room is kept in reserve for calls in progress", megabytes=megabytes)
        self._reserve_bytes, self._reserve_why = stats.reserve_bytes, stats.reserve_why

    def _look_at_the_clock(self) -> None:
        # Each second, so that a clock that is set is noticed soon, by how much, and between which calls.
        self._clock_trusted = self._clock.now().clock is Clock.TRUSTED

    def _judge_storage(self) -> str:
        """Log what the data folder stands on; return what is wrong with it, unless its owner accepted it."""
        found, accepted = storage.judge(storage.look(self._start.folder.root)), self._settings.storage.accept
        logs = {
            storage.Level.GOOD: self._logger.info,
            storage.Level.CAUTION: self._logger.warning,
            storage.Level.BAD: self._logger.warning if accepted else self._logger.error,
        }
        for advice in found:
            logs[advice.level](f"storage: {advice.sentence}")
        wrong = "; and ".join(advice.why for advice in found if advice.level is storage.Level.BAD)
        if not wrong or accepted:
            return ""
        return (
            f"A power cut can cost finished messages, because {wrong}. What to do is told by aftertone doctor; if you know "
            "and accept it: storage.accept = true"
        )

    async def _learn_directory(self) -> None:
        folder = self._start.folder.directory
        try:
            found = (folder / directories.FILE).stat()
        except OSError:
            return
        seen = (found.st_mtime_ns, found.st_ino)
        if seen == self._directory_seen:
            return
        try:
            fresh = directories.read(folder)
            await asyncio.to_thread(self._clips.learn, folder, fresh)
        except (StorageError, DamagedError) as error:
            self._directory_alarm = f"{error}; the line goes on with the mailboxes it knows"
            self._logger.error("the directory cannot be read", error=str(error))
        else:
            self._board.directory = fresh
            self._directory_alarm = ""
            for warning in self._clips.warnings:
                self._logger.warning(warning)
        self._directory_seen = seen

    def _alarms(self) -> list[dict[str, str]]:
        alarms = [{"code": "greeting", "text": text} for text in self._clips.warnings]
        blocked = self._admission()
        if blocked is not None:
            alarms.append({"code": "storage", "text": f"New calls are refused: {blocked}"})
        if self._directory_alarm:
            alarms.append({"code": "directory", "text": self._directory_alarm})
        if self._oldest_audio_ms > OLD_AUDIO_MS:
            self._slow_disk = (time.monotonic(), self._oldest_audio_ms)
        slow_at_s, slow_ms = self._slow_disk
        if slow_ms and time.monotonic() - slow_at_s < ALARM_STAYS_S:
            text = f"The disk is slow: sound waited {slow_ms:.0f} ms for it (the promise holds below 250 ms)"
            alarms.append({"code": "slow_disk", "text": text})
        alarms += self._lamps.alarms()
        alarms += self._board.alarms()
        alarms += attackers.alarms(self._endpoint.guard, time.monotonic_ns(), self._board.peers.guesses)
        if self._weak_storage:
            alarms.append({"code": "weak_storage", "text": self._weak_storage})
        insecure = self._encryption.alarm(datetime.now(UTC) if self._clock_trusted else None)
        if insecure:
            alarms.append({"code": "tls", "text": insecure})
        if not self._clock_trusted:
            alarms.append({"code": "clock", "text": CLOCK_ALARM})
        if self._lost_batches:
            alarms.append(
                {"code": "lost_sound", "text": f"The disk did not keep up: {self._lost_batches} batches were lost"}
            )
        return alarms + self._accounts.alarms()

    def _address(self) -> str:
        host = self._settings.sip.public_address or self._reachable_host()
        shown = f"[{host}]" if ":" in host else host
        port = "" if self._endpoint.port == 5060 else f":{self._endpoint.port}"
        return f"sip:{self._settings.calls.default_mailbox}@{shown}{port}"

    def _reachable_host(self) -> str:
        host = self._settings.sip.hosts[0]
        # Any address beyond our own network tells which of ours the route leaves from; nothing is sent there.
        return local_host_towards(("192.0.2.1", 5060)) if host in WILDCARDS else host

    def _publish_status(self) -> None:
        # What is waiting was looked at in each tick; what a commit took meanwhile waited too.
        self._oldest_audio_ms = max(self._oldest_audio_ms, self.journal.take_longest_wait_ns() / 1e6)
        oldest_ms, alarms = self._oldest_audio_ms, self._alarms()
        self._oldest_audio_ms = 0.0
        status = {
            "taking_calls": not self._stop.is_set() and self._admission() is None,
            "alarms": alarms,
            "calls": self._board.live_calls,
            "sip_address": self._address(),
            "lines": self._board.peers.facts(),
            "accounts": self._accounts.standing(),
            **self._lamps.facts(),
            "metrics": {**self._metrics(), "oldest_audio_not_durable_ms": oldest_ms},
        }
        self._clerk.write("status", lambda: write_status(self._start.folder, "line", status))

    def _metrics(self) -> dict[str, float]:
        stats, plane, board = self.journal.stats(), self.plane, self._board
        metrics: dict[str, float] = {
            "live_calls": board.live_calls,
            "ringing_calls": board.ringing_calls,
            "rtp_received_packets_total": plane.received_packets,
            "rtp_floods_total": plane.floods,
            "rtp_sent_packets_total": plane.player.sent_packets,
            "late_ticks_total": self._late_ticks,
            "lost_batches_total": self._lost_batches,
            "journal_ok": float(stats.state is WriterState.OK),
            "journal_commits_total": stats.commits,
            "journal_written_bytes_total": stats.written_bytes,
            "journal_queued_bytes": stats.queued_bytes,
            "journal_retired_segments_total": stats.retired_segments,
            "journal_sync_seconds_sum": stats.sync_sum_s,
            "journal_sync_seconds_count": sum(stats.sync_counts),
            "clock_trusted": float(self._clock_trusted),
            "free_bytes": self._free_bytes,
            "low_water_bytes": self._mark.free_bytes,
            "reserve_bytes": stats.reserve_bytes,
        }
        total = 0
        for bound, count in zip(SYNC_BOUNDS_S, stats.sync_counts, strict=False):
            total += count
            metrics[f"journal_sync_within_{bound:g}s_total".replace(".", "_")] = total
        metrics |= {f"rtp_dropped_{reason}_packets_total": count for reason, count in plane.dropped.items()}
        metrics |= plane.reports.figures()
        metrics |= self._accounts.metrics()
        metrics |= {f"calls_{name}_total": count for name, count in board.counters.items()}
        metrics |= {f"callers_{name}_total": count for name, count in board.peers.counters.items()}
        metrics |= {f"sip_{name}_total": count for name, count in self._endpoint.agent.stats.items()}
        metrics |= self._lamps.metrics()
        metrics |= attackers.metrics(self._endpoint.guard)
        metrics |= {f"net_{name}_total": count for name, count in self._endpoint.stats.items()}
        return {**metrics, "connections": self._endpoint.connections}


def _sound_host(hosts: tuple[str, ...]) -> str:
    """Return the one address for the sound of calls: SIP's own, or every interface when SIP has several."""
    if len(hosts) == 1:
        return hosts[0]
    return "::" if any(":" in host for host in hosts) else "0.0.0.0"  # noqa: S104


def _boot_id() -> bytes:
    try:
        return machine_boot_id()
    except OSError:
        return secrets.token_bytes(16)


def _allow_many_sockets() -> None:
    """Raise the soft limit of open files to the hard one: each call holds a socket, and 1,024 are soon used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spare_descriptors(calls: int) -> int:
    """Return how many descriptors are left for reports when each of so many calls has one for its sound."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return calls if soft == resource.RLIM_INFINITY else max(0, min(calls, soft - calls - OTHER_DESCRIPTORS))


async def _serve(start: Start) -> None:
    _allow_many_sockets()
    await Line(start).run()


def main(start: Start) -> None:
    """Take calls until SIGTERM."""
    asyncio.run(_serve(start))


if __name__ == "__main__":
    run_role("line", main)
