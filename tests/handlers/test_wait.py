"""The action `wait`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, restart, run
from tests.handlers.conftest import EVENT
from tests.handlers.handlers_process import handlers, owner_of
from tests.handlers.mesh import Mesh, mesh, write_profiles
from tests.handlers.test_handler_dies import publish
from tests.handlers.test_lint import said

from opsmesh.handlers.actions.contract import Action, Followed, NoMesh, StepContext, StepResult
from opsmesh.handlers.actions.wait import Wait
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.handlers.testing import Profiles
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.testing import MemoryMesh
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, encode, subject
from opsmesh.schemas.registry import load_registry

Context = Callable[..., StepContext]

TEXT = """
profiles:
  restart:
    on: service.start.failed
    actions:
      - {{id: back, wait: {{on: service.started, key: payload.unit, timeout: {timeout}{more}}}}}
      - {{id: after, command: [echo, "${{{{ {shown} }}}}"]}}
"""


FAILED = {"unit": "x.service", "manager": "user", "result": "exit-code"}


def text(timeout: str = "10m", more: str = "", shown: str = "steps.back.event.payload.unit") -> str:
    """A profile that waits for a unit to be back."""
    return TEXT.format(timeout=timeout, more=more, shown=shown)


def event(topic: str = "service.started", **payload: Any) -> Event:
    """Something that comes."""
    told = {"unit": "backup.service", **payload}
    return msgspec.structs.replace(EVENT, topic=topic, payload=told, id=f"e-{topic}-{payload}")


class Stream(NoMesh):
    """Events that come by; a stand-in for the mesh."""

    def __init__(self, *events: Event, stored_us: int | None = None, endless: bool = False) -> None:
        self._found = [
            Followed(seq=n, stored_us=stored_us or times.now_us(), event=one)
            for n, one in enumerate(events, start=10)
        ]
        self._endless = endless
        self.asked: dict[str, Any] = {}

    async def follow(
        self, topics: Sequence[str], *, since_us: int | None = None, after_seq: int | None = None
    ) -> AsyncIterator[Followed]:
        self.asked = {"topics": topics, "since_us": since_us, "after_seq": after_seq}
        for found in self._found:
            yield found
        if self._endless:
            await asyncio.Event().wait()

    async def newest(self) -> int:
        return 7


def wait(context: Context, value: Any, stream: Stream, **facts: Any) -> StepResult:
    """One step that waits."""
    result: StepResult = run(Wait.parse(value).run(context(mesh=stream, **facts)))
    return result


def test_comes(context: Context) -> None:
    """The first event of these topics is the step's output."""
    assert isinstance(Wait.parse("a.b"), Action)
    stream = Stream(event("config.drift.detected"), event())
    result = wait(context, ["config.*.detected", "service.started"], stream, stored_us=5)
    assert result.ok
    assert result.output["event"]["topic"] == "config.drift.detected"
    assert (result.output["seq"], result.output["timed_out"]) == (10, False)
    assert stream.asked == {
        "topics": ("config.*.detected", "service.started"),
        "since_us": 5,
        "after_seq": None,
    }


@pytest.mark.parametrize(
    ("clause", "seq"),
    [
        ({"where": "event.payload.unit == trigger.payload.unit && event.payload.n > 1"}, 12),
        ({"where": "event.payload.nope == 1 || event.payload.n == 2"}, 12),
        ({"where": "event.payload.n == vars.limit"}, 13),
        ({"where": "size(steps.evidence.path) == event.payload.n"}, None),
        ({"key": "payload.unit"}, 11),
        ({"key": ["payload.unit", "host"], "where": "event.payload.n == 3"}, 13),
    ],
)
def test_where(context: Context, clause: dict[str, Any], seq: int | None) -> None:
    """`where` sees the awaited event, the run's own, and what the profile knows; what it cannot
    answer is no match. `key` are fields that both have the same."""
    others = [event(unit="other.service", n=9), *(event(n=n) for n in (1, 2, 3))]
    result = wait(context, {"on": "service.started", **clause}, Stream(*others))
    assert result.output["seq"] == seq


