"""How the mesh is: everything that `status` says, gathered once, with a fix for each problem.

Verdicts: `ok`; `degraded`, when something is wrong but no event is lost; `down`, when no supervisor
runs here.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamState
from nats.js.errors import NotFoundError

from opsmesh.cli import losses, session, sizes
from opsmesh.cli.config_file import mask_url
from opsmesh.cli.doctor.broker import RESTORE
from opsmesh.cli.hub import health as hub_health
from opsmesh.cli.profiles import health as profile_health
from opsmesh.cli.spool import words as spool_words
from opsmesh.handlers.evidence import sealing
from opsmesh.router import (
    connection,
    listing,
    paths,
    running,
    server,
    sink_consumer,
    spool_state,
    state_format,
    topology,
)
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import (
    BrokerMisconfigured,
    BrokerUnavailable,
    CredentialsRefused,
    NeedsUpgrade,
    StateTooNew,
)
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token

#: Events that the evidence sink may be behind before that is a problem.
SINK_LAG = 1000
#: Seconds that a file of the evidence may wait for its seal, which takes some.
UNSEALED = 600.0
#: What the sink's consumer is called in the report, on whatever host.
SINK = "evidence-sink"
PROFILE = "profile-"


@dataclass(kw_only=True)
class Health:
    """The JSON of `status --json`, field for field."""

    verdict: str = "ok"
    nats_url: str = ""
    started: str | None = None
    #: Whose systemd runs it, "user" or "system"; empty for `opsmesh up`.
    manager: str = ""
    components: list[dict[str, Any]] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    spool: dict[str, Any] = field(default_factory=dict)
    agent: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, dict[str, int]] = field(default_factory=dict)
    consumers: list[dict[str, Any]] = field(default_factory=list)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    full: list[dict[str, Any]] = field(default_factory=list)
    approvals: list[dict[str, Any]] = field(default_factory=list)
    mesh: dict[str, Any] = field(default_factory=dict)

    def problem(self, what: str, fix: str) -> None:
        """Note one thing that is wrong, and the command that mends it."""
        self.problems.append({"what": what, "fix": fix})

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


async def check(
    settings: Settings,
    *,
    hub: Endpoint | None = None,
    also: Callable[[Client], Awaitable[None]] | None = None,
) -> Health:
    """Look at everything; a part that cannot be reached is a problem, not an error. At a `hub` that
    is what its broker tells a leaf: processes are for the hub itself to look at. `also` is asked
    over the same connection."""
    health = Health()
    if hub is not None:
        await _broker(health, settings, _profiles(health), alive=True, hub=hub)
        health.verdict = "degraded" if health.problems else "ok"
        if not health.streams:
            health.verdict = "down"
        return health
    alive = _components(health)
    profiles = _profiles(health)
    if (hindrance := state_format.hindrance()) is not None:
        health.problem(str(hindrance), hindrance.hint)
    if alive or settings.nats.url:
        await _broker(health, settings, profiles, alive=alive, also=also)
    _spool(health)
    _agent(health)
    _unsealed(health, settings)
    if not alive:
        health.verdict = "down"
        health.problems.insert(0, {"what": "no mesh runs here", "fix": "opsmesh up --detach"})
    elif health.problems:
        health.verdict = "degraded"
    return health


def _components(health: Health) -> bool:
    state = running.mesh()
    if state is None:
        return False
    health.nats_url, health.started = state.nats_url, state.started
    health.manager = state.manager
    for status in state.components:
        health.components.append(
            {
                "name": status.name,
                "pid": status.pid,
                "state": status.state,
                "restarts": status.restarts,
                "since": status.since,
                "last_exit": status.last_exit,
                "log": status.log,
                "unit": status.unit,
            }
        )
        if status.state not in ("running", "waiting"):
            why = f" (last: {status.last_exit})" if status.last_exit else ""
            health.problem(f"{status.name} does not run: {status.state}{why}", status.see)
    return True


def _profiles(health: Health) -> set[str] | None:
    """The profiles' names; None when the files are broken, and nobody can say what is stale."""
    try:  # a broken installation is what `status` has to be able to tell
        from opsmesh.handlers.profiles import candidates
        from opsmesh.handlers.profiles.profile import load_profiles
    except ImportError as broken:
        health.problem(f"profiles cannot be read: {broken}", "opsmesh doctor")
        return None
    found = load_profiles(Path(paths.config_dir()))
    for error in found.errors:
        what = f"profiles are broken, the last good ones stay in force: {error}"
        health.problem(what, "mend the file; check it: opsmesh profile validate")
    for error in candidates.load(Path(paths.config_dir())).errors:
        fix = "opsmesh profile try FILE, or opsmesh profile try --stop PROFILE"
        health.problem(f"a candidate is broken, and not decided: {error}", fix)
    return None if found.errors else set(found.profiles)


