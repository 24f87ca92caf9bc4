"""The agent: the one process of a mesh that takes events in, and keeps the streams in order.

The one rule: it answers `ok` only for what is at the broker or synced to the spool. It works with
no broker, and notices by itself when one comes, goes, or comes back with something missing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":  # before everything that it makes cheaper
    from opsmesh.router import beginning

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.router import (
    activation,
    connection,
    full_disk,
    joined,
    logs,
    loss_report,
    notify,
    paths,
    redaction,
    server,
    starting,
    state_format,
    tasks,
    topology,
    traces,
)
from opsmesh.router.agent_lock import only_one
from opsmesh.router.errands import ASKS, Errands, Refused
from opsmesh.router.errors import (
    BrokerUnavailable,
    NeedsUpgrade,
    PermissionDenied,
    SpoolDropped,
    StateTooNew,
    StreamVanished,
)
from opsmesh.router.follow import Followers
from opsmesh.router.gate import Gate
from opsmesh.router.hub import gossip, sourcing, watch
from opsmesh.router.ingest import ASKS_STATUS, HANG_UP, MAX_LINE, Ingest
from opsmesh.router.intake import REPLY, Intake, asks_reply
from opsmesh.router.metrics import at_agent, figures, telling
from opsmesh.router.outbox import Outbox
from opsmesh.router.over_nats import OverNats
from opsmesh.router.release import version
from opsmesh.router.roles import Role
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids
from opsmesh.schemas.errors import EnvelopeError, SchemaError
from opsmesh.schemas.registry import load_registry

#: Seconds before the streams are looked at again when that failed.
LOOK: Final = 0.1
#: Seconds between looks at a connection that tells of its changes itself.
IDLE: Final = 60.0
#: Seconds between attempts to have the connections for what a producer may not.
OTHERS_AGAIN: Final = 5.0
#: Seconds between attempts when no broker is known, refuses us, or cannot make the streams.
RETRY: Final = 1.0
#: Seconds between looks whether the loss of a stream was accepted.
VANISHED_RETRY: Final = 2.0
#: Seconds between notes of the last sequence, which show a stream that went back.
REMEMBER: Final = 5.0
#: Bytes of a line that was too long which are kept as a dead letter.
KEPT_OF_TOO_LONG: Final = 64 * 1024

log = structlog.get_logger()


class Agent:
    """Everything of the process but the lock and the signals."""

    def __init__(self, settings: Settings, *, listener: socket.socket | None = None) -> None:
        registry = load_registry(Path(paths.config_dir(), "topics.yaml"))
        for problem in registry.problems:
            log.error("topics.problem", problem=problem)
        self._settings = settings
        self._intake = Intake(settings, registry, redaction.load(settings))
        self._outbox = Outbox(paths.spool_dir(), self._intake, host=settings.host)
        self._errands = Errands(self._at_broker, host=settings.host)
        self._followers = Followers()
        self._gate: Gate | None = None
        self._ingest = Ingest(
            paths.ingest_socket(), self.handle, followers=self._followers, listener=listener
        )
        self._over_nats = OverNats(
            self.handle, self._refused, host=settings.host, budget=self._ingest.budget
        )
        self._client: Client | None = None
        self._others: dict[Role, Client] = {}
        #: Whether one of them could not be had.
        self._lacking = False
        self._known = topology.Known(topology.known_file())
        self._said = ""
        self._changed = asyncio.Event()
        self._throttle = logs.Throttle()
        self._boot_id, self._emitted = ids.uuid7(), 0
        at_agent.show(settings, self._ingest, self._outbox)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then everything that was accepted is safe."""
        paths.private_dir(paths.state_dir())
        spool = self._settings.spool
        try:
            self._outbox.prepare(max_bytes=spool.max_bytes, when_full=spool.when_full)
        except OSError as error:  # events can still go directly, or be refused
            log.critical("spool.unusable", error=str(error))
        await self._ingest.start()
        notify.ready()
        log.info("agent.started", socket=self._ingest.path, pid=os.getpid())
        try:
            async with asyncio.TaskGroup() as group:
                work = [
                    group.create_task(self._keep_broker()),
                    group.create_task(self._outbox.drain()),
                    group.create_task(self._remember()),
                    group.create_task(self._report()),
                    group.create_task(notify.beat()),
                    group.create_task(full_disk.watch(lambda: self._outbox.waits)),
                    group.create_task(watch.watch(lambda: self._client)),
                    group.create_task(gossip.keep()),
                    group.create_task(self._announce("mesh.component.started", version=version())),
                ]
                await stop.wait()
                await self._ingest.stop()
                await self._announce("mesh.component.stopped", exit_code=0)
                await self._outbox.close()
                await tasks.end(work)
        finally:
            self._note_seq()
            clients = [one for one in (self._client, *self._others.values()) if one is not None]
            await asyncio.gather(*(one.close() for one in clients), return_exceptions=True)
        log.info("agent.stopped")

    async def handle(self, line: bytes, too_long: bool) -> bytes | None:
        """Take one line in; the answer to it, where one is asked for."""
        if line == ASKS_STATUS:
            return self._status()
        if too_long:  # whether it asks for an answer stands, perhaps, in what was skipped
            figures.TAKEN.add("refused")
            error: Exception = EnvelopeError(f"line exceeds {MAX_LINE} bytes, and was skipped")
            await self._refused(line[:KEPT_OF_TOO_LONG], error)
            return _refusal(error)
        if line.startswith(ASKS):
            return await self._errands.ask(line)
        began = time.perf_counter()
        try:
            message = self._intake.message(line)
            ack = await self._outbox.deliver(message)
        except (SchemaError, ValueError, RecursionError, PermissionDenied) as wrong:
            figures.TAKEN.add("refused")
            if asks_reply(line):
                return _refusal(wrong)
            await self._refused(line, wrong)
            return None
        except SpoolDropped as dropped:
            figures.TAKEN.add("dropped")
            answer = {"ok": False, "id": dropped.id, "dropped": True, "error": str(dropped)}
            return msgspec.json.encode(answer) if asks_reply(line) else None
        except OSError:
            figures.TAKEN.add("not_kept")
            return HANG_UP
        at_agent.taken(message, ack, began)
        if not message.reply:
            return None
        where: dict[str, Any] = {"spooled": True} if ack is None else {"seq": ack.seq}
        if ack is not None and ack.duplicate:
            where["duplicate"] = True
        return msgspec.json.encode({"ok": True, "id": message.id, **where})

    async def _at_broker(self, event: Mapping[str, Any]) -> bytes:
        """Store an event at the broker, or refuse it; its bytes."""
        message = self._intake.message(msgspec.json.encode(event))
        if await self._outbox.deliver(message) is None:
            raise Refused("the broker is away: the click is recorded, and nothing was started")
        return message.data

    def _status(self) -> bytes:
        """How the agent is just now, for `opsmesh status`: what waits where, and who is held up."""
        budget = self._ingest.budget
        facts = {
            "pid": os.getpid(),
            "connections": self._ingest.connections,
            "followers": len(self._followers),
            "paused": self._ingest.paused,
            "pauses": self._ingest.pauses,
            "under_way_bytes": budget.used,
            "under_way_limit": budget.limit,
            **self._outbox.facts(),
        }
        return msgspec.json.encode({"ok": True, "agent": facts})

    async def _refused(self, line: bytes, error: Exception) -> None:
        try:
            await self._outbox.dead_letter(line, error)
        except OSError as problem:  # counted as lost, where even that can be written
            if self._throttle.allows("lost"):
                log.critical("ingest.lost", error=str(error), cause=str(problem), size=len(line))

    async def _announce(self, topic: str, **more: Any) -> None:
        await self._emit(topic, {"component": "agent", "pid": os.getpid(), **more})

    async def _emit(self, topic: str, payload: Mapping[str, Any], **more: Any) -> bool:
        """An event of our own, by the road of all others; whether it is safe. One with an id may be
        sent again, and has no number: the broker would drop it, and the number would be missing."""
        event = {"topic": topic, "source": "opsmesh", "component": "agent", "payload": payload}
        if "id" not in more:
            self._emitted += 1
            more |= {"seq": self._emitted, "boot_id": self._boot_id}
        answer = await self.handle(msgspec.json.encode({**event, **more, REPLY: True}), False)
        return answer is not None and answer.startswith(b'{"ok":true')

    async def _keep_broker(self) -> None:
        """Be connected, and let nothing through before the streams have been checked."""
        while True:
            self._changed.clear()
            if self._client is None or self._client.is_closed:
                await self._connect()
            elif self._client.is_connected and not self._outbox.is_open:
                await self._check_streams(self._client)
            else:
                try:
                    async with asyncio.timeout(OTHERS_AGAIN if self._lacking else IDLE):
                        await self._changed.wait()
                except TimeoutError:
                    if self._lacking and self._client.is_connected:
                        await self._open_others(self._client, again=True)

    async def _connect(self) -> None:
        try:
            where = connection.endpoint(self._settings, role=self._role())
            self._client = await connection.connect(where, name="agent", changed=self._changed.set)
        except BrokerUnavailable as error:
            self._say_once("broker.unavailable", error)
            await asyncio.sleep(RETRY)

    def _role(self) -> Role:
        """A broker of this host's own is in the agent's care; to another one it only brings."""
        found = joined.read()
        return "producer" if found is not None and found.hub.kind == "thin" else "admin"

    async def _open_others(self, client: Client, *, again: bool = False) -> None:
        """The connections for what a producer may not: to ask handlers, and to hear events."""
        self._lacking = False
        self._errands.client = await self._as("handler", client)
        hearing = await self._as("viewer", client)
        if not again or hearing is not client:
            await self._followers.attach(hearing)

    async def _as(self, role: Role, client: Client) -> Client:
        """A connection of that role. `client` where that may it, on a broker of its own, and where
        no other can be had yet."""
        if self._role() == "admin":
            return client
        known = self._others.get(role)
        if known is not None and not known.is_closed:
            return known
        where = connection.endpoint(self._settings, role=role)
        try:
            async with asyncio.timeout(connection.CLI_TIMEOUT):
                made = await connection.connect(where, name=f"agent-{role}")
        except (BrokerUnavailable, TimeoutError):
            self._lacking = True
            return client
        self._others[role] = made
        return made

    async def _check_streams(self, client: Client) -> None:
        reconnects = client.stats["reconnects"]
        known = topology.Known(topology.known_file())  # anew: the loss may have been accepted since
        if topology.EVENTS in known:  # the note may be older than what this process has seen
            known.remember({topology.EVENTS: self._outbox.last_seq})
        try:
            regressions = await self._ensure_streams(client, known)
        except (StateTooNew, NeedsUpgrade) as error:  # events wait in the spool
            self._say_once("state.refused", error, "critical")
            await asyncio.sleep(VANISHED_RETRY)
            return
        except StreamVanished as error:
            self._say_once("stream.vanished", error, "critical")
            await asyncio.sleep(VANISHED_RETRY)
            return
        except PermissionDenied:  # at a hub: its own agent sees to them
            regressions = []
        except (NatsError, OSError, TimeoutError) as error:
            if client.is_connected:
                self._say_once("streams.not_ready", error)
            await asyncio.sleep(LOOK)
            return
        self._known, self._said = known, ""
        self._outbox.open(client, connection=reconnects)
        await self._open_others(client)
        await self._open_gate(client)
        if self._role() == "admin":  # at a hub: its own agent
            await self._over_nats.attach(client)
        log.info("broker.ready")
        for regression in regressions:
            fact = {
                "stream": regression.stream,
                "last_known_seq": regression.last_known_seq,
                "found_seq": regression.found_seq,
            }
            log.critical("stream.regressed", **fact)
            await self._emit("mesh.stream.regressed", fact)

    async def _ensure_streams(
        self, client: Client, known: topology.Known
    ) -> list[topology.Regression]:
        js = client.jetstream(timeout=topology.API_TIMEOUT)
        if self._role() != "admin":  # they are the hub's to make, and to look at
            return []
        regressions = await topology.ensure(js, self._settings, known)
        if changed := await sourcing.ensure(client):
            log.info("streams.joined", streams=changed)
        return regressions

    async def _open_gate(self, client: Client) -> None:
        """Not where the broker is somebody else's: its own agent has the manifest."""
        broker = server.known(Path(paths.state_dir()))
        if self._settings.nats.url or broker is None or self._role() != "admin":
            return
        if self._gate is None:
            self._gate = Gate(broker.auth)
        try:
            await self._gate.attach(client)
        except (NatsError, OSError) as error:  # the connection is gone: again with the next one
            log.warning("gate.not_open", error=str(error))

    def _say_once(self, event: str, error: Exception, level: str = "warning") -> None:
        text = f"{event}: {error}"
        if text != self._said:
            self._said = text
            getattr(log, level)(event, error=str(error), hint=getattr(error, "hint", ""))

    async def _report(self) -> None:
        """Tell what the spool had to drop, once the broker has all that it had not."""
        while True:
            await self._outbox.rested.wait()
            self._outbox.rested.clear()
            await loss_report.tell(paths.spool_dir(), self._emit)

    async def _remember(self) -> None:
        while True:
            await asyncio.sleep(REMEMBER)
            self._note_seq()

    def _note_seq(self) -> None:
        if self._outbox.last_seq > self._known.last_seq(topology.EVENTS):
            self._known.remember({topology.EVENTS: self._outbox.last_seq})


def _refusal(error: Exception) -> bytes:
    return msgspec.json.encode({"ok": False, "error": str(error)})


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tracing = traces.sent("agent", settings.host, settings.traces)
    with tracing:
        async with telling.told("agent", figures.AGENT):
            await Agent(settings, listener=activation.listener()).run(stop)


def main() -> int:
    """Run the agent in the foreground until SIGTERM or Ctrl-C; the exit code."""
    settings = Settings()
    if starting.refused("agent", settings):
        return 1
    logs.configure(
        "agent", level=settings.log_level, style=settings.log, redactor=redaction.of_logs(settings)
    )
    state_format.mark_local()
    with only_one(paths.runtime_dir() + "/agent.lock"):
        tasks.run(_serve(settings))
    return 0


if __name__ == "__main__":
    beginning.over()
    raise SystemExit(main())
