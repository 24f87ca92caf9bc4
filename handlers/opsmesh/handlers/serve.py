"""The handlers process: an owner for each profile, kept in step with the profile files.

A file that cannot be read leaves the profiles of before in force, and says so as an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import watchfiles
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers import leash
from opsmesh.handlers.actions import notify as notify_action
from opsmesh.handlers.actions.shared import Shared
from opsmesh.handlers.bundles.sharing import Sharing
from opsmesh.handlers.desktop import board
from opsmesh.handlers.desktop.board import Board
from opsmesh.handlers.desktop.buttons import Buttons
from opsmesh.handlers.desktop.questions import Questions
from opsmesh.handlers.live import triggering, versions
from opsmesh.handlers.live.consumers import CANDIDATE, consumer_name, runs_here
from opsmesh.handlers.live.owner import GRACE, Owner
from opsmesh.handlers.live.position import Positions
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.mcp import program
from opsmesh.handlers.profiles import candidates, overrides
from opsmesh.handlers.profiles.profile import (
    Profile,
    ProfileSet,
    load_profiles,
    profile_files,
)
from opsmesh.handlers.runs.asker import Asker
from opsmesh.handlers.runs.cancelling import Canceller
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.handlers.runs.questions import Desk
from opsmesh.handlers.runs.runs import Runs, Services
from opsmesh.handlers.runs.takeover import STEPS
from opsmesh.handlers.secrets import store
from opsmesh.router import connection, logs, notify, paths, redaction, tasks
from opsmesh.router.consume import Consumer, Message, Outcome, Reject, Retry, Work, durable
from opsmesh.router.current import Current
from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.publish import Publisher
from opsmesh.router.settings import Settings
from opsmesh.router.topology import (
    DECISIONS,
    EVENTS,
    FIRINGS,
    RUNS,
    TRIGGERS,
    VERSIONS,
    WINDOWS,
)
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, Severity, encode, subject
from opsmesh.schemas.exact import Known
from opsmesh.schemas.registry import load_registry

#: Seconds between looks for streams that the agent has not made yet.
STREAM_WAIT = 0.25
#: The watcher is armed somewhere in its first moments: files are read again after so many seconds,
#: so that an edit between the first reading and then is not missed.
SECOND_LOOK = 1.0
#: Seconds between attempts to publish a result while the broker is away.
PUBLISH_RETRY = 1.0

#: Seconds to wait for profiles to be owned, at the start and after a change.
SETTLE = 5.0
#: Seconds after which a trigger is offered again to whoever decides for its profile.
TRIGGER_RETRY = 1.0
#: Seconds after which a trigger for a profile that nobody knows is looked at again while the
#: profile files are broken.
REJECTED_RETRY = 5.0
#: Path, inode, modification time and size of each profile file.
Versions = tuple[tuple[str, int, int, int], ...]
#: The streams that handlers write to.
NEEDED = (EVENTS, DECISIONS, FIRINGS, VERSIONS, TRIGGERS, f"KV_{RUNS}", f"KV_{WINDOWS}")

log = structlog.get_logger()


@dataclass
class Active:
    """A profile in force; no owner while it is disabled, or another host's."""

    profile: Profile
    consumer: str
    runs: Runs
    owner: Owner | None = None