def _spool(health: Health) -> None:
    state = spool_state.look(paths.spool_dir())
    health.spool = asdict(state)
    for what, fix in spool_words.problems(state):
        health.problem(what, fix)


def _agent(health: Health) -> None:
    """The agent's own figures; it says them itself, so that one that hangs is found."""
    try:
        health.agent = spool_state.ask_agent() or {}
    except TimeoutError:
        what = "the agent hangs; who has events writes them into the spool itself"
        health.problem(what, profile_health.anew_with("agent"))
    if held := health.agent.get("paused"):
        size = sizes.text(health.agent["under_way_bytes"])
        what = f"{held} senders are held up: {size} of events are under way"
        health.problem(what, "the broker or the disk is slow: opsmesh doctor")


async def _broker(
    health: Health,
    settings: Settings,
    profiles: set[str] | None,
    *,
    alive: bool,
    hub: Endpoint | None = None,
    also: Callable[[Client], Awaitable[None]] | None = None,
) -> None:
    try:
        where = hub or connection.endpoint(settings, role="admin")
        health.nats_url = mask_url(where.url)
        client = await connection.connect(where, name="status", patient=False)
    except BrokerUnavailable as error:
        refused = error.hint if isinstance(error, CredentialsRefused) else ""
        health.problem(str(error), refused or (hub_health.FIX if hub else "opsmesh doctor"))
        return
    try:
        js = client.jetstream()
        await _form(health, js)
        await (_streams if hub is None else _counted)(health, js, settings)
        _letters(health)
        if topology.EVENTS in health.streams:
            found = await losses.recent(client, now_us=times.now_us())
            health.gaps = [msgspec.to_builtins(gap) for gap in found]
            await _consumers(health, client, settings, profiles, alive=alive)
            await _approvals(health, client)
            if hub is None:
                health.mesh = await hub_health.look(client, settings)
            for wrong in await hub_health.problems(health.mesh):
                health.problem(*wrong)
            if also is not None:
                await also(client)
    except (NatsError, TimeoutError) as error:
        what = f"JetStream does not answer: {error or type(error).__name__}"
        health.problem(
            hub_health.without_leader() or what, "opsmesh hub cluster ls, or opsmesh doctor"
        )
    finally:
        await client.close()
    if hub is None:
        _durable(health, settings)


async def _form(health: Health, js: JetStreamContext) -> None:
    try:
        await topology.check_form(js)
    except (StateTooNew, NeedsUpgrade) as error:
        health.problem(str(error), error.hint)


async def _streams(health: Health, js: JetStreamContext, settings: Settings) -> None:
    missing: list[str] = []
    behind: dict[str, list[str]] = defaultdict(list)
    known = topology.Known(topology.known_file())
    for wanted in topology.streams(settings):
        name = wanted.name or ""
        last_known = known.last_seq(name)
        try:
            info = await js.stream_info(name)
        except NotFoundError:
            if last_known:
                what = f"stream {name} held messages up to sequence {last_known}, and is gone"
                health.problem(what, RESTORE)
            else:
                missing.append(name)
            continue
        for node in (info.cluster.replicas or ()) if info.cluster is not None else ():
            if not node.current:
                behind[node.name or "?"].append(name)
        state = info.state
        if (said := losses.full(info.config, state)) is not None:
            health.full.append(msgspec.to_builtins(said))
        health.streams[name] = _count(state)
        if state.last_seq < last_known:
            health.problem(
                f"stream {name} has gone back from sequence {last_known} to {state.last_seq}",
                RESTORE,
            )
    if not settings.nats.url:
        used, room = (await js.account_info()).storage, settings.nats.max_file_store
        if used >= losses.FULL * room:
            what = f"the broker's store is {used / room:.0%} full; then new events are only spooled"
            fix = "raise nats.max_file_store in config.yaml, or lower events.max_bytes; then: "
            health.problem(what, fix + "opsmesh down && opsmesh up --detach")
    for node_name, names in sorted(behind.items()):
        what = f"node {node_name} is away or behind: {len(names)} streams have a copy less"
        health.problem(what, f"on {node_name}: opsmesh up --detach; here: opsmesh hub cluster ls")
    if missing:
        what = f"not there yet: {', '.join(missing)}"
        health.problem(what, "the agent creates streams once it runs: opsmesh doctor")


