"""What a handlers process is made of: the profiles in force, and what answers for them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client

from opsmesh.handlers import figures, leash
from opsmesh.handlers.actions import notify as notify_action
from opsmesh.handlers.actions.shared import Shared
from opsmesh.handlers.bundles.sharing import Sharing, StoreOf
from opsmesh.handlers.desktop import board
from opsmesh.handlers.desktop.board import Board
from opsmesh.handlers.desktop.buttons import Buttons
from opsmesh.handlers.desktop.notice import Notice
from opsmesh.handlers.desktop.questions import Questions
from opsmesh.handlers.errors import DesktopAway
from opsmesh.handlers.live.in_force import InForce
from opsmesh.handlers.live.owner import GRACE
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.live.scope import Scope
from opsmesh.handlers.live.triggers import Triggers
from opsmesh.handlers.mcp import program
from opsmesh.handlers.profiles.profile import (
    Profile,
    ProfileSet,
)
from opsmesh.handlers.runs.asker import Asker
from opsmesh.handlers.runs.cancelling import Canceller
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.handlers.runs.places import Places
from opsmesh.handlers.runs.questions import Desk
from opsmesh.handlers.runs.runs import Services
from opsmesh.handlers.runs.takeover import STEPS
from opsmesh.handlers.secrets import store
from opsmesh.handlers.slo.keeper import Keeper
from opsmesh.router import (
    paths,
    redaction,
    release,
    tasks,
)
from opsmesh.router.connection import AWAY
from opsmesh.router.current import Current
from opsmesh.router.errors import NotAcknowledged, PermissionDenied
from opsmesh.router.publish import Publisher
from opsmesh.router.settings import Settings
from opsmesh.router.topology import (
    EVENTS,
)
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, Severity, encode, subject
from opsmesh.schemas.exact import Known
from opsmesh.schemas.registry import load_registry

#: Seconds between attempts to publish a result while the broker is away.
PUBLISH_RETRY = 1.0
#: Seconds that the end of the process takes at most, whatever the broker does: the supervisor kills
#: after ten.
STOP_WITHIN: Final = 7.0
#: Seconds that attempts may still take then while the broker does not answer (it has so long to do
#: so): their ends could not be written.
GRACE_ALONE, ANSWER_WITHIN = 2.0, 1

#: What the component is called, and where its host's bundles go, by its scope.
NAMES: Final[dict[Scope, str]] = {"all": "handlers", "host": "handlers", "mesh": "handlers:hub"}
STORES: Final[dict[Scope, StoreOf | None]] = {"all": "own", "host": None, "mesh": "hub"}

log = structlog.get_logger()


class Server:
    """Every profile's owner, and what takes triggers."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        *,
        known: Known | None = None,
        scope: Scope = "all",
    ) -> None:
        known = Known() if known is None else known  # what logs leave out is that of this process
        self._client = client
        self._host = settings.host
        self._scope = scope
        self._events = Publisher(client, stream=EVENTS)
        self._recorder = Recorder(client)
        self._workdirs = Path(paths.state_dir(), "work")
        config = Path(paths.config_dir())
        self._services = Services(
            client=client,
            ledger=Ledger(client, lease_s=settings.runs.lease),
            registry=load_registry(config / "topics.yaml"),
            host=settings.host,
            bundles=Path(paths.bundles_dir()),
            workdirs=self._workdirs,
            publish=self.publish,
            redactor=redaction.load(settings, known=known),
            secrets=store.load(settings.secrets, known),
            strict_topics=settings.strict_topics,
            shared=Shared(Current(settings)),
            places=Places(settings.runs.places),
        )
        self.profiles = InForce(
            self._services, self._recorder, config, scope=scope, rejected=self._rejected
        )
        self._sharing = Sharing(
            client,
            settings.bundles,
            self._services.bundles,
            self._services.bundled,
            store=STORES[scope],
        )
        self._desk = Desk(
            client,
            self._services.ledger,
            host=settings.host,
            redactor=self._services.redactor,
            hindrance=self.profiles.hindrance,
        )
        self._canceller = Canceller(client, self._cancel)
        self._notify = settings.notify
        self._questions: Questions | None = None
        self._triggers = Triggers(
            client,
            self._services,
            self._recorder,
            scope=scope,
            known=self.profiles.now,
            broken=lambda: self.profiles.broken,
        )
        self._keeper = Keeper(
            client, self.publish, self._decided, host=settings.host, notify=self._missed
        )
        figures.WAITING.read_from(
            lambda: {(one.profile.name,): one.runs.asking for one in self.profiles.all()}
        )
        self._background: list[asyncio.Task[None]] = []

    async def publish(self, event: Event) -> None:
        """Store an event; returns when the broker has it, however long it is away.

        Under this host's name, which is all that it may publish: a run that another host had is
        told of by whoever has it now.
        """
        if event.host != self._host:
            event = msgspec.structs.replace(event, host=self._host)
        data, _ = self._services.redactor.event(encode(event))
        while True:
            try:
                await self._events.publish(subject(event.host, event.topic), data, msg_id=event.id)
                return
            except NotAcknowledged:
                await asyncio.sleep(PUBLISH_RETRY)

    async def start(self) -> None:
        """Begin with the profiles as they are now."""
        await asyncio.to_thread(leash.sweep, self._workdirs / STEPS)
        await self.profiles.reload()
        await self._triggers.start()
        await self._sit_at_the_desk()
        await self._canceller.start()
        await self._open_board()
        self._background.append(asyncio.create_task(self.profiles.watch()))
        # what handlers that were killed have left of their MCP servers
        self._background.append(asyncio.create_task(program.sweep(program.folder())))
        self._background.append(asyncio.create_task(Asker(self._services).sweep()))
        self._background.append(asyncio.create_task(self.profiles.look_again()))
        self._background.append(asyncio.create_task(self._sharing.run()))
        self._background.append(asyncio.create_task(self._keeper.run()))
        await self._say(
            "mesh.component.started",
            "info",
            component=NAMES[self._scope],
            version=release.version(),
        )

    async def _sit_at_the_desk(self) -> None:
        """Take answers for any run; a handler of its profiles leaves that to others."""
        try:
            await self._desk.start()
        except PermissionDenied as denied:
            log.info("desk.left_to_others", why=str(denied))

    async def end(self) -> None:
        """`stop`, within STOP_WITHIN, and the end of the connection."""
        stopping = asyncio.create_task(self.stop())
        _, late = await asyncio.wait([stopping], timeout=STOP_WITHIN)
        await tasks.end(late)
        if not late:
            stopping.result()
        await self._client.close()

    async def stop(self) -> None:
        """Let running work end for a while, and let go of the rest."""
        await tasks.end(self._background)  # no file is taken up any more
        await self._desk.stop()
        if self._questions is not None:
            await self._questions.stop()
        await self._canceller.stop()
        answers, _ = await asyncio.gather(self._broker_answers(), self._triggers.stop())
        await self.profiles.stop(GRACE if answers else GRACE_ALONE)
        await self._services.shared.aclose()
        if answers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._say("mesh.component.stopped", "info", component=NAMES[self._scope])

    async def _broker_answers(self) -> bool:
        try:
            await self._client.flush(ANSWER_WITHIN)
        except AWAY:
            return False
        return self._client.is_connected  # while it reconnects a flush returns at once

    async def _open_board(self) -> None:
        shown = await self._services.shared.get(notify_action.SHARED, self._board)
        shown.resume()
        if self._notify.approvals == "show":
            self._questions = Questions(
                self._client, shown, host=self._host, redactor=self._services.redactor
            )
            await self._questions.start()

    async def _board(self) -> Board:
        """What this desktop shows; nobody is asked for one before there is something to show."""
        buttons = Buttons(
            self._client,
            self._services.ledger,
            host=self._host,
            bundles=self._services.bundles,
            redactor=self._services.redactor,
            key=lambda: self._services.question_key,
            in_force=self.profiles.get,
        )
        file = Path(paths.runtime_dir(), board.FILES[self._scope == "mesh"])
        return Board(self._notify.per_minute, press=buttons.press, file=file)

    def _decided(self) -> list[Profile]:
        """The profiles that this process decides."""
        return [one.profile for one in self.profiles.all() if one.owner is not None]

    async def _missed(self, event: Event, title: str, body: str) -> None:
        """Show a person that a profile misses an objective; nothing without a desktop."""
        with contextlib.suppress(DesktopAway):
            shown = await self._services.shared.get(notify_action.SHARED, self._board)
            group = f"slo:{title}"
            await shown.show(
                Notice(
                    title=title,
                    body=body,
                    urgency="critical",
                    group=group,
                    once=event.id,
                    profile=event.component,
                )
            )

    def in_force(self, name: str) -> Profile:
        """The profile as it acts now; KeyError when there is none of that name."""
        if (found := self.profiles.get(name)) is None:
            raise KeyError(name)
        return found

    async def owned(self) -> None:
        """Return once this process decides for every enabled profile."""
        await asyncio.gather(*(owner.ready() for owner in self.profiles.owners()))

    async def _rejected(self, found: ProfileSet) -> None:
        first = found.errors[0]
        await self._say(
            "mesh.config.rejected",
            "error",
            path=str(first.file),
            line=first.line,
            column=first.column,
            error="\n".join(str(error) for error in found.errors),
        )

    def _cancel(self, run_id: str, reason: str) -> bool:
        found = [active.runs.cancel(run_id, reason) for active in self.profiles.all()]
        hosted = [one.guests for one in self.profiles.all() if one.guests is not None]
        return any([*found, *(guests.cancel(run_id) for guests in hosted)])

    async def _say(self, topic: str, severity: Severity, **payload: Any) -> None:
        now_us = times.now_us()
        event_id = ids.uuid7(now_us // 1000)
        await self.publish(
            Event(
                topic=topic,
                ts_utc=times.format_us(now_us),
                source="opsmesh",
                component="handlers",
                severity=severity,
                correlation_id=event_id,
                host=self._host,
                session_id="",
                workspace="",
                payload=payload,
                id=event_id,
                schema_version=SCHEMA_VERSION,
            )
        )
