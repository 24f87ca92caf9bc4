"""From event to outcome: runs, retries, dead letters, resumption."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
from nats.errors import TimeoutError as NatsTimeout
from tests.conftest import eventually, run
from tests.handlers.mesh import mesh, write_profiles

from opsmesh.handlers.live import in_force, versions
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.position import Cursor, Positions
from opsmesh.handlers.profiles import overrides
from opsmesh.router import deadletter, trigger
from opsmesh.router.decide import decide
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids

FAST_RETRY = "retry: {attempts: 3, initial: 50ms, jitter: 0}"


def test_event_runs_its_profile(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """An event runs its profile's command, with its payload as one argument; the outcome is an
    event of the same story."""
    out = tmp_path / "out"
    profiles = f"""
profiles:
  note:
    on: service.start.failed
    where: event.payload.unit.endsWith(".service")
    actions:
      - command: [sh, -c, 'printf "%s|%s" "$1" "$OPSMESH_EVENT_ID" > {out}', sh,
                  "${{{{ event.payload.unit }}}}"]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            event = await m.publish(payload={"unit": "a b; rm -rf $HOME.service"})
            (done,) = await m.wait("automation.run.succeeded")
            assert out.read_text() == f"a b; rm -rf $HOME.service|{event.id}"
            assert (done.correlation_id, done.causation_id) == (event.correlation_id, event.id)
            assert (done.attempt, done.exit_code, done.hops) == (1, 0, 1)
            assert done.duration_ms is not None
            (found,) = await m.runs()
            assert (found.state, found.run_id) == ("succeeded", done.run_id)
            assert [step.state for step in found.steps] == ["done"]

    run(body())


def test_condition_keeps_others_out(nats_server: EmbeddedServer) -> None:
    """An event that does not meet `where` runs nothing; its decision can be made again from the
    event and the text that was in force."""
    profiles = """
profiles:
  picky:
    on: service.start.failed
    where: event.payload.unit == "other.service"
    actions: [command: ["true"]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            event = await m.publish()
            await m.decided("picky", 1)
            assert await m.records() == []
            [version] = [v async for v in versions.history(m.client)]
            rule = version.read().rule
            found, _ = decide(rule, event, {}, now_us=0, host=m.settings.host)
            assert (version.from_seq, found.outcome, found.clause) == (1, "filtered", "where")
            assert found.values == {"event.payload.unit": "backup.service"}
            assert found.derivable
            assert await m.runs() == []

    run(body())


def test_retries_then_dead_letter_then_redrive(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A failing profile is tried again, ends in the DLQ with every error and the original bytes,
    and a redrive runs today's definition."""
    flag = tmp_path / "fixed"
    profiles = f"""
profiles:
  shaky:
    on: service.start.failed
    {FAST_RETRY}
    actions: [command: [test, -e, {flag}]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            event = await m.publish()
            (dead,) = await m.wait("automation.run.deadlettered")
            failed = await m.events("automation.run.failed")
            assert [f.attempt for f in failed] == [1, 2]
            assert [f.payload["next_attempt_in_s"] for f in failed] == [0.05, 0.1]
            (letter,) = await m.letters()
            assert letter.seq == dead.payload["dlq_seq"]
            assert letter.event_id == event.id
            assert [error["attempt"] for error in letter.errors] == [1, 2, 3]
            stored = await m.client.jetstream().get_msg("EVENTS", letter.origin_seq)
            assert letter.data == stored.data
            assert letter.headers["Nats-Msg-Id"] == event.id
            flag.touch()
            again = trigger.Trigger(kind="redrive", id=ids.uuid7())
            await trigger.send(m.client, "shaky", letter.data, again)
            (done,) = await m.wait("automation.run.succeeded")
            assert done.causation_id == event.id
            await deadletter.remove(m.client, letter.seq)
            assert await m.letters() == []

    run(body())


def test_not_retryable_failure_is_dead_at_once(nats_server: EmbeddedServer) -> None:
    """A command that is not there is not tried again."""
    profiles = f"""
