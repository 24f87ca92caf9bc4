"""Fills a view from the broker, and keeps it so: what happens is heard, what has no event is looked
at again and again.

The one rule: a broker that goes leaves the view as it was, says so in it, and is found again. What
else ends the following of one thing ends all of it: no view stands still and looks well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client

from opsmesh.cli import health
from opsmesh.cli.hub.hosts_option import Hosts
from opsmesh.cli.view.model import SeenEvent, View
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs import approvals
from opsmesh.handlers.runs.ledger import Run
from opsmesh.handlers.slo import book
from opsmesh.handlers.slo.book import Book
from opsmesh.router import connection, deadletter, joined, paths, tasks, topology
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import BrokerUnavailable, PermissionDenied
from opsmesh.router.scan import opened, scan
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times

#: Seconds between looks at what has no event; between attempts to reach a broker.
LOOK_S: Final = 5.0
AGAIN_S: Final = 1.0
#: Microseconds that runs, and facts of profiles, reach back.
RUNS_US: Final = 24 * 3600 * 1_000_000
FACTS_US: Final = 7 * RUNS_US
#: Times as many events that are looked through for those of some hosts.
SPARSE: Final = 20
#: Topics after which questions are looked at at once.
ASKED: Final = "automation.approval."
#: The topics of dead letters' ends, and of runs that became one.
LETTERS: Final = ("automation.run.deadlettered", "automation.deadletter.")

log = structlog.get_logger()
_run = msgspec.json.Decoder(Run).decode


class Follower:
    """Keeps one view, of this host's broker or of its hub's; `hosts` are the ones whose events,
    runs, letters and questions are shown, all when none is named."""

    def __init__(
        self,
        view: View,
        settings: Settings,
        *,
        hub: connection.Endpoint | None = None,
        hosts: Sequence[str] = (),
    ) -> None:
        self.view = view
        view.of = _of(settings, hub, hosts)
        self._settings = settings
        self._hub = hub
        self._hosts = Hosts(hosts)
        self._back = view.keep * (SPARSE if hosts else 1)
        self._book = Book()
        self._look = asyncio.Event()
        self.client: Client | None = None
        #: Whoever shows the view has nothing more to wait for.
        self.ended = False

    async def run(self) -> None:
        """For ever; cancel it to end. What it raises is a mistake in here: begin it again."""
        while True:
            with contextlib.suppress(BrokerUnavailable, *AWAY):
                await self._connected()
            self.view.connected = False
            self.view.touch()
            with contextlib.suppress(Exception):  # what can be told without a broker
                self.view.health = await health.check(self._settings, hub=self._hub)
            await asyncio.sleep(AGAIN_S)

    async def changed(self, since: int, *, at_most: float = 10.0, every: float = 0.1) -> int:
        """The view's version once it is another than `since`, or after `at_most` seconds; looked at
        `every` so many seconds, so that a flood is one change."""
        waited = 0.0
        while self.view.version == since and waited < at_most:
            await asyncio.sleep(every)
            waited += every
        return self.view.version

    def end(self) -> None:
        """Have whoever waits for a change go home."""
        self.ended = True
        self.view.touch()

    def look(self) -> None:
        """Look at questions, letters and the whole soon: something was done about them."""
        self._look.set()

    async def _connected(self) -> None:
        gone = asyncio.Event()
        where = self._hub or connection.endpoint(self._settings, role="admin")
        client = await connection.connect(where, name="view", patient=False, changed=gone.set)
        self.client, self.view.connected = client, True
        work: list[asyncio.Task[Any]] = [
            asyncio.create_task(gone.wait()),
            asyncio.create_task(_kept(lambda: self._events(client))),
            asyncio.create_task(_kept(lambda: self._runs(client))),
            asyncio.create_task(self._looking(client)),
        ]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            self.client = None
            await tasks.end(work)
            await client.close()

    async def _events(self, client: Client) -> None:
        info = await client.jetstream().stream_info(EVENTS)
        last = info.state.last_seq
        known = self.view.events[-1].seq if self.view.events else 0
        start = max(last - self._back + 1, known + 1 if known <= last else 1, 1)
        since_us = times.now_us() - FACTS_US
        self._book = await book.of_stream(client, since_us=since_us)
        subjects = [f"evt.{token}.>" for token in self._hosts.tokens]
        async for msg in scan(client, EVENTS, subjects=subjects, start_seq=start, follow=True):
            if not self._hosts.subject(msg.subject):
                continue
            one = opened(msg)
            seen = SeenEvent(
                seq=one.seq,
                stored_us=one.stored_us,
                subject=msg.subject,
                event=one.event,
                error=one.error,
            )
            self.view.see(seen)
            if one.event is not None:
                self._book.add(one.event, one.stored_us)
                if one.event.topic.startswith((ASKED, *LETTERS)):
                    self._look.set()

    async def _runs(self, client: Client) -> None:
        stream = f"KV_{topology.RUNS}"
        since_us = times.now_us() - RUNS_US
        async for msg in scan(client, stream, since_us=since_us, follow=True):
            with contextlib.suppress(msgspec.DecodeError):
                if msg.data and self._hosts.named((run := _run(msg.data)).host):
                    self.view.run(run)

    async def _looking(self, client: Client) -> None:
        letters_seen = (-1, -1)
        while True:
            self._look.clear()
            # at the same time: what is asked of a broker that hangs is each waited for
            found, letters_seen = await asyncio.gather(
                health.check(self._settings, hub=self._hub), self._listed(client, letters_seen)
            )
            now_us = times.now_us()
            self._book.facts.forget(now_us - FACTS_US)
            self.view.stand(
                found,
                load_profiles(Path(paths.config_dir())).profiles.values(),
                self._book,
                host=self._settings.host,
                now_us=now_us,
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look.wait()

    async def _listed(self, client: Client, letters_seen: tuple[int, int]) -> tuple[int, int]:
        """Questions and letters as they are now; as they were where the broker does not tell. How
        many letters there were when they were read, and the last one's number."""
        named = self._hosts.named
        with contextlib.suppress(*AWAY, BrokerUnavailable, PermissionDenied):
            self.view.approvals = [
                one async for one in approvals.waiting(client) if named(one.run.host)
            ]
            state = (await client.jetstream().stream_info(topology.DLQ)).state
            if (now := (state.messages, state.last_seq)) != letters_seen:
                self.view.letters = [
                    one async for one in deadletter.letters(client, bodies=False) if named(one.host)
                ]
                letters_seen = now
        return letters_seen


def _of(settings: Settings, hub: connection.Endpoint | None, hosts: Sequence[str]) -> str:
    member = joined.read()
    name = settings.host
    if hub is not None and member is not None:
        name = f"hub {member.hub.hub_host}"
    return f"{name}, only {', '.join(hosts)}" if hosts else name


async def _kept(work: Callable[[], Awaitable[None]]) -> None:
    """Begin it again when a stream is not there yet, or was not to be read for a while."""
    while True:
        with contextlib.suppress(*AWAY, BrokerUnavailable, PermissionDenied):
            await work()
        await asyncio.sleep(AGAIN_S)
