"""Clauses that wait, and runs beside runs, with real handlers and a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.conftest import eventually, mesh_client, run
from tests.handlers.mesh import Mesh, mesh, write_profiles

from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.runs.ledger import Run
from opsmesh.handlers.server import Server
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings


async def ended(m: Mesh, count: int) -> list[Run]:
    """The runs in the order of their events, once so many have ended."""

    async def there() -> list[Run]:
        found = [one for one in await m.runs() if one.finished]
        return found if len(found) == count else []

    found: list[Run] = await eventually(there)
    return sorted(found, key=lambda one: one.stream_seq)


def test_a_collection_is_one_run_that_sees_all_events(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """Three events of one unit are one run; its action is given them as a list, in order."""
    out = tmp_path / "out"
    profiles = f"""
profiles:
  digest:
    on: service.start.failed
    collect: {{window: 10m, max: 3, key: payload.unit}}
    actions:
      - command: [sh, -c, 'echo "$1" >> {out}', sh,
                  "${{{{ events.map(e, e.payload.n) }}}} of ${{{{ event.payload.unit }}}}"]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            for n in range(3):
                await m.publish(payload={"unit": "a", "n": n})
                await m.publish(payload={"unit": "b", "n": n})
            a, b = await ended(m, 2)
            assert [len(one.events) for one in (a, b)] == [3, 3]
            assert sorted(out.read_text().splitlines()) == ["[0,1,2] of a", "[0,1,2] of b"]

    run(body())