def test_not_its_own_event(context: Context) -> None:
    """The event that fired the profile is not the one that it waits for."""
    result = wait(context, EVENT.topic, Stream(EVENT))
    assert result.output["event"] is None


@pytest.mark.parametrize(("otherwise", "ok"), [("fail", False), ("skip", True)])
def test_does_not_come(context: Context, otherwise: str, ok: bool) -> None:
    """Without an event in time the step fails and is not tried again, or goes on without one."""
    value = {"on": "a.b", "timeout": "50ms", "otherwise": otherwise}
    result = wait(context, value, Stream(endless=True))
    assert (result.ok, result.retryable, result.timed_out) == (ok, False, True)
    assert result.error == "no a.b came within 50ms"
    assert (result.output["event"], result.output["timed_out"]) == (None, True)


def test_saves_its_place(context: Context) -> None:
    """Position and deadline are kept, and are those of the first go whenever it goes on."""
    saved: list[dict[str, Any]] = []

    async def save(state: Any) -> None:
        saved.append(dict(state))

    value = {"on": "service.started", "since": "now", "timeout": "1m"}
    before = times.now_us()
    wait(context, value, Stream(event()), save=save)
    after = times.now_us()
    [first] = saved
    assert first["after_seq"] == 7
    assert before <= first["deadline_us"] - 60_000_000 <= after
    stream = Stream(event())
    wait(context, value, stream, save=save, saved=first)
    assert stream.asked["after_seq"] == 7
    assert saved == [first]


@pytest.mark.parametrize(("late_us", "comes"), [(-1_000_000, True), (1_000_000, False)])
def test_the_time_was_over(context: Context, late_us: int, comes: bool) -> None:
    """After a restart that was too late, what had come in time counts, and nothing else."""
    deadline = times.now_us() - 3_600_000_000
    stream = Stream(event(), stored_us=deadline + late_us)
    result = wait(context, "service.started", stream, saved={"deadline_us": deadline})
    assert (result.output["event"] is not None) is comes


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "on"),
        ({"on": "Bad"}, "matches no topic"),
        ({"on": "a.b", "where": "evnt.x == 1"}, "did you mean 'event'"),
        ({"on": "a.b", "where": "last('a.b') != null"}, "an event is awaited"),
        ({"on": "a.b", "timeout": "0s"}, "timeout"),
        ({"on": "a.b", "otherwise": "run"}, "otherwise"),
        ({"on": "a.b", "key": "payloda.x"}, "did you mean 'payload'"),
    ],
)
def test_refused(value: Any, said: str) -> None:
    """What could never be met is refused when the profile is loaded."""
    with pytest.raises(ValueError, match=said):
        Wait.parse(value)


def test_the_run_has_time_for_it(home: Path) -> None:
    """A run may take as long as its steps wait, beside its own time; a limit that is shorter is a
    mistake."""
    write_profiles(text("10m"))
    config = Path(paths.config_dir())
    [profile] = load_profiles(config).profiles.values()
    assert profile.timeout == 660
    write_profiles(text("10m").replace("actions:", "timeout: 5m\n    actions:"))
    [error] = load_profiles(config).errors
    assert "a run of 5m has no time for the 10m that its steps may wait" in str(error)
    write_profiles(text("10m").replace("{id: back,", "{id: back, timeout: 1m,"))
    [error] = load_profiles(config).errors
    assert "1m is no time for the 10m that it may wait" in str(error)


def test_topics_are_checked(tmp_path: Path) -> None:
    """`profile validate` finds a topic that is misspelt."""
    for value in ("{on: service.unit.flaping}", "[editor.save, service.unit.flaping]"):
        profile = f"profiles: {{a: {{on: editor.save, actions: [wait: {value}]}}}}"
        assert said(tmp_path, profile, load_registry()) == [
            "error: topic 'service.unit.flaping' is not registered"
        ]


