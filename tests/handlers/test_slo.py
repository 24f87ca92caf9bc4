"""Service-level objectives: what is computed, from what, and what a miss does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from tests.conftest import eventually, restart, run
from tests.handlers.mesh import Mesh, mesh

from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.slo import keeper
from opsmesh.handlers.slo.book import Book, described
from opsmesh.handlers.slo.facts import Facts
from opsmesh.handlers.slo.objectives import Fact, Objective, Policy, nearest_rank, standing
from opsmesh.handlers.slo.spec import SloSpec
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas.envelope import Event, encode, subject

HOUR = 3600 * 1_000_000
NOW = 1_000 * HOUR
SUCCESS = Objective(name="success", kind="success", target=0.9)


def policy(*objectives: Objective, **more: Any) -> Policy:
    return Policy(**{"objectives": objectives, "window_us": 24 * HOUR, "min_runs": 10, **more})


def fact(n: int, *, ago_us: int = 1, good: bool | None = True, **more: Any) -> Fact:
    return Fact(run=f"r{n}", profile="p", host="h", at_us=NOW - ago_us, good=good, **more)


def of(objective: Objective, facts: list[Fact], **more: Any) -> Any:
    return standing(objective, facts, policy=policy(objective, **more), now_us=NOW)


def mixed(good: int, bad: int, **more: Any) -> list[Fact]:
    return [fact(n, good=n >= bad, **more) for n in range(good + bad)]


@pytest.mark.parametrize(
    ("good", "bad", "verdict", "left"),
    [
        (9, 0, "too_few", 1.0),
        (20, 0, "ok", 1.0),
        (19, 1, "ok", 0.5),
        (18, 2, "ok", 0.0),  # the budget is spent, and not overdrawn
        (17, 3, "breached", -0.5),
    ],
)
def test_error_budget(good: int, bad: int, verdict: str, left: float) -> None:
    """Nine of ten have to be good: a tenth may be bad, and what is left of that is told."""
    found = of(SUCCESS, mixed(good, bad, ago_us=12 * HOUR))
    assert (found.verdict, found.runs, found.bad) == (verdict, good + bad, bad)
    assert found.left == pytest.approx(left)


def test_what_lies_outside_the_window_does_not_count() -> None:
    """Neither what is older, nor what comes later than the moment that is asked for."""
    facts = [*mixed(10, 0), fact(90, ago_us=25 * HOUR, good=False), fact(91, ago_us=-1, good=False)]
    assert (of(SUCCESS, facts).runs, of(SUCCESS, facts).bad) == (10, 0)


def test_burning_is_told_before_the_budget_is_spent() -> None:
    """Much of the budget within an hour that still goes on is burning; the same long ago is not."""
    strict = Objective(name="success", kind="success", target=0.99)
    before = [fact(n, ago_us=20 * HOUR) for n in range(2000)]
    burst = [fact(9000 + n, ago_us=HOUR // 60, good=n >= 5) for n in range(20)]
    assert of(strict, [*before, *burst]).verdict == "burning"
    over = [msgspec.structs.replace(one, at_us=one.at_us - 10 * HOUR) for one in burst]
    assert of(strict, [*before, *over]).verdict == "ok"


def test_latency_is_of_runs_that_have_begun() -> None:
    """A run that waited longer than the limit is bad, however it ended; the value is one that
    there was."""
    objective = Objective(name="latency_p95", kind="latency", target=0.95, within_us=500_000)
    waits = [1_000 * n for n in range(1, 100)] + [2_000_000]
    facts = [fact(n, waited_us=wait, good=None) for n, wait in enumerate(waits)]
    found = of(objective, [*facts, fact(500)])
    assert (found.runs, found.bad, found.verdict, found.value_us) == (100, 1, "ok", 95_000)


def test_false_positives_are_of_runs_that_ended() -> None:
    """A run that nobody judged counts as fine."""
    objective = Objective(name="false_positives", kind="false_positives", target=0.95)
    facts = [fact(n, false_positive=n < 2) for n in range(20)]
    assert of(objective, facts).verdict == "breached"


def test_no_budget_at_all() -> None:
    """With 100 % wanted one bad run is a breach, and the figures stay JSON."""
    always = Objective(name="success", kind="success", target=1.0)
    found = of(always, mixed(19, 1))
    assert found.verdict == "breached"
    assert json.loads(json.dumps(described(found), allow_nan=False))["budget_left"] is None
    assert of(always, mixed(20, 0)).verdict == "ok"


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 5), (0.95, 10), (0.99, 10), (0.1, 1), (0.11, 2), (1.0, 10)]
)
def test_nearest_rank(share: float, value: int) -> None:
    """A percentile is one of the values."""
    assert nearest_rank(range(1, 11), share) == value


def told(topic: str, run_id: str, payload: dict[str, Any], **more: Any) -> Event:
    facts: dict[str, Any] = {
        **{"ts_utc": "2026-11-23T09:12:00Z", "source": "opsmesh", "component": "p"},
        **{"severity": "info", "correlation_id": "c", "host": "h", "session_id": ""},
        **{"workspace": "", "id": f"{topic}{run_id}{len(payload)}"},
    }
    payload = {"profile": "p", **payload}
    return Event(topic=topic, run_id=run_id, payload=payload, **{**facts, **more})


ENDED = "automation.run.succeeded"
JUDGED = "automation.feedback.recorded"


def test_facts_are_the_same_in_any_order() -> None:
    """A retry's first attempt tells how long it waited, its last how it ended; read twice and
    backwards they are one run."""
    events = [
        (told("automation.run.failed", "r", {"error": "e", "waited_ms": 12.5}), 1),
        (told(ENDED, "r", {"attempts": 2}, duration_ms=3.0), 2),
        (told(JUDGED, "", {"run": "r", "verdict": "false_positive"}), 3),
        (told("automation.run.deadlettered", "dead", {"error": "e"}), 4),
    ]
    forward, backward = Facts(), Facts()
    for event, at in events:
        forward.add(event, at)
    for event, at in [*reversed(events), *events]:
        backward.add(event, at)
    assert sorted(forward.of("p"), key=str) == sorted(backward.of("p"), key=str)
    first, dead = sorted(forward.of("p"), key=lambda one: one.run, reverse=True)
    assert first == Fact(
        run="r", profile="p", host="h", at_us=2, waited_us=12_500, good=True, took_us=3_000,
        false_positive=True,
    )  # fmt: skip
    assert (dead.good, dead.waited_us) == (False, None)


@pytest.mark.parametrize(
    "event",
    [
        told(ENDED, "by-hand", {"trigger": "manual"}),
        told("automation.approval.requested", "r", {}),
        told(ENDED, "", {}),
        told(ENDED, "r", {"profile": 5}),
        told(JUDGED, "", {"verdict": "useful"}),
    ],
)
def test_what_says_nothing_of_a_decided_run(event: Event) -> None:
    """Runs that a person began, and what is none of a run, count for nothing."""
    assert not Facts().add(event, 1)


def test_the_newest_judgement_counts() -> None:
    """Whoever judges a run again takes back what was said."""
    found = Facts()
    found.add(told(ENDED, "r", {}), 1)
    found.add(told(JUDGED, "", {"run": "r", "verdict": "useful"}), 3)
    found.add(told(JUDGED, "", {"run": "r", "verdict": "false_positive"}), 2)
    assert not next(found.of("p")).false_positive


@pytest.mark.parametrize("ms", [1e308, -1.0])
def test_a_time_that_is_none(ms: float) -> None:
    """Anybody may emit such an event: its run counts, and the time is not known."""
    found = Facts()
    assert found.add(told(ENDED, "r", {"waited_ms": ms}, duration_ms=ms), 1)
    [one] = found.of("p")
    assert (one.good, one.waited_us, one.took_us) == (True, None, None)


def test_after_it_was_held_back_runs_count_anew() -> None:
    """What led to a pause is no reason for the next one."""
    book, wanted = Book(), policy(SUCCESS)
    for n in range(20):
        book.add(told("automation.run.deadlettered", f"r{n}", {"error": "e"}), NOW - HOUR)
    [before] = book.standings("p", wanted, host="h", of="h", now_us=NOW)
    paused = {"objective": "success", "did": "disabled"}
    book.add(told("automation.slo.breached", "", paused), NOW - HOUR // 2)
    [after] = book.standings("p", wanted, host="h", of="h", now_us=NOW)
    assert (before.verdict, after.verdict, after.runs) == ("breached", "too_few", 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "no objective"),
        ({"window": "7d"}, "no objective"),
        ({"success": 99}, "write it in percent"),
        ({"success": "101%"}, "write it in percent"),
        ({"latency_p99": "0s"}, "greater than 0"),
        ({"success": "99%", "window": "5s"}, "greater than or equal to 60"),
        ({"success": "99%", "on_breach": "stop"}, "'notify', 'pause' or 'shadow'"),
        ({"latency_p90": "1s"}, "Extra inputs"),
    ],
)
def test_what_a_profile_may_not_want(wrong: dict[str, Any], said: str) -> None:
    """What is no objective is refused."""
    with pytest.raises(ValueError, match=said):
        SloSpec.model_validate(wrong)


PROFILES = """
version: 1
profiles:
  shaky:
    on: [a.b]
    retry: {{attempts: 1}}
    slo: {{success: 90%, latency_p99: 1m, min_runs: 3, on_breach: {then}}}
    actions: [command: [sh, -c, "exit $(cat {file})"]]
