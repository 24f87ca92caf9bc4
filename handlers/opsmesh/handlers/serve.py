"""The handlers process: one consumer a profile, kept in step with the profile files.

A file that cannot be read leaves the profiles of before in force, and says so as an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import structlog
import watchfiles
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers import overrides
from opsmesh.handlers.ledger import Ledger
from opsmesh.handlers.profiles import Profile, ProfileSet, load_profiles
from opsmesh.handlers.records import Recorder
from opsmesh.handlers.runner import ProfileRunner, Services
from opsmesh.handlers.windows import Windows
from opsmesh.router import connection, deadletter, logs, notify, paths, trigger
from opsmesh.router.consume import Consumer, Message, Outcome, Reject, Work, durable
from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.publish import Publisher
from opsmesh.router.settings import Settings
from opsmesh.router.topology import DECISIONS, EVENTS, RUNS, TRIGGERS, WINDOWS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, Severity, encode, host_token, subject
from opsmesh.schemas.registry import load_registry

#: Seconds between looks for streams that the agent has not made yet.
STREAM_WAIT = 0.25
#: The watcher is armed somewhere in its first moments: files are read again after so many seconds,
#: so that an edit between the first reading and then is not missed.
SECOND_LOOK = 1.0
#: Seconds between attempts to publish a result while the broker is away.
PUBLISH_RETRY = 1.0

log = structlog.get_logger()


def consumer_name(profile: Profile, host: str) -> str:
    """`profile-<name>`; a profile that runs on one host alone has a consumer for each host."""
    name = f"profile-{profile.name}"
    return name if profile.run_on == "any" else f"{name}-on-{host_token(host)}"


def filter_subjects(profile: Profile, host: str) -> list[str]:
    """What the broker hands to this profile on this host."""
    hosts = host_token(host) if profile.run_on == "origin" else "*"
    return [f"evt.{hosts}.{pattern}" for pattern in profile.on]


class Server:
    """Every profile's consumer, and the one for triggers."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._host = settings.host
        self._events = Publisher(client, stream=EVENTS)
        self._recorder = Recorder(Publisher(client, stream=DECISIONS), host=settings.host)
        self._workdirs = Path(paths.state_dir(), "work")
        config = Path(paths.config_dir())
        self._config = config
        self._services = Services(
            client=client,
            ledger=Ledger(client),
            windows=Windows(client),
            registry=load_registry(config / "topics.yaml"),
            host=settings.host,
            bundles=Path(paths.bundles_dir()),
            workdirs=self._workdirs,
            publish=self.publish,
            record=self._recorder.record,
        )
        self._runners: dict[str, ProfileRunner] = {}
        self._consumers: dict[str, Consumer] = {}
        self._background: list[asyncio.Task[None]] = []
        self._rejections: list[str] = []
        self._reloading = asyncio.Lock()

    async def publish(self, event: Event) -> None:
        """Store an event; returns when the broker has it, however long it is away."""
        data = encode(event)
        while True:
            try:
                await self._events.publish(subject(event.host, event.topic), data, msg_id=event.id)
                return
            except NotAcknowledged:
                await asyncio.sleep(PUBLISH_RETRY)

    async def start(self) -> None:
        """Begin with the profiles as they are now."""
        self._background.append(asyncio.create_task(self._recorder.run()))
        await self.reload()
        self._triggers = Consumer(
            self._client,
            TRIGGERS,
            durable("triggers", ["trg.>"], all_stored=True),
            self._trigger,
            concurrency=4,
        )
        await self._triggers.start()
        self._background.append(asyncio.create_task(self._watch()))
        self._background.append(asyncio.create_task(self._look_again()))
        await self._say("mesh.component.started", "info", component="handlers")

    async def stop(self) -> None:
        """Let running work end, hand back the rest, and write what is noted."""
        await self._triggers.stop()
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers.values()))
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._recorder.flush()
                await self._say("mesh.component.stopped", "info", component="handlers")

    def in_force(self, name: str) -> Profile:
        """The profile as it acts now; KeyError when there is none of that name."""
        return self._runners[name].profile

    async def reload(self) -> None:
        """Bring consumers in step with the files; a broken set changes nothing."""
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
        for name in self._runners.keys() - profiles.keys():
            await self._remove(name)
        for profile in profiles.values():
            await self._put(profile)

    async def _rejected(self, found: ProfileSet) -> None:
        texts = [str(error) for error in found.errors]
        if texts == self._rejections:  # said already: an editor writes a file more than once
            return
        self._rejections = texts
        for text in texts:
            log.error("profiles.rejected", error=text, in_force=sorted(self._runners))
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
        known = self._runners.get(profile.name)
        if known is not None and known.profile == profile:
            return
        if known is not None and _same_consumer(known.profile, profile):
            known.profile = profile
            log.info("profile.changed", profile=profile.name, hash=profile.hash)
            return
        if known is not None:
            await self._consumers.pop(profile.name).stop()
            if consumer_name(known.profile, self._host) != consumer_name(profile, self._host):
                await self._delete(known.profile)
        runner = known or ProfileRunner(profile, self._services)
        runner.profile = profile
        self._runners[profile.name] = runner
        if profile.run_on not in ("any", "origin") and host_token(profile.run_on) != host_token(
            self._host
        ):
            return  # another host's handlers hold its consumer
        consumer = Consumer(
            self._client,
            EVENTS,
            durable(
                consumer_name(profile, self._host),
                filter_subjects(profile, self._host),
                description=profile.description,
                metadata={"opsmesh.profile": profile.name},
            ),
            runner.handle,
            concurrency=profile.concurrency,
        )
        await consumer.start()
        self._consumers[profile.name] = consumer
        log.info("profile.in_force", profile=profile.name, hash=profile.hash, state=profile.state)

    async def _remove(self, name: str) -> None:
        runner = self._runners.pop(name)
        consumer = self._consumers.pop(name, None)
        if consumer is not None:
            await consumer.stop()
            await self._delete(runner.profile)
        log.info("profile.removed", profile=name)

    async def _delete(self, profile: Profile) -> None:
        with contextlib.suppress(NotFoundError):
            await self._client.jetstream().delete_consumer(
                EVENTS, consumer_name(profile, self._host)
            )

    async def _trigger(self, message: Message) -> Outcome | Work:
        name = message.subject.removeprefix("trg.")
        runner = self._runners.get(name)
        if runner is not None:
            return await runner.handle_trigger(message, trigger.read(message.headers))
        await deadletter.write(
            self._client,
            profile=name,
            host=self._host,
            topic="trigger",
            data=message.data,
            headers=message.headers,
            reason=f"no profile {name!r} is in force",
            msg_id=f"dlq:{name}:{TRIGGERS}:{message.seq}",
            origin=(TRIGGERS, message.seq, message.stored_us),
        )
        return Reject("no such profile")

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


