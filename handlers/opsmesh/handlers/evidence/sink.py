"""The evidence sink: the process that writes every stored event to the archive, in order and once.

The one rule: its position is the last line of the archive, never what the broker believes. An
acknowledgement follows the disk and serves `opsmesh status` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import time
from pathlib import Path

if __name__ == "__main__":  # before everything that it makes cheaper
    from opsmesh.router import beginning

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from opsmesh.handlers import figures
from opsmesh.handlers.errors import ArchiveDamaged
from opsmesh.handlers.evidence import consumer, gaps, lines
from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.evidence.consumer import BATCH
from opsmesh.handlers.evidence.doubles import Doubles, Original, Stamped
from opsmesh.handlers.evidence.gaps import Gaps
from opsmesh.handlers.evidence.ids import Ids
from opsmesh.handlers.evidence.sealer import Sealer
from opsmesh.router import (
    connection,
    logs,
    notify,
    paths,
    redaction,
    sink_consumer,
    starting,
    state_format,
    tasks,
    topology,
)
from opsmesh.router.errors import BrokerUnavailable, NeedsUpgrade, RouterError, StateTooNew
from opsmesh.router.metrics import telling
from opsmesh.router.pull import Delivery, Pull, delivery
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.router.wire import Received
from opsmesh.schemas import times

#: Asks a running sink to close its open segment, so that it is sealed.
SEAL = signal.SIGUSR1
#: Seconds between attempts at a broker, stream or disk that is not there.
RETRY = 0.5

log = structlog.get_logger()


class _Lost(Exception):
    """The consumer can no longer be trusted to be complete: begin a new one."""


class Sink:
    """Writes the stream to an archive until `stop` is set."""

    def __init__(self, settings: Settings, archive: Archive, stop: asyncio.Event) -> None:
        self._settings = settings
        self._name = sink_consumer.name(settings.host)
        self._archive = archive
        self._redactor = redaction.load(settings)
        self._stop = stop
        self._arrived: list[tuple[Received, Delivery]] = []
        self._lost = ""
        self._wake = asyncio.Event()
        self._throttle = logs.Throttle()
        self._gaps = Gaps(archive.folder, host=settings.host, grace_s=settings.evidence.gap_grace)
        number, size = archive.end
        self._ids = Ids(archive.folder, number=number, size=size)
        self._doubles = Doubles(
            self._ids, window_s=settings.events.duplicate_window, same=self._same
        )
        self._client: Client | None = None
        self._committing = self._end_asked = False
        self._sealer = Sealer(
            archive.folder,
            Path(paths.keys_dir()),
            host=settings.host,
            client=lambda: self._client,
        )

    async def run(self) -> None:
        """Return after `stop`, with everything committed that had begun to be."""
        client: Client | None = None
        sealing = asyncio.create_task(self._sealer.run())
        beating = asyncio.create_task(notify.beat())
        try:
            await asyncio.to_thread(self._gaps.load)
            self._doubles.vigilant_us = self._gaps.vigilant_us
            while client is None and not self._stop.is_set():
                client = self._client = await self._connect()
            while client is not None and not self._stop.is_set():
                if not client.is_connected:  # the connection itself says so, and tries again
                    await self._pause()
                    continue
                try:
                    await self._session(client)
                except _Lost as lost:
                    if logs.away.allows(logs.BROKER):
                        log.info("evidence.interrupted", reason=str(lost), seq=self._archive.seq)
                    # a broker that says goodbye still answers nothing for a moment
                    await self._pause()
                except (StateTooNew, NeedsUpgrade) as error:
                    await self._trouble("state.refused", str(error))
                except NotFoundError:
                    await self._trouble("evidence.no_stream", f"stream {EVENTS} is not there yet")
                except (NatsError, OSError, TimeoutError) as error:
                    if logs.away.allows(logs.BROKER):
                        log.warning("evidence.broker", reason=f"{type(error).__name__}: {error}")
                    await self._pause()
        finally:
            await tasks.end([sealing, beating])
            with contextlib.suppress(OSError):
                self._gaps.save()
            if client is not None:
                await client.close()

    def end_segment(self) -> None:
        """Close the open segment, which is then sealed: `opsmesh evidence seal` asks for it."""
        self._end_asked = True
        if self._committing:  # in a thread, which must not be disturbed; it ends soon
            return
        self._end_asked = False
        try:
            self._archive.end_segment()
        except OSError as error:
            log.warning("evidence.not_written", reason=str(error))
        self._sealer.wake()

    async def _connect(self) -> Client | None:
        try:
            where = connection.endpoint(self._settings, role="sink")
        except BrokerUnavailable as error:
            await self._trouble("evidence.no_broker", str(error))
            return None
        # A patient connection waits for ever; the request to stop must not.
        connecting = asyncio.create_task(connection.connect(where, name="sink"))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not connecting.done():
            await tasks.end([connecting])
            return None
        try:
            return connecting.result()
        except BrokerUnavailable as error:
            await self._trouble("evidence.no_broker", str(error))
            return None

    async def _session(self, client: Client) -> None:
        """One life of one consumer: from the archive's position until it is lost, or `stop`."""
        # what an earlier session staged and could not write comes first
        await self._commit()
        js = client.jetstream(timeout=topology.API_TIMEOUT)
        info = await js.stream_info(EVENTS)
        state_format.check(state_format.of(info.config.metadata), "the broker")
        await self._check_position(js, info)
        await consumer.begin(js, info, self._name, after=self._archive.seq)
        self._arrived, self._lost = [], ""
        pull = Pull(
            client,
            EVENTS,
            self._name,
            batch=BATCH,
            on_message=self._take,
            on_lost=self._lose,
            once=True,
        )
        waiting = asyncio.create_task(self._stop.wait())
        waiting.add_done_callback(lambda _: self._wake.set())
        await pull.start()
        log.info("evidence.started", seq=self._archive.seq)
        notify.ready()
        self._sealer.wake()
        telling = asyncio.create_task(self._gaps.run(client))
        try:
            await self._write(client, pull)
        finally:
            waiting.cancel()
            await tasks.end([telling])
            await pull.stop()

    async def _check_position(self, js: JetStreamContext, info: StreamInfo) -> None:
        """A stream that went back, or another one of the same name, is noted in the chain."""
        position, stream = self._archive.seq, info.state
        if not await consumer.gone_back(js, info, self._archive, self._redactor):
            return
        facts = {"kind": lines.REGRESSED, "archived": position, "stream_last": stream.last_seq}
        log.error("evidence.stream_regressed", **facts)
        self._archive.note(facts, seq=max(stream.first_seq, 1) - 1)
        # what was stored a moment ago may have been archived, and be sent again
        self._doubles.watch(times.now_us())
        await self._commit()

    def _take(self, msg: Received) -> None:
        self._arrived.append((msg, delivery(msg.reply)))
        self._wake.set()

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._wake.set()

    async def _write(self, client: Client, pull: Pull) -> None:
        delivered = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            arrived, self._arrived = self._arrived, []
            whole = [
                (msg, where)
                for count, (msg, where) in enumerate(arrived, delivered + 1)
                if where.consumer_seq == count
            ]
            delivered += len(whole)
            if whole:
                await self._stage(whole)
                await self._commit()
                if not self._archive.uncommitted:
                    figures.ARCHIVED.add(by=len(whole))
                if client.is_connected and not self._archive.uncommitted:
                    await client.publish(whole[-1][0].reply, b"+ACK")
                pull.done(len(whole))
            if self._stop.is_set():
                with contextlib.suppress(NatsError, OSError, TimeoutError):
                    await client.flush(1)
                return
            if len(whole) < len(arrived):
                raise _Lost(f"message {delivered + 1} of the consumer did not arrive")
            if self._lost:
                raise _Lost(self._lost)

    def _same(self, archived: bytes, data: bytes, stored_us: int) -> bool:
        return self._redactor.same(archived, data, stored=(EVENTS, 0, stored_us))

    async def _stage(self, arrived: list[tuple[Received, Delivery]]) -> None:
        archive, suspicious, stamp_of = self._archive, self._doubles.suspicious, gaps.stamp
        redact = self._redactor.redact_bytes
        messages: list[Stamped] = []
        suspects: list[Stamped] = []
        for msg, where in arrived:
            if where.stream_seq > archive.seq:
                stored_us = where.timestamp_ns // 1000
                # Again: a foreign client may have published what no agent has seen.
                stored = (EVENTS, where.stream_seq, stored_us)
                data = redact(msg.data, stored=stored)
                stamp = stamp_of(data)
                message = (where.stream_seq, stored_us, data, stamp)
                messages.append(message)
                if stamp is not None and stamp.id and suspicious(stamp.id, stored_us):
                    suspects.append(message)
        if not messages:
            return
        originals: dict[int, Original] = {}
        if suspects:  # rarely; it reads files
            originals = await asyncio.to_thread(self._doubles.find, suspects, messages)
        self._stage_all(messages, originals)
        caught_up = not arrived[-1][1].pending
        self._gaps.staged(len(messages), stored_us=messages[-1][1], caught_up=caught_up)

    def _stage_all(self, messages: list[Stamped], originals: dict[int, Original]) -> None:
        archive, add, take = self._archive, self._ids.add, self._gaps.take
        made: dict[int, str] = {}
        for seq, stored_us, data, stamp in messages:
            if seq > archive.seq + 1:
                unread = (archive.seq + 1, seq - 1)
                self._gaps.removed(*unread, before=archive.hash, stored_us=stored_us)
            if originals and (original := originals.get(seq)) is not None:
                hash = original.hash or made[original.seq]
                self._stage_again(seq, stored_us, data, original, hash)
            elif stamp is None:
                archive.event(seq, stored_us, data)
            else:
                archive.event(seq, stored_us, data, is_object=True)
                if stamp.id:
                    add(stamp.id, archive.number, archive.offset)
            if originals:
                made[seq] = archive.hash
            if stamp is not None and stamp.seq is not None:
                take(stamp, stored_us)

    def _stage_again(
        self, seq: int, stored_us: int, data: bytes, original: Original, hash: str
    ) -> None:
        archive = self._archive
        facts = {"of": original.seq, "of_hash": hash, "id": original.id}
        if original.same:
            facts["sha256"] = hashlib.sha256(data).hexdigest()
            archive.duplicate(seq, stored_us, facts)
            return
        archive.event(seq, stored_us, data)
        self._ids.add(original.id, archive.number, archive.offset)
        archive.note({"kind": lines.REUSED, **facts}, seq=seq)
        if self._throttle.allows("evidence.id_reused"):
            log.warning("evidence.id_reused", seq=seq, **facts)

    async def _commit(self) -> None:
        """Put on disk what is staged; a disk that is full is tried again until `stop`.

        In a thread: the next messages arrive while this commit waits for the disk.
        """
        closed = self._archive.closed
        self._committing = True
        try:
            while self._archive.uncommitted:
                try:
                    began = time.perf_counter()
                    await asyncio.to_thread(self._put)
                    figures.COMMIT.observe(time.perf_counter() - began)
                    end, vigilant_us = self._archive.end, self._doubles.vigilant_us
                    self._gaps.committed(*end, vigilant_us=vigilant_us)
                except OSError as error:
                    figures.FAILED_COMMITS.add()
                    if self._stop.is_set():
                        return
                    await self._trouble("evidence.not_written", str(error))
        finally:
            self._committing = False
        if self._end_asked:
            self.end_segment()
        elif self._archive.closed != closed:
            self._sealer.wake()

    def _put(self) -> None:
        self._archive.commit()
        self._ids.write()

    async def _trouble(self, event: str, reason: str) -> None:
        """Say it, unless it was said a short while ago, and pause."""
        if self._throttle.allows(event):
            log.warning(event, reason=reason)
        await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY):
                await self._stop.wait()


async def _serve(settings: Settings, archive: Archive) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sink = Sink(settings, archive, stop)
    loop.add_signal_handler(SEAL, sink.end_segment)
    figures.LAST_SEQUENCE.read_from(lambda: archive.seq)
    async with telling.told("sink", figures.SINK):
        await sink.run()


def main() -> int:
    """Run the sink in the foreground until SIGTERM or Ctrl-C; the exit code."""
    settings = Settings()
    if starting.refused("sink", settings):
        return 1
    logs.configure(
        "sink", level=settings.log_level, style=settings.log, redactor=redaction.of_logs(settings)
    )
    try:
        with Archive(
            settings.evidence_dir, stream=EVENTS, segment_bytes=settings.evidence.segment_bytes
        ) as archive:
            tasks.run(_serve(settings, archive))
    except (RouterError, ArchiveDamaged, OSError) as error:
        log.error("evidence.not_started", error=str(error), hint=getattr(error, "hint", ""))  # noqa: TRY400 (a fact, not a bug)
        return 1
    return 0


if __name__ == "__main__":
    beginning.over()
    raise SystemExit(main())
