"""The outbox: an accepted event goes to the broker, or to the spool and from there to the broker.

The one rule: order. While the spool holds anything, new events go behind it; a file is removed
only after the broker has acknowledged all of it. Who else writes to the spool (a client that the
agent did not answer) changes its gauge, which is looked at before each event that goes directly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from itertools import count
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.router import deadletter, logs, spool
from opsmesh.router.errors import NotAcknowledged, SpoolDropped
from opsmesh.router.intake import Intake, Message
from opsmesh.router.metrics import figures
from opsmesh.router.publish import PubAck, Publisher
from opsmesh.router.spool_reader import File, SpoolReader
from opsmesh.router.spool_writer import SpoolWriter
from opsmesh.schemas import ids, times

#: Seconds until an event that the broker does not acknowledge is spooled. Less than a client waits
#: for its answer (`client.TIMEOUT`), so that the client need not spool it a second time.
ACK_TIMEOUT: Final = 1.5
#: Seconds that new events wait for the last of the spooled ones before they are spooled, too.
HOLD: Final = 0.1
#: Seconds between looks into an empty spool, for a file whose writer does not know the gauge.
SCAN: Final = 2.0
#: Seconds between attempts to send what a broker that answers does not take: first, longest.
RETRY_FIRST, RETRY_LONGEST = 0.25, 5.0
#: Seconds between looks at the connection while a broker that hangs is waited for.
LOOK: Final = 0.5
#: Seconds that nobody waits.
NEVER: Final = 10**8
#: Events that are read from a file before other work gets its turn.
SLICE: Final = 100

log = structlog.get_logger()


class Outbox:
    """Publish or spool; owns the spool folder while the agent runs."""

    def __init__(self, spool_dir: str, intake: Intake, *, host: str) -> None:
        self.last_seq = 0
        #: Set when the broker has all that was spooled.
        self.rested = asyncio.Event()
        #: What became of events since the start: stored, spooled, drained, dropped, not_kept.
        self.counts: Counter[str] = Counter()
        self._dir = spool_dir
        self._files = SpoolReader(spool_dir)
        self._throttle = logs.Throttle()
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
        self._sending: set[str] = set()
        self._writer = SpoolWriter(
            spool_dir,
            self.counts,
            before=self._landed_all,
            after=self._written,
            busy=lambda: self._sending,
        )
        self._wake = asyncio.Event()
        self._ping: asyncio.Task[None] | None = None
        self._pinged = -1
        self._hangs = False

    def prepare(self, *, max_bytes: int, when_full: str) -> None:
        """Put the spool in order before the first event; OSError when that cannot be done."""
        self._files.open(max_bytes, when_full)

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

    @property
    def waits(self) -> bool:
        """Whether events are spooled though the broker can be reached."""
        return self.is_open and self._behind

    def facts(self) -> dict[str, Any]:
        """For `status`: where events are just now."""
        return {
            "broker": ("hangs" if self._hangs else "open") if self.is_open else "away",
            "in_flight": self._in_flight,
            "waiting": len(self._held) + len(self._writer),
            "behind": self._behind,
            "spool": self._files.facts(),
            "since_start": dict(self.counts),
        }

    @property
    def spooled_bytes(self) -> int:
        """What waits in the spool, on disk."""
        return int(self._files.facts()["bytes"])

    async def deliver(self, message: Message) -> PubAck | None:
        """Where it is at the broker, or None: safe in the spool.

        OSError when it is neither: then its sender still has to keep it. SpoolDropped when the
        spool is full and the user lets go of new events: it was counted.
        """
        arrival = next(self._arrivals)
        if self._holding or self._held:
            await self._hold()
        if self.is_open and not self._behind:
            if self._files.untouched:
                self._in_flight += 1
                try:
                    return await self._publish(message)
                except NotAcknowledged:
                    self._behind = True
                finally:
                    self._in_flight -= 1
                    self._landed.set()
            else:  # somebody has written to the spool, and goes first
                self._behind = True
                self._wake.set()
        self._behind = True
        if not await self._writer.keep(arrival, message.data, asked=message.reply):
            raise SpoolDropped(message.id)
        return None

    async def dead_letter(self, line: bytes, error: Exception) -> None:
        """Keep a line that is no event, byte for byte but for its secrets, with the reason."""
        line = self._intake.redactor.redact_bytes(line)
        if self._client is not None and self.is_open:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                return await self._write_letter(self._client, line, error, ids.uuid7())
        # As it stands: when it is read from the spool it is found to be no event again.
        await self._writer.keep(next(self._arrivals), line, asked=False)
        return None

    async def drain(self) -> None:
        """Send what is spooled, for ever."""
        wait = RETRY_FIRST
        while True:
            self._wake.clear()
            if await self.catch_up():
                wait = RETRY_FIRST
                await self._pause(SCAN)
            elif not self.is_open:
                wait = RETRY_FIRST
                await self._pause(NEVER)  # `open` ends it
            elif await self._hung():
                wait = RETRY_FIRST
            else:
                await self._pause(wait)
                wait = min(wait * 2, RETRY_LONGEST)

    async def catch_up(self) -> bool:
        """Send every file, the oldest first; False when the broker did not take all of it."""
        try:
            while True:
                if not self._writer.writes and self._files.rest():
                    if self._behind and self.is_open:
                        self.rested.set()
                    self._behind = False
                    return True
                self._behind = True
                if not self.is_open:
                    return False
                if not await self._send_all(await asyncio.to_thread(self._files.names)):
                    return False
                if self._holding:
                    await self._writer.done()
        except OSError as error:
            if self._throttle.allows("unreadable"):
                log.error("spool.unreadable", error=str(error))  # noqa: TRY400
            return False
        finally:
            self._holding = False
            self._release()

    async def close(self) -> None:
        """Wait until everything that was accepted is at the broker or in the spool."""
        while self._in_flight or self._held or self._writer.writes:
            if self._writer.writes:
                await self._writer.done()
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

    async def _landed_all(self) -> None:
        """An earlier event that is still in flight may have to go into the spool first."""
        while self._in_flight:
            await self._landing()

    def _written(self) -> None:
        if self.is_open:
            self._wake.set()

    async def _publish(self, message: Message) -> PubAck:
        if self._publisher is None:
            raise NotAcknowledged("no broker yet")
        ack = await self._publisher.publish(
            message.subject, message.data, msg_id=message.id, headers=message.headers
        )
        self.last_seq = max(self.last_seq, ack.seq)
        self.counts["stored"] += 1
        return ack

    async def _hung(self) -> bool:
        """Whether the broker had stopped answering; returns once it answers again, or is gone.

        One PING, however long it takes: neither is it asked again and again (each attempt would
        stay in our memory and in its), nor is time lost once it goes on.
        """
        client, connection = self._client, self._connection
        if client is None:
            return False
        if self._ping is None or self._ping.done() or self._pinged != connection:
            self._pinged = connection
            # Never cancelled while its connection lives: nats-py stumbles over the late PONG.
            self._ping = asyncio.create_task(_answered(client))
        hung = False
        try:
            while self.is_open and not self._ping.done():
                await asyncio.wait((self._ping,), timeout=LOOK)
                self._hangs = not self._ping.done()
                hung = hung or self._hangs
        finally:
            self._hangs = False
        if client.stats["reconnects"] != connection:
            self._ping.cancel()
        return hung

    async def _send_all(self, waiting: list[str]) -> bool:
        """Every one of these files; False when the broker did not take all of it."""
        left: Any = waiting
        while left:
            if not self.is_open:
                return False
            files, left = await asyncio.to_thread(self._files.read, left)
            # The last stretch: new events wait for its end, a moment. Under a steady load they
            # would take the way through the spool for ever.
            self._holding = not left
            if not await self._send_files(files):
                return False
        return True

    async def _send_files(self, files: list[File]) -> bool:
        self._sending = {file.name for file in files}
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
            self.counts["drained"] += sum(sent)
            figures.DRAINED.add(by=sum(sent))
            if all(sent):
                self._files.remove(file.name)
                continue
            complete = False
            if any(sent):  # what is safe is not sent again: by then its id may be forgotten
                rest = [line for line, safe in zip(file.lines, sent, strict=True) if not safe]
                await asyncio.to_thread(self._files.keep, file.name, rest)
        self._sending = set()
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


async def _answered(client: Client) -> None:
    """Returns when the broker has answered a PING, or cannot any more."""
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        await client.flush(timeout=NEVER)