async def _waiting(client: Client) -> Run:
    async def there() -> Run | None:
        found = [one async for one in Ledger(client).runs()]
        return found[0] if found and found[0].steps and found[0].steps[0].saved else None

    found = await eventually(there)
    assert isinstance(found, Run)
    return found


async def _said(m: Mesh) -> str:
    [ended] = await m.runs()
    return str(ended.steps[1].output["stdout"]).strip()


def test_live(nats_server: EmbeddedServer) -> None:
    """A run goes on with the event that it waited for, and not with another unit's."""

    async def body() -> None:
        async with mesh(text()) as m:
            await m.publish()
            await _waiting(m.client)
            await m.publish("service.started", payload={"unit": "other.service"})
            await m.publish("service.started", payload={"unit": "backup.service"})
            await m.wait("automation.run.succeeded")
            assert await _said(m) == "backup.service"

    run(body())


@pytest.mark.parametrize(
    ("since", "timeout", "comes"), [("event", "1m", "true"), ("now", "400ms", "false")]
)
def test_came_before_the_step(
    nats_server: EmbeddedServer, since: str, timeout: str, comes: str
) -> None:
    """What came while an earlier step was at work is not missed, unless one asks for what comes
    from now on."""
    profile = text(timeout, f", otherwise: skip, since: {since}", "steps.back.event != null")
    gate = 'sh, -c, "while ! test -e $0; do sleep 0.01; done", "{path}"'

    async def body(path: Path) -> None:
        first = f"- {{id: first, command: [{gate.format(path=path)}]}}\n      "
        async with mesh(profile.replace("- {id: back", first + "- {id: back", 1)) as m:
            await m.publish()
            await eventually(lambda: m.runs())
            await m.publish("service.started", payload={"unit": "backup.service"})
            path.touch()
            await m.wait("automation.run.succeeded")
            [ended] = await m.runs()
            assert ended.steps[2].output["stdout"].strip() == comes

    run(body(Path(paths.state_dir(), "gate")))


@pytest.mark.slow
def test_the_broker_comes_back(nats_server: EmbeddedServer) -> None:
    """A wait outlives the broker's restart."""

    async def body() -> None:
        async with mesh(text()) as m:
            await m.publish()
            await _waiting(m.client)
            await restart(m.client, nats_server)
            await m.publish("service.started", payload={"unit": "backup.service"})
            await m.wait("automation.run.succeeded")

    run(body())


def test_killed_meanwhile(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Handlers that are killed while a step waits do not lose what comes meanwhile: their
    successor finds it, in the same attempt and with the same deadline."""
    write_profiles(text())
    settings = Settings()
    [profile] = load_profiles(Path(paths.config_dir())).profiles.values()

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                pid = processes.start()
                await owner_of(client, consumer_name(profile, settings.host))
                begun_by = await publish(client, settings)
                begun = await _waiting(client)
                processes.kill(pid)
                back = msgspec.structs.replace(begun_by, topic="service.started", id=ids.uuid7())
                await client.jetstream().publish(subject(back.host, back.topic), encode(back))
                processes.start()

                async def ended() -> Run | None:
                    [found] = [one async for one in Ledger(client).runs()]
                    return found if found.finished else None

                done = await eventually(ended)
                assert (done.state, done.attempt) == ("succeeded", 1)
                assert done.steps[0].saved == begun.steps[0].saved
                assert done.steps[1].output["stdout"] == "a.service\n"

    run(body())


def test_in_the_test_kit(tmp_path: Path) -> None:
    """In a mesh in memory what is stored is all that comes."""
    shown = "steps.back.event != null"
    (tmp_path / "p.yaml").write_text(text(more=", otherwise: skip", shown=shown))
    memory = MemoryMesh()
    profiles = Profiles.load(tmp_path / "p.yaml", memory)
    for back in ([], ["service.started"]):
        memory.emit("service.start.failed", FAILED)
        [fired] = profiles.fired()
        for topic in back:
            memory.emit(topic, {"unit": "x.service", "manager": "user"})
        ran = profiles.act(fired)
        assert ran.steps[1].output["stdout"].strip() == str(bool(back)).lower()
