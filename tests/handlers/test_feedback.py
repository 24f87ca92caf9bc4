"""Feedback: judgements in the stream, rates, and budgets that are told of once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client
from tests.conftest import mesh_client, run

from opsmesh.handlers.feedback import feedback
from opsmesh.handlers.feedback.feedback import Judgement, Recorded, Verdict
from opsmesh.handlers.live import firing
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile, from_source
from opsmesh.handlers.profiles.spec import FalsePositivesSpec
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import redaction
from opsmesh.router.publish import Publisher
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event, complete, decode, subject
from opsmesh.schemas.payloads import TOPICS
from opsmesh.schemas.registry import Registry

HOST = "dev"
TOPIC = "service.start.failed"
DEFAULTS = {
    **{"host": HOST, "session_id": "1", "workspace": "/src", "source": "test"},
    **{"component": "systemd", "severity": "error"},
}


def note(budget: str = "20%", of_last: int = 10, then: str = "tell", **more: Any) -> Profile:
    """A profile with a budget."""
    limits = {"budget": budget, "of_last": of_last, "then": then}
    actions = [{"command": ["true"]}]
    return from_source("note", {"on": TOPIC, "false_positives": limits, "actions": actions, **more})


class Story:
    """Events and runs of one profile, as the mesh makes them."""

    def __init__(self, client: Client, profile: Profile) -> None:
        self.client = client
        self.profile = profile
        self.runs: list[Run] = []

    async def happen(self, count: int = 1, **payload: Any) -> list[Run]:
        """So many events are stored, and the profile runs for each."""
        made = []
        for _ in range(count):
            raw = {"topic": TOPIC, "payload": {"unit": "a.service", **payload}, "hops": 2}
            data, event = complete(raw, defaults=DEFAULTS, now_us=times.now_us())
            where = subject(event.host, event.topic)
            ack = await Publisher(self.client).publish(where, data, msg_id=event.id)
            new = firing.new_run(
                self.profile,
                event,
                consumer="profile-note",
                host=HOST,
                seq=ack.seq,
                stored_us=times.now_us(),
            )
            assert await Ledger(self.client).create(new) is not None
            made.append(new)
        self.runs += made
        return made

    async def judge(self, of: Run, verdict: Verdict = "false_positive", **more: Any) -> Recorded:
        """Somebody says so."""
        return await feedback.record(
            self.client,
            of,
            verdict,
            host=HOST,
            redactor=redaction.load(Settings()),
            profile=self.profile,
            **more,
        )

    async def events(self, topic: str) -> list[Event]:
        """Every stored event of the topic."""
        messages = scan(self.client, EVENTS, subjects=[f"evt.*.{topic}"])
        return [decode(msg.data) async for msg in messages]


def test_judgement_is_in_the_story_of_its_run(nats_server: EmbeddedServer) -> None:
    """The event names run and trigger, is caused by the run's event and fits its topic."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, note())
            [one] = await story.happen()
            await story.judge(one, by="me", note="stopped by hand")
            [said] = await story.events(feedback.RECORDED)
            assert (said.correlation_id, said.causation_id) == (one.correlation_id, one.event_id)
            assert (said.run_id, said.workspace, said.hops) == (one.run_id, "/src", 3)
            assert said.payload == {
                **{"profile": "note", "verdict": "false_positive", "run": one.run_id},
                **{"trigger_topic": TOPIC, "trigger_id": one.event_id},
                **{"by": "me", "comment": "stopped by hand"},
            }
            Registry(TOPICS).check(said.topic, said.payload)

    run(body())


def test_judgement_outlives_its_event(nats_server: EmbeddedServer) -> None:
    """A run whose event is no longer in the stream can be judged in the same story."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, note())
            [one] = await story.happen()
            await client.jetstream().purge_stream(EVENTS)
            await story.judge(one, "useful")
            [said] = await story.events(feedback.RECORDED)
            assert (said.correlation_id, said.causation_id) == (one.correlation_id, one.event_id)

    run(body())


def test_newest_judgement_counts(nats_server: EmbeddedServer) -> None:
    """Judging a run again replaces what was said, and the rate follows."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, note(budget="50%"))
            one, _ = await story.happen(2)
            first = await story.judge(one)
            second = await story.judge(one, "useful")
            assert first.rate is not None
            assert first.rate.share == 0.5
            assert second.rate is not None
            assert second.rate.share == 0
            assert feedback.newest(await feedback.judgements(client)) == {one.run_id: "useful"}

    run(body())


def test_what_is_no_judgement_is_passed_over(nats_server: EmbeddedServer) -> None:
    """An event of the topic that somebody emitted without a known verdict is ignored."""

    async def body() -> None:
        async with mesh_client() as client:
            raw = {"topic": feedback.RECORDED, "payload": {"profile": "note", "verdict": "hm"}}
            data, event = complete(raw, defaults=DEFAULTS, now_us=times.now_us())
            where = subject(event.host, event.topic)
            await Publisher(client).publish(where, data, msg_id=event.id)
            assert await feedback.judgements(client) == []

    run(body())