"""


async def fire(m: Mesh, count: int, topic: str) -> None:
    """So many events, and the ends of their runs."""
    before = len(await m.events(topic))
    for _ in range(count):
        await m.publish("a.b")
    await m.wait(topic, before + count)


@pytest.mark.parametrize(("then", "state"), [("pause", "disabled"), ("shadow", "shadow")])
def test_a_breach_holds_the_profile_back(
    nats_server: object, tmp_path: Any, then: str, state: str
) -> None:
    """It is told once, with its figures, and the profile acts no more; a handler that starts later
    does not tell it again."""
    file = tmp_path / "code"
    file.write_text("1")

    async def body() -> None:
        async with mesh(PROFILES.format(then=then, file=file)) as m:
            await fire(m, 3, "automation.run.deadlettered")
            [event] = await m.wait("automation.slo.breached")
            assert event.payload["objective"] == "success"
            assert (event.payload["runs"], event.payload["bad"]) == (3, 3)
            assert (event.payload["then"], event.payload["did"]) == (then, state)
            assert overrides.read()["shaky"] == state
        overrides.write("shaky", "enabled")
        file.write_text("0")
        async with mesh(PROFILES.format(then=then, file=file)) as m:
            await fire(m, 3, "automation.run.succeeded")
            assert overrides.read()["shaky"] == "enabled"
            assert len(await m.events("automation.slo.>")) == 1

    run(body())


def test_a_part_of_the_past_is_no_breach(
    nats_server: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """A handler that starts reads all of the past before it judges: who enabled a profile again is
    not overruled by what came before that."""
    monkeypatch.setattr(keeper, "SETTLE_S", 0)  # looks while it reads, as with a longer past
    text = PROFILES.format(then="pause", file=tmp_path)

    async def body() -> None:
        async with mesh("profiles: {}") as m:
            js, host = m.client.jetstream(), m.settings.host
            did = {"objective": "success", "did": "disabled"}
            paused = told("automation.slo.breached", "", did)
            dead = "automation.run.deadlettered"
            bad = [told(dead, f"r{n}", {"error": "e"}) for n in range(3000)]
            acks = []
            for one in (*bad, paused):
                one = msgspec.structs.replace(one, host=host)
                one.payload["profile"] = "shaky"
                acks.append(await js.publish_async(subject(host, one.topic), encode(one)))
            await asyncio.gather(*acks)
        async with mesh(text) as m:
            await fire_one(m)
            assert "shaky" not in overrides.read()
            assert len(await m.events("automation.slo.>")) == 1

    run(body())


async def fire_one(m: Mesh) -> None:
    """A run of now, and that the keeper has read of it."""
    event = await m.publish("a.b")

    async def seen() -> bool:
        book = m.server._keeper._book
        return any(fact.at_us >= event.ts_us for fact in book.facts.of("shaky"))

    await eventually(seen)


def test_a_breach_is_told_and_its_end_too(nats_server: object, tmp_path: Any) -> None:
    """With `notify` the profile acts on, and once it is good enough again that is told."""
    file = tmp_path / "code"
    file.write_text("1")

    async def body() -> None:
        async with mesh(PROFILES.format(then="notify", file=file)) as m:
            await fire(m, 3, "automation.run.deadlettered")
            await m.wait("automation.slo.breached")
            assert "shaky" not in overrides.read()
            file.write_text("0")
            await fire(m, 40, "automation.run.succeeded")
            [recovered] = await m.wait("automation.slo.recovered")
            assert recovered.payload["good"] >= 0.9

    run(body())


def test_a_broker_that_was_away(nats_server: EmbeddedServer, tmp_path: Any) -> None:
    """What happens after the broker has come back is looked at like what happened before."""
    file = tmp_path / "code"
    file.write_text("1")

    async def body() -> None:
        async with mesh(PROFILES.format(then="notify", file=file)) as m:
            await fire(m, 1, "automation.run.deadlettered")
            await restart(m.client, nats_server)
            await fire(m, 2, "automation.run.deadlettered")
            await m.wait("automation.slo.breached")

    run(body())


def test_waiting_is_measured_from_what_fired(nats_server: object) -> None:
    """From the event's storing to the first step; of a run that a window fired, from its end."""
    profiles = """
profiles:
  at_once: {on: [a.b], actions: [command: [true]]}
  later: {on: [a.b], debounce: 300ms, actions: [command: [true]]}
""".replace("debounce: 300ms", "debounce: {window: 300ms, edge: trailing}").replace(
        "[true]", "['true']"
    )

    async def body() -> None:
        async with mesh(profiles) as m:
            await m.publish("a.b")
            found = await m.wait("automation.run.succeeded", 2)
            waited = {one.payload["profile"]: one.payload["waited_ms"] for one in found}
            assert set(waited) == {"at_once", "later"}
            fired_after_us = {"at_once": 0, "later": 300_000}
            assert waited == {
                one.profile: round(
                    (one.steps[0].started_us - one.stored_us - fired_after_us[one.profile]) / 1e3, 3
                )
                for one in await m.runs()
            }

    run(body())