profiles:
  gone:
    on: service.start.failed
    {FAST_RETRY}
    actions: [command: [no-such-command-anywhere]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            await m.publish()
            (dead,) = await m.wait("automation.run.deadlettered")
            assert dead.attempt == 1
            assert "no-such-command-anywhere" in dead.payload["error"]

    run(body())


def test_same_event_twice_is_one_run(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """An event that is stored twice, outside the broker's duplicate window, runs once."""
    out = tmp_path / "out"
    profiles = f"""
profiles:
  count:
    on: service.start.failed
    actions: [command: [sh, -c, "echo x >> {out}"]]
  marker:
    on: editor.save
    actions: [command: ["true"]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            event = await m.publish()
            await m.wait("automation.run.succeeded")
            js = m.client.jetstream()
            stored = await js.get_last_msg("EVENTS", f"evt.{m.settings.host}.service.start.failed")
            await js.publish(stored.subject or "", stored.data or b"")
            await m.publish("editor.save", payload={"file": "x"})
            await m.wait("automation.run.succeeded", 2)

            await m.decided("count", 3)
            outcomes = [r.decision.outcome for r in await m.records("count")]
            assert outcomes == ["duplicate", "fire"]
            assert {r.decision.event_id for r in await m.records("count")} == {event.id}
            assert out.read_text() == "x\n"

    run(body())


def test_debounce_runs_once_a_burst(nats_server: EmbeddedServer) -> None:
    """Ten failures at once in one workspace are one run, and another workspace has its own."""
    profiles = """
profiles:
  calm:
    on: service.start.failed
    debounce: 30s
    actions: [command: ["true"]]
""".replace("debounce: 30s", "debounce: {window: 30s}")

    async def body() -> None:
        async with mesh(profiles) as m:
            for _ in range(10):
                await m.publish()
            await m.publish(workspace="play")
            await m.wait("automation.run.succeeded", 2)

            await m.decided("calm", 11)
            outcomes = Counter(r.decision.outcome for r in await m.records())
            assert outcomes == {"fire": 2, "debounced": 9}
            assert len(await m.runs()) == 2

    run(body())


def test_undecodable_message_is_dead_lettered(nats_server: EmbeddedServer) -> None:
    """Bytes that are no event go to the DLQ as they are, at once, and block nothing."""
    profiles = """
profiles:
  any:
    on: service.start.failed
    actions: [command: ["true"]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            name = f"evt.{m.settings.host}.service.start.failed"
            strange = [b"\xff not json \x00", b'{"topic": "service.start.failed", "x": "\x80"}']
            for data in strange:
                await m.client.jetstream().publish(name, data)
            await m.publish()
            await m.wait("automation.run.succeeded")
            letters = await m.letters()
            assert [letter.data for letter in letters] == strange
            assert all(letter.reason.startswith("undecodable") for letter in letters)

    run(body())


def test_seed_shape_from_a_foreign_client(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """The seed's bare envelope, published with plain nats-py, is handled like any other."""
    out = tmp_path / "out"
    profiles = f"""
profiles:
  note:
    on: python.test.failed
    run_on: any
    actions: [command: [sh, -c, 'echo "$1" >> {out}', sh, "${{{{ event.payload.nodeid }}}}"]]
"""
    bare = {
        "topic": "python.test.failed",
        "ts_utc": "2026-11-23T09:12:00Z",
        "source": "ci",
        "component": "pytest",
        "severity": "error",
        "correlation_id": "build-7",
        "host": "builder",
        "session_id": "s",
        "workspace": "w",
        "payload": {"nodeid": "tests/test_a.py::test_b", "phase": "call", "message": "no"},
    }

    async def body() -> None:
        async with mesh(profiles) as m:
            await m.client.publish("evt.builder.python.test.failed", json.dumps(bare).encode())
            (done,) = await m.wait("automation.run.succeeded")
            assert done.correlation_id == "build-7"
            assert out.read_text() == "tests/test_a.py::test_b\n"

    run(body())


def test_resumes_at_the_first_unfinished_step(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A second attempt does not repeat the steps that are done."""
    out, flag = tmp_path / "out", tmp_path / "flag"
    profiles = f"""
profiles:
  two:
    on: service.start.failed
    {FAST_RETRY}
    actions:
      - {{id: first, command: [sh, -c, "echo first >> {out}; echo made"]}}
      - id: second
        command: [sh, -c, 'test -e {flag} || {{ touch {flag}; exit 7; }}; echo "$1" >> {out}', sh,
                  "${{{{ steps.first.stdout }}}}"]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            await m.publish()
            (done,) = await m.wait("automation.run.succeeded")
            assert done.attempt == 2
            assert out.read_text().split() == ["first", "made"]

    run(body())


def test_broken_edit_leaves_the_old_profile_in_force(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """A typo in the file is an event with line and hint; the profile of before still runs; a
    mended file is taken up without a restart."""
    good = """
profiles:
  note:
    on: service.start.failed
    actions: [command: ["true"]]
"""

    async def body() -> None:
        async with mesh(good) as m:
            write_profiles(good.replace("actions:", "debunce: {window: 1s}\n    actions:"))
            (rejected,) = await m.wait("mesh.config.rejected")
            assert rejected.payload["line"] == 5
            assert "did you mean 'debounce'" in rejected.payload["error"]
            await m.publish()
            await m.wait("automation.run.succeeded")
            before = m.server.in_force("note").hash
            write_profiles(good.replace('["true"]', '["false"]'))
            await eventually(lambda: m.server.in_force("note").hash != before)

    run(body())


class Mute(Positions):
    """Stands in for a broker that goes while an edit is taken up: it does not answer at first."""

    left: ClassVar[int]

    async def cursor(self, consumer: str, *, after: int = 0) -> tuple[Cursor | None, int]:
        self._away()
        return await super().cursor(consumer, after=after)

    async def forget(self, consumer: str) -> None:
        self._away()
        await super().forget(consumer)

    def _away(self) -> None:
        Mute.left -= 1
        if Mute.left >= 0:
            raise NatsTimeout


def test_an_edit_while_the_broker_is_away(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is in force once the broker is back: what is gone is forgotten, and what follows in
    the file is as it says."""
    text = """
profiles:
  first: {on: [a.b], state: enabled, actions: [command: ["true"]]}
  next: {on: [a.b], actions: [command: ["true"]]}
"""
    gone = '  gone: {on: [a.b], actions: [command: ["true"]]}\n'
    edited = text.replace("enabled", "disabled").replace("next: {on: [a.b]", "next: {on: [a.c]")

    async def body() -> None:
        async with mesh(text + gone) as m:
            await m.publish("a.b")
            await m.wait("automation.run.succeeded", 3)
            for name in ("first", "gone"):
                await m.decided(name, 1)
            before = m.server.in_force("next").hash
            first, out = (
                consumer_name(m.server.in_force(name), m.settings.host)
                for name in ("first", "gone")
            )
            Mute.left = 2
            monkeypatch.setattr(in_force, "Positions", Mute)
            monkeypatch.setattr(in_force, "RETRY", 0.05)
            write_profiles(edited)
            await eventually(lambda: m.server.in_force("next").hash != before)
            assert m.server.in_force("first").state == "disabled"
            assert (await Positions(m.client).cursor(out))[0] is None
            noted = await versions.newest(m.client, first)
            assert noted is not None
            assert noted.state == "disabled"

    run(body())


def test_disable_and_enable(nats_server: EmbeddedServer) -> None:
    """What comes while a profile is disabled waits; when it is enabled in its file, and nobody says
    what to do with it, it is decided as in shadow and runs nothing."""
    profiles = """
profiles:
  note:
    on: service.start.failed
    actions: [command: ["true"]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            overrides.write("note", "disabled")
            await eventually(lambda: m.server.in_force("note").state == "disabled")
            missed = await m.publish()
            overrides.write("note", None)
            await eventually(lambda: m.server.in_force("note").state == "enabled")
            await m.server.owned()
            event = await m.publish()
            (done,) = await m.wait("automation.run.succeeded")
            assert done.causation_id == event.id
            found = [(r.decision.event_id, r.decision.clause) for r in await m.records("note")]
            assert found == [(missed.id, "shadow"), (event.id, "on")]
            states = [v.state async for v in versions.history(m.client)]
            assert states == ["enabled", "disabled", "shadow", "enabled"]

    run(body())


def test_loop_ends_at_the_hop_limit(nats_server: EmbeddedServer) -> None:
    """A profile that causes its own topic stops by itself, and the stop is on record."""
    profiles = """
profiles:
  echo:
    on: my.loop
    hops: 3
    actions: [emit: {topic: my.loop}]
"""

    async def body() -> None:
        async with mesh(profiles, settings=Settings()) as m:
            await m.publish("my.loop", payload={})
            found = await m.wait("my.loop", 5)
            await m.decided("echo", 5)
            assert [event.hops for event in found] == [0, 1, 2, 3, 4]

    run(body())


def test_trigger_for_an_unknown_profile_is_dead_lettered(nats_server: EmbeddedServer) -> None:
    """A trigger that no profile answers to is kept in the DLQ."""

    async def body() -> None:
        async with mesh("profiles: {}") as m:
            await trigger.send(m.client, "nobody", b"{}", trigger.Trigger(kind="manual", id="t"))
            letter = (await eventually(m.letters))[0]
            assert (letter.profile, letter.data) == ("nobody", b"{}")

    run(body())


def test_secrets_stay_in_the_step(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """What a step prints, emits and fails with reaches neither ledger, events nor dead letters with
    its secret; the dead letter of a foreign event loses it, too."""
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    profiles = f"""
profiles:
  leaky:
    on: service.start.failed
    {FAST_RETRY}
    actions:
      - command: [echo, {token}]
      - emit: {{topic: a.leak, payload: {{said: "a {token} b"}}}}
      - id: last
        command: [sh, -c, "echo password={token} >&2; exit 1"]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            await m.publish(payload={"unit": token})
            await m.wait("automation.run.deadlettered")
            for stream in ("EVENTS", "DLQ", "KV_opsmesh-runs"):
                async for msg in scan(m.client, stream, subjects=[">"]):
                    # a foreign one: the stream holds what its client published
                    if msg.subject != f"evt.{m.settings.host}.service.start.failed":
                        assert token.encode() not in msg.data, msg.subject
                        assert token not in str(msg.headers), msg.subject
            (leak,) = await m.events("a.leak")
            assert "[redacted:github_token:" in leak.payload["said"]
            (done,) = await m.runs()
            assert done.steps[0].output["stdout"].startswith("[redacted:github_token:")
            assert "[redacted:" in (done.steps[2].error or "")

    run(body())
