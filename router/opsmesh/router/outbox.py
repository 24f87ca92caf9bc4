"""The outbox: an accepted event goes to the broker, or to the spool and from there to the broker.

The one rule: order. While the spool holds anything, new events go behind it; a file is removed
only after the broker has acknowledged all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from itertools import count
from typing import Final, NamedTuple

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.router import deadletter, spool
from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.intake import Intake, Message
from opsmesh.router.publish import Publisher
from opsmesh.schemas import ids, times

#: Seconds until an event that the broker does not acknowledge is spooled. Less than a client waits
#: for its answer (`client.TIMEOUT`), so that the client need not spool it a second time.
ACK_TIMEOUT: Final = 1.5
#: Seconds that new events wait for the last of the spooled ones before they are spooled, too.
HOLD: Final = 0.1
#: Seconds between looks into an empty spool: a client that found no agent writes there.
SCAN: Final = 2.0
#: Seconds between attempts to send what is spooled: first and longest wait.
RETRY_FIRST, RETRY_LONGEST = 0.25, 5.0
#: Most events and bytes in one spool file.
MAX_FILE_EVENTS, MAX_FILE_BYTES = 1000, 4 * 1024 * 1024
#: Events that are read from a file before other work gets its turn.
SLICE: Final = 100

log = structlog.get_logger()


class _File(NamedTuple):
    name: str
    lines: list[bytes]


class Outbox:
    """Publish or spool; owns the spool folder while the agent runs."""

    def __init__(self, spool_dir: str, intake: Intake, *, host: str) -> None:
        self.last_seq = 0
        self._dir = spool_dir
        self._intake = intake
        self._host = host
        self._client: Client | None = None
        self._publisher: Publisher | None = None
        self._connection = -1
        self._behind = True  # until a look into the spool has shown that it is empty
        self._arrivals = count()
        self._holding = False
        self._held: deque[asyncio.Future[None]] = deque()
        self._in_flight = 0
        self._landed = asyncio.Event()
        self._to_spool: list[tuple[int, bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def open(self, client: Client, *, connection: int) -> None:
        """Send through this client until its connection breaks.

        `connection` is what `stats["reconnects"]` was before the streams were checked.
        """
        if client is not self._client:
            self._client = client
            self._publisher = Publisher(client, ack_timeout=ACK_TIMEOUT)
        self._connection = connection
        self.last_seq = 0
        self._wake.set()

    @property
    def is_open(self) -> bool:
        """Whether the broker can be reached, and its streams were checked since it came back."""
        client = self._client
        return (
            client is not None
            and client.is_connected
            and client.stats["reconnects"] == self._connection
        )

    async def deliver(self, message: Message) -> int | None:
        """The sequence at the broker, or None: safe in the spool. OSError when it is neither."""
        arrival = next(self._arrivals)
        if self._holding or self._held:
            await self._hold()
        if self.is_open and not self._behind:
            self._in_flight += 1
            try:
                return await self._publish(message)
            except NotAcknowledged:
                self._behind = True
            finally:
                self._in_flight -= 1
                self._landed.set()
        self._behind = True
        await self._spool(arrival, message.data)
        return None

    async def dead_letter(self, line: bytes, error: Exception) -> None:
        """Keep a line that is no event, byte for byte but for its secrets, with the reason."""
        line = self._intake.redactor.redact_bytes(line)
        if self._client is not None and self.is_open:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                return await self._write_letter(self._client, line, error, ids.uuid7())
        # As it stands: when it is read from the spool it is found to be no event again.
        await self._spool(next(self._arrivals), line)
        return None

    async def drain(self) -> None:
        """Send what is spooled, for ever."""
        spool.sweep(self._dir)
        wait = RETRY_FIRST
        while True:
            self._wake.clear()
            if await self.catch_up():
                wait = RETRY_FIRST
                await self._pause(SCAN)
            else:
                await self._pause(wait)
                wait = min(wait * 2, RETRY_LONGEST)

    async def catch_up(self) -> bool:
        """Send every file, the oldest first; False when the broker did not take all of it."""
        try:
            while True:
                waiting = spool.names(self._dir)
                if not waiting and self._writer is None:
                    self._behind = False
                    return True
                self._behind = True
                if not self.is_open:
                    return False
                files = await asyncio.to_thread(self._read_some, waiting)
                # The last stretch: new events wait for its end, a moment. Under a steady load they
                # would take the way through the spool for ever.
                self._holding = len(files) == len(waiting)
                if not await self._send_files(files):
                    return False
                if self._holding and self._writer is not None:
                    await self._writer
        except OSError as error:
            log.error("spool.unreadable", error=str(error))  # noqa: TRY400
            return False
        finally:
            self._holding = False
            self._release()

    async def close(self) -> None:
        """Wait until everything that was accepted is at the broker or in the spool."""
        while self._in_flight or self._held or self._writer is not None:
            if self._writer is not None:
                await self._writer
            else:
                await self._landing()

    async def _hold(self) -> None:
        """Wait for the end of the last stretch; those who wait go on one after the other. When it
        does not end soon the broker is slow or hangs, and the way is through the spool."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.append(turn)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD):
                    await turn
        finally:
            self._held.remove(turn)
            self._landed.set()
            if not self._holding:
                self._release()

    def _release(self) -> None:
        if self._held and not self._held[0].done():
            self._held[0].set_result(None)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _landing(self) -> None:
        self._landed.clear()
        await self._landed.wait()

    async def _publish(self, message: Message) -> int:
        if self._publisher is None:
            raise NotAcknowledged("no broker yet")
        ack = await self._publisher.publish(
            message.subject, message.data, msg_id=message.id, headers=message.headers
        )
        self.last_seq = max(self.last_seq, ack.seq)
        return ack.seq

    async def _spool(self, arrival: int, line: bytes) -> None:
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._to_spool.append((arrival, line, kept))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_spool())
        await kept

    async def _write_spool(self) -> None:
        """Write what waits, one file and one sync for many events."""
        try:
            while self._to_spool:
                # An earlier event that is still in flight may have to go first.
                while self._in_flight:
                    await self._landing()
                self._to_spool.sort(key=lambda waiting: waiting[0])
                group = self._to_spool[: _fitting([line for _, line, _ in self._to_spool])]
                del self._to_spool[: len(group)]
                await self._write_file(group)
        finally:
            self._writer = None
            if self.is_open:
                self._wake.set()

    async def _write_file(self, group: list[tuple[int, bytes, asyncio.Future[None]]]) -> None:
        problem: OSError | None = None
        try:
            await asyncio.to_thread(spool.write, self._dir, [line for _, line, _ in group])
        except OSError as error:
            problem = error
            log.critical("spool.not_written", events=len(group), error=str(error))
        for _, _, kept in group:
            if kept.done():
                continue
            if problem is None:
                kept.set_result(None)
            else:
                kept.set_exception(problem)

    def _read_some(self, names: list[str]) -> list[_File]:
        """The first files, together about as much as one batch of the publisher."""
        files: list[_File] = []
        events = 0
        for name in names:
            try:
                good, corrupt = spool.read(f"{self._dir}/{name}")
            except FileNotFoundError:  # a person has removed it
                good, corrupt = [], []
            if corrupt:
                kept = spool.set_aside(self._dir, name, corrupt)
                spool.rewrite(f"{self._dir}/{name}", good)
                log.error("spool.corrupt", records=len(corrupt), kept=kept)
            files.append(_File(name, good))
            events += len(good)
            if events >= MAX_FILE_EVENTS:
                break
        return files

    async def _send_files(self, files: list[_File]) -> bool:
        sending: list[list[asyncio.Task[bool]]] = []
        for file in files:
            sending.append([])
            for n, line in enumerate(file.lines):
                sending[-1].append(asyncio.create_task(self._send_spooled(file.name, n, line)))
                if n % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
        complete = True
        for file, tasks in zip(files, sending, strict=True):
            sent = [await task for task in tasks]
            path = f"{self._dir}/{file.name}"
            if all(sent):
                spool.remove(path)
                continue
            complete = False
            if any(sent):  # what is safe is not sent again: by then its id may be forgotten
                rest = [line for line, safe in zip(file.lines, sent, strict=True) if not safe]
                await asyncio.to_thread(spool.rewrite, path, rest)
        return complete

    async def _send_spooled(self, name: str, n: int, line: bytes) -> bool:
        """Whether the line is safe at the broker, as an event or as a dead letter."""
        client = self._client
        if client is None:
            return False
        try:
            await self._publish(self._intake.message(line))
        except NotAcknowledged:
            return False
        except Exception as error:  # whatever is wrong with it, it must not block the rest
            # the same id each time: a crash before the file is removed writes no second letter
            msg_id = ids.derived(0, name, str(n), line.hex())
            try:
                await self._write_letter(client, line, error, msg_id)
            except (NatsError, OSError, TimeoutError):
                return False
        return True

    async def _write_letter(
        self, client: Client, line: bytes, error: Exception, msg_id: str
    ) -> None:
        line = self._intake.redactor.redact_bytes(line)  # one that a client has spooled
        room = client.max_payload - 2 * deadletter.MAX_ERRORS - 4096
        if len(line) > room:
            name = f"{times.now_us():020d}-too-large"
            kept = await asyncio.to_thread(spool.set_aside, self._dir, name, [line])
            log.error("ingest.invalid_too_large", size=len(line), limit=room, kept=kept)
            return
        await deadletter.write(
            client,
            profile="ingest",
            host=self._host,
            topic="invalid",
            data=line,
            reason=str(error),
            msg_id=msg_id,
            errors=[{"error": str(error)}],
            redactor=self._intake.redactor,
        )
        log.warning("ingest.invalid", error=str(error), size=len(line))


def _fitting(lines: list[bytes]) -> int:
    """How many of these go into one file."""
    size = 0
    for n, line in enumerate(lines[:MAX_FILE_EVENTS]):
        size += len(line)
        if n and size > MAX_FILE_BYTES:
            return n
    return min(len(lines), MAX_FILE_EVENTS)
