"""Steps that go on from what they saved, and what steps share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from tests.conftest import mesh_client, run
from tests.handlers.lost_runs import dead, left_behind
from tests.handlers.mesh import mesh, write_profiles

from opsmesh.handlers.actions import registry
from opsmesh.handlers.actions.contract import MAX_SAVED, StepContext, StepResult
from opsmesh.handlers.actions.shared import Shared
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.holder import this_process
from opsmesh.handlers.runs.lease import Lease, Lost
from opsmesh.handlers.runs.ledger import Run, StepRecord
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import Event

#: A configuration folder of each test's own.
pytestmark = pytest.mark.usefixtures("home")

TEXT = """
profiles:
  long:
    on: service.start.failed
    vars: {{version: {version}}}
    actions:
      - {{id: far, far: away}}
"""


class Far:
    """Has something under way elsewhere, of which it keeps the number."""

    key: ClassVar[str] = "far"
    on_unknown: ClassVar[str] = "resume"

    @classmethod
    def parse(cls, value: Any) -> Self:
        return cls()

    def describe(self) -> dict[str, Any]:
        return {}

    async def run(self, ctx: StepContext) -> StepResult:
        saved = dict(ctx.saved)
        await ctx.save({"task": saved.get("task", "new"), "goes": saved.get("goes", 0) + 1})
        return StepResult(ok=True, output={"saved": saved, "attempt": ctx.attempt})


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The action `far`, beside ours."""
    ours = registry.discover()
    found = registry.Found({**ours.actions, "far": Far}, ours.problems)
    monkeypatch.setattr(registry, "discover", lambda: found)


async def _resumed(text: str, record: StepRecord, **facts: Any) -> tuple[Run, list[Event]]:
    """What became of a run that a dead handler left with this step, and who was told of it."""
    settings = Settings()
    write_profiles(text)
    async with mesh_client(settings) as client:
        await left_behind(client, settings, "long", dead(), steps=[record], **facts)
    async with mesh(text, settings=settings) as m:
        await m.wait("automation.run.succeeded")
        [ended] = await m.runs()
        return ended, await m.events("automation.step.unknown")


def _left(**more: Any) -> StepRecord:
    facts: dict[str, Any] = {
        "id": "far",
        "action": "far",
        "state": "started",
        "started_us": 1,
        "on_unknown": "resume",
        "saved": {"task": "t-1", "goes": 1},
    }
    return StepRecord(**{**facts, **more})


def test_goes_on_within_the_attempt(nats_server: EmbeddedServer) -> None:
    """A step whose handler died gets what it saved; no attempt is spent, and nobody is alarmed."""
    ended, told = run(_resumed(TEXT.format(version=1), _left()))
    assert ended.steps[0].output == {"saved": {"task": "t-1", "goes": 1}, "attempt": 1}
    assert ended.steps[0].saved == {"task": "t-1", "goes": 2}
    assert told == []


def test_goes_on_after_an_edit(nats_server: EmbeddedServer) -> None:
    """What is under way elsewhere is not begun a second time because the profile was edited."""
    ended, _ = run(_resumed(TEXT.format(version=2), _left(), profile_hash="of before"))
    assert ended.steps[0].output["saved"]["task"] == "t-1"


def test_a_failed_step_starts_anew(nats_server: EmbeddedServer) -> None:
    """The next attempt of a step that failed has nothing to go on from."""
    record = _left(state="failed", error="no")
    ended, _ = run(_resumed(TEXT.format(version=1), record, state="retrying"))
    assert ended.steps[0].output == {"saved": {}, "attempt": 2}


def test_other_actions_cannot_resume(tmp_path: Path) -> None:
    """`on_unknown: resume` is refused where nothing is saved."""
    write_profiles("profiles: {a: {on: a.b, actions: [{on_unknown: resume, command: ['true']}]}}")
    [error] = load_profiles(Path(paths.config_dir())).errors
    assert "command cannot resume" in str(error)


def test_saves_so_much(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that saves too much fails; the ledger's entry must stay below the broker's limit."""

    async def too_much(self: Far, ctx: StepContext) -> StepResult:
        await ctx.save({"x": "y" * MAX_SAVED})
        raise AssertionError

    monkeypatch.setattr(Far, "run", too_much)

    async def check() -> None:
        async with mesh(TEXT.format(version=1)) as m:
            await m.publish()
            failed, *_ = await m.wait("automation.run.failed")  # the next attempt fails as well
            assert "may save 65536 bytes" in failed.payload["error"]

    run(check())


class Thing:
    """Counts how often it was made and closed."""

    made = 0
    closed = 0

    @classmethod
    async def make(cls) -> Thing:
        await asyncio.sleep(0)
        cls.made += 1
        return cls()

    async def aclose(self) -> None:
        type(self).closed += 1


@pytest.fixture
def thing() -> type[Thing]:
    """A kind of its own for each test."""
    return type("Thing", (Thing,), {})


def test_shared_is_made_once(thing: type[Thing]) -> None:
    """Who asks at the same time gets the same thing, and it is closed once."""

    async def check() -> None:
        shared = Shared()
        found = await asyncio.gather(*(shared.get("k", thing.make) for _ in range(10)))
        assert len({id(one) for one in found}) == 1
        await shared.aclose()
        assert (thing.made, thing.closed) == (1, 1)

    run(check())


def test_shared_is_made_again(thing: type[Thing]) -> None:
    """After `drop`, and after a factory that failed, the next who asks has it made."""

    async def broken() -> Thing:
        raise OSError("away")

    async def check() -> None:
        shared = Shared()
        with pytest.raises(OSError, match="away"):
            await shared.get("k", broken)
        first = await shared.get("k", thing.make)
        await shared.drop("k")
        assert await shared.get("k", thing.make) is not first
        assert (thing.made, thing.closed) == (2, 1)

    run(check())


def test_shared_outlives_who_asked(thing: type[Thing]) -> None:
    """A step that is cancelled while a thing is being made does not take it from the others."""

    async def check() -> None:
        shared = Shared()
        gate = asyncio.Event()

        async def slow() -> Thing:
            await gate.wait()
            return await thing.make()

        first, second = (asyncio.create_task(shared.get("k", slow)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        gate.set()
        assert isinstance(await second, Thing)

    run(check())


def test_shared_closes_what_can_be_closed(thing: type[Thing]) -> None:
    """One thing that cannot be closed does not keep the others open."""

    class Stuck(Thing):
        async def aclose(self) -> None:
            raise RuntimeError("no")

    async def check() -> None:
        shared = Shared()
        makers: list[Callable[[], Any]] = [Stuck.make, thing.make]
        for number, make in enumerate(makers):
            await shared.get(str(number), make)
        await shared.aclose()
        assert thing.closed == 1

    run(check())


def test_who_may_not_renew_its_lease_ends_its_step(nats_server: EmbeddedServer) -> None:
    """Credentials that were revoked in the middle of a step cost the run, as a broker that is away
    does: whoever takes it over would be at it beside us."""
    settings = Settings()
    write_profiles("profiles: {note: {on: service.start.failed, actions: [command: ['true']]}}")

    async def body() -> None:
        async with mesh_client(settings) as client:
            held = await left_behind(client, settings, "note", this_process(settings.host))
            client.denied.add(f"$KV.opsmesh-runs.{held.run.key}".lower())  # type: ignore[attr-defined]
            with pytest.raises(Lost):
                async with Lease(held, 0.5):
                    await asyncio.Event().wait()

    run(body())