def test_a_timer_survives_every_process(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A trailing debounce and an `unless` that began before the handlers and the broker ended fire
    after both are back, at the time that was theirs."""
    profiles = """
profiles:
  quiet:
    on: service.start.failed
    debounce: {window: 1s, edge: trailing}
    actions: [command: ["true"]]
  missing:
    on: config.apply.started
    unless: {on: config.apply.completed, within: 1s}
    actions: [command: ["true"]]
"""
    write_profiles(profiles)
    settings = Settings()

    async def before() -> tuple[str, str]:
        async with mesh(profiles, settings=settings) as m:
            # stored one right after the other: within one window, however slow we are
            _, last = await asyncio.gather(m.publish(), m.publish())
            started = await m.publish("config.apply.started", payload={})
            await m.decided("quiet", 1)
            await m.decided("missing", 1)
            return last.id, started.id

    async def after(last: str, started: str) -> None:
        async with mesh_client(settings) as client:
            server = Server(client, settings)
            await server.start()
            m = Mesh(client, server, settings)
            found = {one.profile: one for one in await ended(m, 2)}
            await server.stop()
            assert found["quiet"].event_id == last
            assert found["missing"].event_id == started
            fired = {r.decision.profile: r.decision for r in await m.records() if r.decision.fires}
            for profile, one in fired.items():
                assert one.at_us == found[profile].stored_us + 1_000_000

    last, started = run(before())
    nats_server.kill()
    nats_server.start()
    run(after(last, started))


def test_what_was_awaited_came(nats_server: EmbeddedServer) -> None:
    """The completing event of the same host ends the wait, and nothing runs."""
    profiles = """
profiles:
  missing:
    on: config.apply.started
    unless: {on: config.apply.completed, within: 300ms}
    actions: [command: ["true"]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            # stored one right after the other, however slowly we hear of it
            first, _ = await asyncio.gather(
                m.publish("config.apply.started", payload={}),
                m.publish("config.apply.completed", payload={}),
            )
            second = await m.publish("config.apply.started", payload={})
            (only,) = await ended(m, 1)
            assert only.event_id == second.id
            outcomes = [(r.decision.outcome, r.decision.clause) for r in await m.records()]
            assert outcomes == [
                ("waiting", "unless"),
                ("filtered", "unless"),
                ("waiting", "unless"),
                ("fire", "unless"),
            ]
            assert first.id != second.id

    run(body())


SLOW = """
profiles:
  one:
    on: service.start.failed
    concurrency: {{mode: {mode}, key: payload.unit}}
    retry: {{attempts: 2, initial: 50ms, jitter: 0}}
    actions:
      - command: [sh, -c, 'echo "begin $1" >> {out}; while test ! -e {go}; do sleep 0.02; done;
                  echo "end $1" >> {out}', sh, "${{{{ event.payload.n }}}}"]
"""


def test_single_leaves_the_others_out(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """While a run of a key is under way, further ones of that key are skipped, and say why; other
    keys have their own."""
    out, go = tmp_path / "out", tmp_path / "go"

    async def body() -> None:
        async with mesh(SLOW.format(mode="single", out=out, go=go)) as m:
            await m.publish(payload={"unit": "a", "n": "1"})
            await eventually(lambda: out.exists() and out.read_text() == "begin 1\n")
            await m.publish(payload={"unit": "a", "n": "2"})
            (skipped,) = await m.wait("automation.run.skipped")
            go.touch()
            await m.publish(payload={"unit": "b", "n": "3"})
            first, second, third = await ended(m, 3)
            states = [one.state for one in (first, second, third)]
            assert states == ["succeeded", "skipped", "succeeded"]
            assert skipped.payload["reason"] == f"run {first.run_id} was under way"
            assert "2" not in out.read_text()

    run(body())


def test_restart_takes_the_place(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A new run of a key stops the one under way, whose program is gone, and is recorded as
    cancelled."""
    out, go = tmp_path / "out", tmp_path / "go"

    async def body() -> None:
        async with mesh(SLOW.format(mode="restart", out=out, go=go)) as m:
            await m.publish(payload={"unit": "a", "n": "1"})
            await eventually(lambda: out.exists() and out.read_text() == "begin 1\n")
            await m.publish(payload={"unit": "a", "n": "2"})
            (cancelled,) = await m.wait("automation.run.cancelled")
            await eventually(lambda: "begin 2" in out.read_text())
            go.touch()
            first, second = await ended(m, 2)
            assert (first.state, second.state) == ("cancelled", "succeeded")
            assert cancelled.payload["reason"] == f"run {second.run_id} took its place"
            assert out.read_text().split("\n") == ["begin 1", "begin 2", "end 2", ""]

    run(body())


def test_restart_leaves_one_of_a_burst(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Of events that come at once the newest runs; every other run is cancelled, also one that had
    not begun."""
    profiles = """
profiles:
  newest:
    on: service.start.failed
    concurrency: {mode: restart}
    actions: [command: ["true"]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            await asyncio.gather(*(m.publish() for _ in range(8)))
            states = [one.state for one in await ended(m, 8)]
            assert states[-1] == "succeeded"
            assert set(states[:-1]) <= {"succeeded", "cancelled"}
            assert states.count("cancelled") >= 4

    run(body())


def test_queued_keeps_the_order_across_retries(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """In mode queued the second run begins when the first has ended, retries and all; in mode
    parallel it passes while the first waits."""
    profiles = """
profiles:
  {mode}:
    on: service.start.failed
    concurrency: {{mode: {mode}}}
    retry: {{attempts: 2, initial: 300ms, jitter: 0}}
    actions:
      - command: [sh, -c, 'echo "$1" >> {out}; until test -e {go}; do sleep 0.02; done;
                  test "$1" = 2 || test $OPSMESH_ATTEMPT = 2', sh, "${{{{ event.payload.n }}}}"]
"""

    async def order(mode: str) -> list[str]:
        out, go = tmp_path / mode, tmp_path / f"{mode}-go"
        async with mesh(profiles.format(mode=mode, out=out, go=go)) as m:
            await m.publish(payload={"n": "1"})
            await m.publish(payload={"n": "2"})

            async def behind() -> bool:
                return any(r.profile == mode and r.state == "queued" for r in await m.runs())

            await eventually(behind)  # the first fails once the second waits, not before
            go.touch()

            async def there() -> bool:
                return len([r for r in await m.runs() if r.profile == mode and r.finished]) == 2

            await eventually(there)
            return out.read_text().split()

    assert run(order("queued")) == ["1", "1", "2"]
    assert run(order("parallel")) == ["1", "2", "1"]


def test_disabling_leaves_queued_work_where_it_is(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """A run that waits for its retry when its profile is disabled is not dead-lettered; it goes on
    when the profile is enabled again."""
    fixed = tmp_path / "fixed"
    profiles = f"""
profiles:
  patient:
    on: service.start.failed
    retry: {{attempts: 2, initial: 2s, jitter: 0}}
    actions: [command: [test, -e, {fixed}]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            await m.publish()
            await m.wait("automation.run.failed")
            overrides.write("patient", "disabled")
            await eventually(lambda: m.server.in_force("patient").state == "disabled")
            fixed.touch()
            (waiting,) = await m.runs()
            assert (waiting.state, waiting.attempt) == ("retrying", 1)
            overrides.write("patient", None)
            (done,) = await ended(m, 1)
            assert (done.state, done.attempt) == ("succeeded", 2)
            assert await m.letters() == []

    run(body())


def test_last_looks_at_the_newest_event_before(nats_server: EmbeddedServer) -> None:
    """A condition on `last(…)` is decided by the newest event that was stored before, also when it
    was stored before the handlers started."""
    profiles = """
profiles:
  at-work:
    on: service.start.failed
    where: last("desktop.workspace.changed").payload.name == "work"
    actions: [command: ["true"]]
"""

    async def body() -> None:
        settings = Settings()
        async with mesh("profiles: {}", settings=settings) as m:
            await m.publish("desktop.workspace.changed", payload={"name": "work"})
        async with mesh(profiles, settings=settings) as m:
            yes = await m.publish()
            await m.publish("desktop.workspace.changed", payload={"name": "play"})
            await m.publish()
            await m.publish("desktop.workspace.changed", payload={"name": "work"})
            again = await m.publish()
            found = await ended(m, 2)
            assert [one.event_id for one in found] == [yes.id, again.id]

    run(body())