def _is_profile_file(_: watchfiles.Change, path: str) -> bool:
    return path.endswith(".yaml") or path == str(overrides.path())


def _same_consumer(old: Profile, new: Profile) -> bool:
    return (old.on, old.run_on, old.concurrency) == (new.on, new.run_on, new.concurrency)


async def wait_for_streams(client: Client) -> None:
    """Return once the agent has made every stream that handlers need."""
    js = client.jetstream()
    for name in (EVENTS, DECISIONS, TRIGGERS, f"KV_{RUNS}", f"KV_{WINDOWS}"):
        while True:
            try:
                await js.stream_info(name)
                break
            except Exception as error:
                log.debug("stream.awaited", stream=name, error=str(error))
                await asyncio.sleep(STREAM_WAIT)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    # a patient connection waits for ever; the order to end must not
    starting = asyncio.create_task(_started(settings))
    ending = asyncio.create_task(ended.wait())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    server, client = starting.result()
    log.info("handlers.ready")
    notify.ready()
    await ending
    await server.stop()
    await client.close()


async def _started(settings: Settings) -> tuple[Server, Client]:
    client = await connection.connect(connection.endpoint(settings), name="handlers")
    await wait_for_streams(client)
    server = Server(client, settings)
    await server.start()
    return server, client


def main() -> int:
    """Entry of `opsmesh handlers`."""
    settings = Settings()
    logs.configure("handlers", level=settings.log_level)
    asyncio.run(serve(settings))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