async def _counted(health: Health, js: JetStreamContext, settings: Settings) -> None:
    """Another machine's streams: what they should be is for that one to say."""
    for wanted in topology.streams(settings):
        name = wanted.name or ""
        with contextlib.suppress(NotFoundError):
            health.streams[name] = _count((await js.stream_info(name)).state)


def _count(state: StreamState) -> dict[str, int]:
    return {"messages": state.messages, "last_seq": state.last_seq}


def _letters(health: Health) -> None:
    if letters := health.streams.get(topology.DLQ, {}).get("messages"):
        word = "dead letter: an event" if letters == 1 else "dead letters: events"
        what = f"{letters} {word} that no attempt could handle"
        call = f"opsmesh{' --hub' if session.asks_hub() else ''} dlq"
        health.problem(what, f"{call} ls --group, then {call} retry or {call} drop")


async def _consumers(
    health: Health, client: Client, settings: Settings, profiles: set[str] | None, *, alive: bool
) -> None:
    infos = await listing.consumers(client.jetstream(), topology.EVENTS)
    decided = {one.consumer: one for one in await _decided(client, settings, infos)}
    for one in decided.values():
        health.profiles.append({**asdict(one), "fix": one.fix})
        if alive and one.verdict in profile_health.WRONG:
            which = one.profile if one.kind == "profile" else f"the candidate of {one.profile}"
            health.problem(f"{which}: {one.detail}", one.fix)
        if one.asks:
            what = "a run waits" if one.asking == 1 else f"{one.asking} runs wait"
            health.problem(
                f"{one.profile}: {what} for an answer, because nobody knows how a step went",
                f"opsmesh run show {one.asks[0]}, then opsmesh run answer {one.asks[0]} "
                "retry|skip|fail"
                + ("; all of them: opsmesh run ls --state waiting" if one.asking > 1 else ""),
            )
    sink = sink_consumer.name(settings.host)
    for info in infos.values():
        pending = info.num_pending or 0
        if info.name == sink and pending > SINK_LAG:
            what = f"evidence is {pending} events behind"
            health.problem(what, f"wait; if it stays so: {profile_health.anew_with('sink')}")
        if info.name == sink or info.name.startswith(PROFILE):
            name, stale = SINK, False
            if info.name != sink:
                name, stale = _profile(info.name, profiles, settings.host)
            known = decided.get(info.name)
            health.consumers.append(
                {
                    "profile": name,
                    "pending": pending,
                    "ack_pending": info.num_ack_pending or 0,
                    "stale": stale,
                    "state": known.state if known else None,
                    "verdict": known.verdict if known else None,
                }
            )


async def _approvals(health: Health, client: Client) -> None:
    try:
        from opsmesh.handlers.runs import approvals
    except ImportError:  # said before
        return
    async for one in approvals.waiting(client):
        health.approvals.append(
            {
                "id": one.asked.id,
                "profile": one.run.profile,
                "prompt": one.asked.prompt,
                "since": times.format_us(one.asked.asked_us),
            }
        )


async def _decided(
    client: Client, settings: Settings, infos: dict[str, ConsumerInfo]
) -> list[profile_health.ProfileHealth]:
    try:
        return await profile_health.check(client, settings, infos)
    except ImportError:  # said before
        return []


def _profile(consumer: str, profiles: set[str] | None, host: str) -> tuple[str, bool]:
    """The profile of `profile-NAME` or `profile-NAME-on-HOST`, and whether it is gone: of another
    host's, nobody can say so here."""
    rest = consumer.removeprefix(PROFILE)
    for name in sorted(profiles or (), key=len, reverse=True):
        if rest == name or rest.startswith(f"{name}-on-"):
            return name, False
    name, _, on = rest.partition("-on-")
    return name, profiles is not None and on in ("", host_token(host))


def _unsealed(health: Health, settings: Settings) -> None:
    """A file of the evidence that ended long ago, and that nobody could seal."""
    waiting = []
    for segment in sealing.due(settings.evidence_dir):
        with contextlib.suppress(FileNotFoundError):  # sealed this moment
            waiting.append(time.time() - segment.path.stat().st_mtime)
    if waiting and max(waiting) > UNSEALED:
        what = f"{len(waiting)} ended files of the evidence are not sealed"
        health.problem(what, "opsmesh evidence seal says why")


def _durable(health: Health, settings: Settings) -> None:
    broker = None if settings.nats.url else server.known(Path(paths.state_dir()))
    if broker is None:
        return
    try:
        server.check_durable(broker)
    except BrokerMisconfigured as error:
        health.problem(str(error), error.hint)
    except (OSError, ValueError) as error:
        health.problem(f"the broker's monitor does not answer: {error}", "opsmesh doctor")