class Server:
    """Every profile's owner, and the consumer of triggers."""

    def __init__(self, client: Client, settings: Settings, *, known: Known | None = None) -> None:
        known = Known() if known is None else known  # what logs leave out is that of this process
        self._client = client
        self._host = settings.host
        self._events = Publisher(client, stream=EVENTS)
        self._recorder = Recorder(client)
        self._workdirs = Path(paths.state_dir(), "work")
        config = Path(paths.config_dir())
        self._config = config
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
        )
        self._sharing = Sharing(
            client, settings.bundles, self._services.bundles, self._services.bundled
        )
        self._desk = Desk(
            client,
            self._services.ledger,
            host=settings.host,
            redactor=self._services.redactor,
            hindrance=self._hindrance,
        )
        self._canceller = Canceller(client, self._cancel)
        self._notify = settings.notify
        self._questions: Questions | None = None
        self._triggers: Consumer | None = None
        self._active: dict[str, Active] = {}
        self._candidates: dict[str, Owner] = {}
        self._background: list[asyncio.Task[None]] = []
        self._rejections: list[str] = []
        self._reloading = asyncio.Lock()
        self._read: Versions = ()

    async def publish(self, event: Event) -> None:
        """Store an event; returns when the broker has it, however long it is away."""
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
        await self.reload()
        self._triggers = Consumer(
            self._client,
            TRIGGERS,
            durable("triggers", ["trg.>"], all_stored=True),
            self._trigger,
            concurrency=4,
        )
        await self._triggers.start()
        await self._desk.start()
        await self._canceller.start()
        await self._open_board()
        self._background.append(asyncio.create_task(self._watch()))
        # what handlers that were killed have left of their MCP servers
        self._background.append(asyncio.create_task(program.sweep(program.folder())))
        self._background.append(asyncio.create_task(Asker(self._services).sweep()))
        self._background.append(asyncio.create_task(self._look_again()))
        self._background.append(asyncio.create_task(self._sharing.run()))
        await self._say("mesh.component.started", "info", component="handlers")

    async def stop(self) -> None:
        """Let running work end for a while, and let go of the rest."""
        await tasks.end(self._background)  # no file is taken up any more
        await self._desk.stop()
        if self._questions is not None:
            await self._questions.stop()
        await self._canceller.stop()
        if self._triggers is not None:
            await self._triggers.stop()
        await asyncio.gather(*(owner.stop() for owner in self._owners()))
        await asyncio.gather(*(active.runs.stop(GRACE) for active in self._active.values()))
        await self._services.shared.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._say("mesh.component.stopped", "info", component="handlers")

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
            in_force=self._known,
        )
        file = Path(paths.runtime_dir(), board.FILE)
        return Board(self._notify.per_minute, press=buttons.press, file=file)

    def _known(self, name: str) -> Profile | None:
        active = self._active.get(name)
        return active.profile if active is not None else None

    def in_force(self, name: str) -> Profile:
        """The profile as it acts now; KeyError when there is none of that name."""
        return self._active[name].profile

    async def owned(self) -> None:
        """Return once this process decides for every enabled profile."""
        await asyncio.gather(*(owner.ready() for owner in self._owners()))

    async def reload(self) -> None:
        """Bring consumers in step with the files; a broken set changes nothing."""
        self._read = _versions(self._config)
        found = await asyncio.to_thread(load_profiles, self._config)
        for problem in found.problems:
            log.warning("plugin.skipped", problem=str(problem))
        if found.errors:
            await self._rejected(found)
            return
        self._rejections = []
        chosen = overrides.read()
        profiles = {
            name: profile.with_state(chosen[name]) if name in chosen else profile
            for name, profile in found.profiles.items()
        }
        for name in self._active.keys() - profiles.keys():
            await self._remove(name)
        for profile in profiles.values():
            await self._put(profile)
        await self._put_candidates()
        await self._settle()

    async def _settle(self) -> None:
        """Return once every profile has an owner, here or elsewhere: what is stored from then on is
        not the past of a new profile. A broker that is away is not waited for."""
        waiting = [asyncio.create_task(owner.settled()) for owner in self._owners()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=SETTLE)
            await tasks.end(late)

    def _owners(self) -> list[Owner]:
        owners = [active.owner for active in self._active.values() if active.owner is not None]
        return [*owners, *self._candidates.values()]

    async def _rejected(self, found: ProfileSet) -> None:
        texts = [str(error) for error in found.errors]
        if texts == self._rejections:  # said already: an editor writes a file more than once
            return
        self._rejections = texts
        for text in texts:
            log.error("profiles.rejected", error=text, in_force=sorted(self._active))
        first = found.errors[0]
        await self._say(
            "mesh.config.rejected",
            "error",
            path=str(first.file),
            line=first.line,
            column=first.column,
            error="\n".join(texts),
        )

    async def _put(self, profile: Profile) -> None:
        known = self._active.get(profile.name)
        if known is not None and known.profile == profile:
            return
        consumer = consumer_name(profile, self._host)
        if known is not None and known.consumer != consumer:
            await self._remove(profile.name)
            known = None
        if known is None:
            known = Active(profile, consumer, Runs(profile, self._services))
            self._active[profile.name] = known
        known.profile = profile
        known.runs.exchange(profile)
        wanted = profile.state != "disabled" and runs_here(profile, self._host)
        if known.owner is None and wanted:
            known.owner = self._owner(profile, consumer, known.runs)
        elif known.owner is not None and not wanted:
            owner, known.owner = known.owner, None
            await owner.stop()
        elif known.owner is not None:
            known.owner.exchange(profile)
        if profile.state == "disabled":
            await self._note_disabled(profile, consumer)

    def _owner(self, profile: Profile, consumer: str, runs: Runs | None) -> Owner:
        owner = Owner(
            profile, self._services, consumer=consumer, recorder=self._recorder, runs=runs
        )
        owner.start()
        return owner

    async def _note_disabled(self, profile: Profile, consumer: str) -> None:
        """From its cursor on nothing is decided."""
        cursor, _ = await Positions(self._client).cursor(consumer)
        if cursor is not None:
            await versions.write(
                self._client,
                profile,
                consumer=consumer,
                host=self._host,
                from_seq=cursor.seq + 1,
            )

    async def _remove(self, name: str) -> None:
        active = self._active.pop(name)
        elsewhere = active.owner is not None and not active.owner.owned
        if active.owner is not None:
            await active.owner.stop()
        await active.runs.stop(GRACE)
        if not elsewhere:  # another host's file may still have it
            await self._forget(active.profile, active.consumer)
        log.info("profile.removed", profile=name)

    async def _forget(self, profile: Profile, consumer: str) -> None:
        await versions.removed(self._client, profile, consumer=consumer, host=self._host)
        await Positions(self._client).forget(consumer)
        with contextlib.suppress(NotFoundError):
            await self._client.jetstream().delete_consumer(EVENTS, consumer)

    async def _put_candidates(self) -> None:
        """Texts that decide in shadow beside those in force."""
        found = await asyncio.to_thread(candidates.load, self._config)
        for error in found.errors:
            log.error("candidate.rejected", error=str(error))
        wanted = {
            consumer_name(profile, self._host, kind=CANDIDATE): profile.with_state("shadow")
            for profile in found.profiles.values()
            if runs_here(profile, self._host)
        }
        for consumer in self._candidates.keys() - wanted.keys():
            owner = self._candidates.pop(consumer)
            await owner.stop()
            await self._forget(owner.profile, consumer)
        for consumer, profile in wanted.items():
            known = self._candidates.get(consumer)
            if known is None:
                self._candidates[consumer] = self._owner(profile, consumer, None)
            elif known.profile != profile:
                known.exchange(profile)

    async def _trigger(self, message: Message) -> Outcome | Work:
        name = message.subject.removeprefix("trg.")
        await self._up_to_date()
        active = self._active.get(name)
        if active is not None:
            if active.owner is not None and not active.owner.owned:
                return Retry(TRIGGER_RETRY)  # for the process that decides for it
            return await triggering.handle(
                message,
                profile=active.profile,
                services=self._services,
                consumer=active.consumer,
                recorder=self._recorder,
                runs=active.runs,
            )
        if self._rejections:  # it may stand in the file that cannot be read
            return Retry(REJECTED_RETRY)
        await triggering.refuse(self._services, message, name, _not_in_force(name))
        return Reject("no such profile")

    def _cancel(self, run_id: str, reason: str) -> bool:
        return any(active.runs.cancel(run_id, reason) for active in self._active.values())

    async def _hindrance(self, name: str) -> str:
        await self._up_to_date()
        if name in self._active:
            return ""
        broken = "; the profile files cannot be read: opsmesh profile validate"
        return _not_in_force(name) + (broken if self._rejections else "")

    async def _up_to_date(self) -> None:
        """Take files up that were saved since: who mends a profile and asks for a run at once means
        the mended one, and the watcher may not have spoken yet."""
        if _versions(self._config) != self._read:
            async with self._reloading:
                await self.reload()

    async def _look_again(self) -> None:
        await asyncio.sleep(SECOND_LOOK)
        async with self._reloading:
            await self.reload()

    async def _watch(self) -> None:
        states = overrides.path().parent
        for folder in (self._config, states):
            await asyncio.to_thread(paths.private_dir, str(folder))
        async for _ in watchfiles.awatch(
            self._config, states, watch_filter=_is_profile_file, debounce=200
        ):
            try:
                async with self._reloading:
                    await self.reload()
            except Exception:
                log.exception("profiles.not_reloaded")

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


