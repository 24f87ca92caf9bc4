"""The action `trigger`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, run
from tests.handlers.conftest import EVENT
from tests.handlers.mesh import Mesh, mesh
from tests.handlers.test_lint import said

from opsmesh.handlers.actions.contract import Action, NoMesh, StepContext
from opsmesh.handlers.actions.trigger import Trigger
from opsmesh.handlers.errors import NotRunnable
from opsmesh.handlers.runs.ledger import Run
from opsmesh.handlers.testing import Profiles
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.testing import MemoryMesh
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.registry import Registry, load_registry

Context = Callable[..., StepContext]

CHAIN = """
profiles:
  first:
    on: service.start.failed
    actions:
      - {{id: go, trigger: {{profile: second, payload: {{name: "${{{{ event.payload.unit }}}}"}}}}}}
  second:
    on: never.happens
    where: "false"
    {more}
    actions:
      - command: [echo, "${{{{ event.payload.name }}}}", "${{{{ event.hops }}}}"]
"""

LOOP = """
profiles:
  ping: {on: service.start.failed, hops: 4, actions: [trigger: pong]}
  pong: {on: never.happens, hops: 4, actions: [trigger: ping]}
"""


class Asked(NoMesh):
    """Keeps what a step asks for; a stand-in for the mesh."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event, str]] = []

    async def trigger(self, profile: str, event: Event, *, id: str) -> None:
        if profile == "nobody":
            raise NotRunnable(profile, "no such profile")
        self.events.append((profile, event, id))


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The registered topics."""
    return load_registry()


def test_event(context: Context) -> None:
    """The other profile gets this event as one of its own, caused by it and a hop further."""
    action, asked = Trigger.parse("other"), Asked()
    assert isinstance(action, Action)
    result = run(action.run(context(mesh=asked)))
    [(profile, event, id)] = asked.events
    assert (profile, id) == ("other", event.id)
    assert (event.causation_id, event.hops, event.correlation_id) == (EVENT.id, 1, "story")
    assert (event.topic, event.payload, event.host) == (EVENT.topic, EVENT.payload, EVENT.host)
    assert event.run_id == "run1"
    assert result.output == {"profile": "other", "event_id": event.id, "trigger_id": event.id}


def test_same_again(context: Context) -> None:
    """A step that runs again after a crash asks for the same thing."""
    asked = Asked()
    for ctx in (context(mesh=asked), context(mesh=asked, attempt=3)):
        run(Trigger.parse("other").run(ctx))
    first, again = (id for _, _, id in asked.events)
    assert first == again


def test_payload(context: Context) -> None:
    """A payload of one's own takes the place of the event's."""
    asked = Asked()
    value = {"profile": "other", "payload": {"n": "${{ vars.limit }}"}}
    run(Trigger.parse(value).run(context(mesh=asked)))
    assert asked.events[0][1].payload == {"n": 3}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nobody", "profile 'nobody' cannot be run: no such profile"),
        ({"profile": "x", "payload": "${{ vars.limit }}"}, "the payload became 3, not a mapping"),
        ({"profile": "x", "payload": {"x": "y" * 300_000}}, "payload of 300008 bytes exceeds"),
        ({"profile": "x", "payload": {"x": "${{ event.nope }}"}}, "${{ event.nope }}"),
    ],
)
def test_hopeless(context: Context, value: Any, said: str) -> None:
    """What nobody can run is not tried again, and nothing is handed over."""
    asked = Asked()
    result = run(Trigger.parse(value).run(context(mesh=asked)))
    assert (result.ok, result.retryable, asked.events) == (False, False, [])
    assert (result.error or "").startswith(said)


@pytest.mark.parametrize(
    "value", [{}, "No Name", "a.>", {"profile": "${{ host }}"}, {"profile": "x", "payload": 3}]
)
def test_refused(value: Any) -> None:
    """The profile is plain text, and a payload a mapping."""
    with pytest.raises(ValueError):
        Trigger.parse(value)


async def _run_of(m: Mesh, profile: str) -> Run:
    async def there() -> Run | None:
        return next((one for one in await m.runs() if one.profile == profile), None)

    found = await eventually(there)
    assert isinstance(found, Run)
    return found


def test_runs_it(nats_server: EmbeddedServer) -> None:
    """The profile runs, whatever it listens to; nobody else sees the event, and one can wait for
    its result by `causation_id`."""

    async def body() -> None:
        async with mesh(CHAIN.format(more="")) as m:
            cause = await m.publish()
            first, second = await m.wait("automation.run.succeeded", 2)
            if first.payload["profile"] == "second":
                first, second = second, first
            ran = await _run_of(m, "second")
            assert ran.steps[0].output["stdout"] == "backup.service 1\n"
            asked = (await _run_of(m, "first")).steps[0].output["event_id"]
            assert (ran.event_id, second.causation_id) == (asked, asked)
            assert second.correlation_id == cause.correlation_id
            assert asked not in [event.id for event in await m.events()]
            assert ran.trigger == "step"

    run(body())


@pytest.mark.parametrize(
    ("more", "clause"),
    [("state: disabled", "state"), ("state: shadow", "shadow"), ("hops: 0", "hops")],
)
def test_not_against_its_owner(nats_server: EmbeddedServer, more: str, clause: str) -> None:
    """A profile that does not act, or takes no event from so far, does not run: on record."""

    async def body() -> None:
        async with mesh(CHAIN.format(more=more)) as m:
            await m.publish()
            await m.wait("automation.run.succeeded")

            async def decided() -> list[Any]:
                return await m.records("second")

            [record] = await eventually(decided)
            assert (record.decision.outcome, record.decision.clause) == ("suppressed", clause)
            assert [one.profile for one in await m.runs()] == ["first"]

    run(body())


def test_on_its_host(nats_server: EmbeddedServer) -> None:
    """What a step asks of a profile that acts on another host is left to that host."""

    async def body() -> None:
        async with mesh(CHAIN.format(more="run_on: elsewhere")) as m:
            await m.publish()
            await m.wait("automation.run.succeeded")

            async def handed_on() -> bool:
                info = await m.client.jetstream().stream_info("TRIGGERS", subjects_filter="trg.>")
                return list(info.state.subjects or ()) == ["trg.second.elsewhere"]

            await eventually(handed_on)
            assert [one.profile for one in await m.runs()] == ["first"]
            assert await m.records("second") == []

    run(body())


def test_a_loop_ends(nats_server: EmbeddedServer) -> None:
    """Profiles that trigger each other end at their hops."""

    async def body() -> None:
        async with mesh(LOOP) as m:
            await m.publish()
            await m.wait("automation.run.succeeded", 5)

            async def refused() -> list[Any]:
                found = [r.decision for name in ("ping", "pong") for r in await m.records(name)]
                return [one for one in found if one.clause == "hops"]

            [last] = await eventually(refused)
            assert last.profile == "pong"
            assert len(await m.runs()) == 5

    run(body())


def test_no_such_profile(nats_server: EmbeddedServer) -> None:
    """A profile that is not there fails the step, and leaves no trigger behind."""

    async def body() -> None:
        text = "profiles: {p: {on: service.start.failed, actions: [trigger: nobody]}}"
        async with mesh(text) as m:
            await m.publish()
            [failed] = await m.wait("automation.run.deadlettered")
            assert "no profile 'nobody' is in force" in failed.payload["error"]
            assert [letter.profile for letter in await m.letters()] == ["p"]

    run(body())


def test_in_the_test_kit(tmp_path: Path) -> None:
    """In a mesh in memory what was asked for lies in TRIGGERS."""
    (tmp_path / "p.yaml").write_text(CHAIN.format(more=""))
    memory = MemoryMesh()
    profiles = Profiles.load(tmp_path / "p.yaml", memory)
    memory.emit("service.start.failed", {"unit": "x.service", "manager": "user", "result": "x"})
    ran = profiles.act(profiles.fired()[0])
    [message] = memory.messages("TRIGGERS")
    assert message.subject == "trg.second"
    assert decode(message.data).payload == {"name": "x.service"}
    assert ran.steps[0].output["event_id"] == decode(message.data).id


def test_loops_are_found(tmp_path: Path, registry: Registry) -> None:
    """`profile validate` finds a loop of triggers, which no `where` breaks."""
    text = """
profiles:
  a: {on: editor.save, where: "false", actions: [trigger: b]}
  b: {on: editor.save, where: "false", actions: [trigger: a]}
"""
    loops = [one for one in said(tmp_path, text, registry) if "loop:" in one]
    assert loops == ["error: loop: a → trigger → b → trigger → a"]


def test_unknown_profiles_are_found(tmp_path: Path, registry: Registry) -> None:
    """`profile validate` names a profile that is not there, in a step and on a button."""
    text = """
profiles:
  logs: {on: editor.save, actions: [command: ["true"]]}
  a:
    on: editor.save
    actions:
      - trigger: lgos
      - notify: {title: x, actions: [{label: Logs, trigger: elsewhere}, deny]}
"""
    assert said(tmp_path, text, registry) == [
        "warning: no profile 'lgos' is among these",
        "warning: no profile 'elsewhere' is among these",
    ]