def test_over_budget_is_told_once(nats_server: EmbeddedServer) -> None:
    """All of the budget may be used; beyond it one event says so, however often runs are judged."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, note())
            runs = await story.happen(10)
            within = [await story.judge(one) for one in runs[:2]]
            assert [said.over for said in within] == [False, False]
            beyond = [await story.judge(one) for one in runs[2:5]]
            assert [said.over for said in beyond] == [True] * 3
            assert [said.told is not None for said in beyond] == [True, False, False]
            [told] = await story.events(feedback.OVER_BUDGET)
            assert told.severity == "warn"
            assert told.causation_id == beyond[0].event.id
            assert told.correlation_id == runs[2].correlation_id
            assert told.payload == {
                **{"profile": "note", "profile_hash": story.profile.hash, "then": "tell"},
                **{"rate": 0.3, "budget": 0.2, "runs": 10, "false_positives": 3},
            }
            Registry(TOPICS).check(told.topic, told.payload)
            assert overrides.read() == {}

    run(body())


def test_told_again_after_it_was_under(nats_server: EmbeddedServer) -> None:
    """When good runs, which nobody judged, bring it under, going over is told a second time."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, note(of_last=4))
            first = await story.happen(2)
            await story.judge(first[0])
            await story.happen(4)
            late = await story.happen()
            assert (await story.judge(late[0])).told is not None
            assert len(await story.events(feedback.OVER_BUDGET)) == 2

    run(body())


def test_told_again_for_a_new_text(nats_server: EmbeddedServer) -> None:
    """A profile whose text has changed is told of anew."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, note())
            one, other = await story.happen(2)
            await story.judge(one)
            story.profile = note(where="event.severity == 'error'")
            assert (await story.judge(other)).told is not None
            assert (await story.judge(other)).told is None

    run(body())


def test_judged_at_once_is_told_once(nats_server: EmbeddedServer) -> None:
    """Of several judgements at the same time one tells."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, note())
            runs = await story.happen(6)
            said = await asyncio.gather(*(story.judge(one) for one in runs))
            assert sum(one.told is not None for one in said) == 1
            assert len(await story.events(feedback.OVER_BUDGET)) == 1

    run(body())


def test_over_budget_shadows(nats_server: EmbeddedServer) -> None:
    """With `then: shadow` the profile goes to shadow; who enables it again is not overruled."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, note(then="shadow"))
            one, other, third = await story.happen(3)
            assert (await story.judge(one)).shadowed
            assert overrides.read() == {"note": "shadow"}
            overrides.write("note", None)
            assert not (await story.judge(other)).shadowed
            assert overrides.read() == {}
            overrides.write("note", "disabled")
            story.profile = note(then="shadow", where="true")
            said = await story.judge(third)
            assert said.told is not None
            assert not said.shadowed
            assert overrides.read() == {"note": "disabled"}

    run(body())


def test_without_a_budget_nothing_is_held(nats_server: EmbeddedServer) -> None:
    """A profile without a budget is judged, and never over it."""

    async def body() -> None:
        async with mesh_client() as client:
            story = Story(client, from_source("note", {"on": TOPIC, "actions": [{"emit": "b.c"}]}))
            [one] = await story.happen()
            said = await story.judge(one)
            assert (said.rate, said.over) == (None, False)

    run(body())


def made(count: int, **facts: Any) -> list[Run]:
    """Runs that began a second after each other, the last first."""
    common: dict[str, Any] = {
        **{"profile": "note", "profile_hash": "h", "topic": TOPIC, "correlation_id": "c"},
        **{"host": HOST, "updated_us": 0, **facts},
    }
    runs = [
        Run(
            run_id=f"r{n}",
            event_id=f"e{n}",
            stream_seq=n + 1,
            created_us=n * 1_000_000,
            **common,
        )
        for n in range(count)
    ]
    return runs[::-1]


def test_what_counts() -> None:
    """Runs that were asked for by hand or skipped do not count; the rest in the order of time."""
    by_hand = made(1, trigger=Trigger(kind="manual", id="t").kind)
    runs = feedback.counted([*made(3), *by_hand, *made(1, state="skipped")])
    assert [one.run_id for one in runs] == ["r0", "r1", "r2"]
    verdicts: dict[str, Verdict] = {"r0": "false_positive", "r2": "useful"}
    assert feedback.rate(runs, verdicts).share == 1 / 3
    assert feedback.rate(runs, verdicts, last=2).false_positives == 0
    assert feedback.rate([], verdicts).share == 0


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([], True),
        ([("r9", "false_positive", 20)], True),
        ([("r9", "useful", 20), ("r9", "false_positive", 21)], False),
        ([("r9", "useful", 20), ("r8", "false_positive", 20)], True),
    ],
)
def test_over_since(moments: list[tuple[str, Verdict, int]], expected: bool) -> None:
    """Whether it was under in between is seen from what was said when, moment by moment."""
    spec = FalsePositivesSpec.model_validate({"budget": "5%", "of_last": 10})
    first = [("r9", "false_positive", 12), *moments]
    judged = [
        Judgement(run=name, profile="note", verdict=verdict, at_us=at * 1_000_000)
        for name, verdict, at in first
    ]
    runs = feedback.counted(made(10))
    assert feedback.over_since(spec, runs, judged, 15_000_000) is expected