def _not_in_force(name: str) -> str:
    return f"no profile {name!r} is in force"


def _is_profile_file(_: watchfiles.Change, path: str) -> bool:
    return path.endswith(".yaml") or path == str(overrides.path())


def _versions(config: Path) -> Versions:
    """What the profile files are like now, without reading them."""
    found = []
    for path in (*(path for path, _ in profile_files(config)), overrides.path()):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


async def wait_for_streams(client: Client) -> None:
    """Return once the agent has made every stream that handlers need."""
    js = client.jetstream()
    for name in NEEDED:
        while True:
            try:
                await js.stream_info(name)
                break
            except Exception as error:
                log.debug("stream.awaited", stream=name, error=str(error))
                await asyncio.sleep(STREAM_WAIT)


async def serve(settings: Settings, known: Known) -> None:
    """Run until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    # a patient connection waits for ever; the order to end must not
    started: list[tuple[Server, Client]] = []
    starting = asyncio.create_task(_start(settings, known, started))
    ending = asyncio.create_task(ended.wait())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        log.info("handlers.ready")
        notify.ready()
        await ending
    await tasks.end([starting])
    for server, client in started:  # also one that had begun only
        await server.stop()
        await client.close()


async def _start(settings: Settings, known: Known, started: list[tuple[Server, Client]]) -> None:
    client = await connection.connect(connection.endpoint(settings), name="handlers")
    await wait_for_streams(client)
    server = Server(client, settings, known=known)
    started.append((server, client))
    await server.start()


def main() -> int:
    """Entry of `opsmesh handlers`."""
    settings = Settings()
    known = Known()
    rules = redaction.of_logs(settings, known=known)
    logs.configure("handlers", level=settings.log_level, redactor=rules)
    asyncio.run(serve(settings, known))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
