"""The action `a2a`, against an agent made with the A2A SDK's own server in a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError
from tests.conftest import eventually, limited, run, until
from tests.handlers.a2a_peers import Peer, configure, peer
from tests.handlers.conftest import EVENT

from opsmesh.handlers.actions.a2a import A2a
from opsmesh.handlers.actions.contract import CANCELLED, Action, Reply, StepContext, StepResult
from opsmesh.handlers.errors import Ask, SecretMissing
from opsmesh.schemas.envelope import Event, decode, encode
from opsmesh.schemas.registry import load_registry

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("a2a")


Context = Callable[..., StepContext]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """One agent for all tests of this module."""
    with peer(tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest.fixture(autouse=True)
def _settings(home: Path, agent: Peer) -> None:
    (agent.folder / "heard").unlink(missing_ok=True)
    configure(scripted={"url": agent.address})


@dataclass
class Kept:
    """Where a step's state is kept, as the ledger keeps it."""

    states: list[dict[str, Any]] = field(default_factory=list)

    async def save(self, state: Mapping[str, Any]) -> None:
        self.states.append(json.loads(json.dumps(state)))

    async def task(self) -> None:
        """Return once a task's id is kept."""
        await eventually(lambda: self.states and "task_id" in self.states[-1])


def do(value: Any, ctx: StepContext) -> StepResult:
    result = run(A2a.parse(value).run(ctx))
    assert isinstance(result, StepResult)
    return result


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"agent": "scripted", "message": text, "poll": "50ms", "timeout": "2m", **more}


def canceled(agent: Peer) -> list[dict[str, Any]]:
    """The cancellations that it has heard, once there is one: nobody waits long for a busy agent
    to say that it has."""
    found: list[dict[str, Any]] = until(lambda: agent.heard("cancel"))
    return found


def test_is_an_action() -> None:
    """It keeps the contract of actions, and goes on after an interruption."""
    action = A2a.parse("scripted")
    assert isinstance(action, Action)
    assert action.on_unknown == "resume"


@pytest.mark.parametrize("how", [{}, {"stream": True}, {"return_immediately": False}])
def test_completed(context: Context, published: list[Event], how: dict[str, Any]) -> None:
    """What the agent made is the step's output, and an event in the story of the one it was sent,
    whether it is looked at, listened to, or waited for."""
    result = do(ask("say it is done", **how), context())
    assert result.ok, result.error
    assert result.output["text"] == "it is done"
    assert result.output["data"] == {
        "service": "backup",
        "count": 3,
        "share": 0.5,
        "big": str(2**60),
    }
    assert isinstance(result.output["data"]["count"], int)
    assert result.output["status_message"] == "well done"
    [event] = published
    assert (event.topic, event.source, event.component) == (
        "a2a.task.completed",
        "a2a:Scripted Agent",
        "scripted",
    )
    assert (event.correlation_id, event.causation_id, event.hops) == ("story", EVENT.id, 1)
    assert event.payload["task_id"] == result.output["task_id"]
    assert decode(encode(event)) == event
    assert load_registry().check(event.topic, event.payload) is not None


def test_message(context: Context, agent: Peer) -> None:
    """The agent gets the text, and the whole envelope without its secrets as data, in the
    conversation that the event's story is."""
    token = "ghp_" + "a1B2" * 9
    event = msgspec.structs.replace(
        EVENT, seq=7, payload={**EVENT.payload, "env": f"TOKEN={token}", "id": 2**60}
    )
    do(ask("say hello to ${{ event.payload.unit }}", skill="do"), context(event=event))
    [heard] = agent.heard()
    message = heard["message"]
    assert message["contextId"] == "story"
    assert message["parts"][0]["text"] == "say hello to backup.service"
    envelope = message["parts"][1]["data"]
    assert (envelope["id"], envelope["topic"], envelope["seq"]) == (EVENT.id, EVENT.topic, "7")
    assert envelope["payload"]["id"] == str(2**60)
    assert token not in json.dumps(message)
    assert message["metadata"]["skill"] == "do"
    assert message["extensions"] == ["urn:opsmesh:a2a:event:1"]


def test_same_message_again(context: Context, agent: Peer) -> None:
    """What one attempt sends has one id; another attempt's, and another step's, have others."""
    for ctx in (context(), context(), context(attempt=3), context(idempotency_key="run1:b")):
        do(ask("say hi"), ctx)
    first, again, attempt, other = (one["message"]["messageId"] for one in agent.heard())
    assert first == again
    assert len({first, attempt, other}) == 3


def test_data_as_an_event(context: Context, published: list[Event]) -> None:
    """With a topic the data that the agent made becomes that event, its numbers as the topic's
    type has them."""
    made = {"session": "s", "argv": ["ls"], "exit_code": 2, "duration_ms": 3}
    result = do(ask(f"drift {json.dumps(made)}", topic="agent.command.executed"), context())
    assert result.ok, result.error
    told, event = published
    assert (told.topic, event.topic) == ("a2a.task.completed", "agent.command.executed")
    assert event.payload == made
    assert [type(event.payload[name]) for name in ("exit_code", "duration_ms")] == [int, float]


def test_data_that_does_not_fit(context: Context, published: list[Event]) -> None:
    """What is no event of the topic is not published as one, and another attempt is of no use."""
    result = do(ask('drift {"unit": 3}', topic="service.start.failed"), context())
    assert (result.ok, result.retryable) == (False, False)
    assert result.error is not None
    assert "what it made is no service.start.failed" in result.error
    assert [event.topic for event in published] == ["a2a.task.completed"]


@pytest.mark.parametrize(
    ("word", "state", "retryable"),
    [("fail", "failed", True), ("reject", "rejected", False), ("canceled", "canceled", False)],
)
def test_bad_ends(
    context: Context, published: list[Event], word: str, state: str, retryable: bool
) -> None:
    """A failed task may be tried again; a rejected or canceled one may not."""
    result = do(ask(word), context())
    assert (result.ok, result.retryable) == (False, retryable)
    assert [event.topic for event in published] == [f"a2a.task.{state}"]
    assert "\x1b" not in json.dumps(result.output["status_message"], ensure_ascii=False)


def test_no_task(context: Context) -> None:
    """An agent that answers with a message has answered."""
    result = do(ask("message"), context())
    assert result.ok
    assert (result.output["task_id"], result.output["data"]) == (None, {"answer": 42})


def test_stream(context: Context) -> None:
    """Pieces of an artifact are put together as they come."""
    result = do(ask("stream 60", stream=True), context())
    assert result.output["text"].split() == [str(n) for n in range(60)]
    assert result.output["updates"] >= 60


def test_long_answers_are_cut(context: Context, published: list[Event]) -> None:
    """Of a long text the beginning is kept, of bytes their sum, and of names nothing is a path."""
    result = do(ask("long"), context())
    assert result.ok
    assert result.output["truncated"]
    [artifact] = result.output["artifacts"]
    assert [len(artifact["parts"][0]["text"]), artifact["parts"][1]["raw_bytes"]] == [16384, 1000]
    assert len(encode(published[0])) < 100_000


def test_huge_answer(context: Context) -> None:
    """An answer without measure is refused while it comes in, and the task canceled."""
    result = do(ask("huge"), context())
    assert (result.ok, result.retryable) == (False, False)
    assert result.error == "agent scripted: its answer is over 16777216 bytes"


def test_goes_on(context: Context, agent: Peer, tmp_path: Path) -> None:
    """A handler that ends after the task's id was saved leaves a task that the next one goes on
    with: nothing is sent twice."""
    done, kept = tmp_path / "done", Kept()
    action = A2a.parse(ask(f"wait {done}"))

    async def both() -> StepResult:
        first = asyncio.create_task(action.run(context(save=kept.save)))
        await kept.task()
        first.cancel()  # as at the end of a handler: not because the run is not wanted
        with pytest.raises(asyncio.CancelledError):
            await first
        done.touch()
        return await action.run(context(save=kept.save, saved=kept.states[-1]))

    result = run(both())
    assert result.ok, result.error
    assert result.output["text"] == "waited"
    assert len(agent.heard()) == 1
    assert agent.heard("cancel") == []


def test_killed_between_sending_and_saving(context: Context, agent: Peer, tmp_path: Path) -> None:
    """A task whose id was lost is found again by the message that it came of."""
    done, kept = tmp_path / "done", Kept()
    action = A2a.parse(ask(f"wait {done}"))

    async def both() -> StepResult:
        first = asyncio.create_task(action.run(context(save=kept.save)))
        await kept.task()
        first.cancel()
        done.touch()
        return await action.run(context(save=kept.save, saved=kept.states[0]))

    result = run(both())
    assert result.ok, result.error
    assert "task_id" not in kept.states[0]
    assert len(agent.heard()) == 1


def test_lost_before_it_arrived(context: Context, agent: Peer) -> None:
    """A message that never arrived is sent again, with its id."""
    kept = Kept()
    do(ask("say one"), context(save=kept.save))
    first = agent.heard()[0]["message"]["messageId"]
    event = msgspec.structs.replace(EVENT, correlation_id="another story")
    saved = {**kept.states[0], "message_id": first}
    result = do(ask("say one"), context(event=event, saved=saved))
    assert result.ok
    assert [one["message"]["messageId"] for one in agent.heard()] == [first, first]


def test_next_attempt_goes_on_with_the_task(context: Context, agent: Peer, tmp_path: Path) -> None:
    """An attempt goes on with the task of the attempt before, where that is still under way."""
    done, first, second = tmp_path / "done", Kept(), Kept()
    action = A2a.parse(ask(f"wait {done}"))

    async def both() -> StepResult:
        one = asyncio.create_task(action.run(context(attempt=1, save=first.save)))
        await first.task()
        one.cancel()
        two = asyncio.create_task(action.run(context(attempt=2, save=second.save)))
        await second.task()
        done.touch()
        return await two

    assert run(both()).ok
    assert first.states[-1]["task_id"] == second.states[-1]["task_id"]
    assert len(agent.heard()) == 1


@pytest.mark.parametrize("how", [{}, {"stream": True}])
def test_question(
    context: Context, agent: Peer, published: list[Event], how: dict[str, Any]
) -> None:
    """The agent's question becomes ours, with the plain part of its schema; the answer goes to the
    same task."""
    kept = Kept()
    action = A2a.parse(ask("ask", input_by=["me"], input_expires="1h", **how))
    with pytest.raises(Ask) as asked:
        run(action.run(context(save=kept.save)))
    question = asked.value.question
    assert question.name == "input-1"
    assert question.prompt.endswith("Which branch?")
    assert "unchecked" in question.prompt
    assert question.schema == {"type": "object", "properties": {"branch": {"type": "string"}}}
    assert (question.by, question.expires_s) == (("me",), 3600.0)
    assert [event.topic for event in published] == ["a2a.task.input_required"]
    reply = Reply(verdict="granted", answer={"branch": "main"}, by="me", comment="go")
    result = run(
        action.run(context(save=kept.save, saved=kept.states[-1], replies={"input-1": reply}))
    )
    assert result.ok, result.error
    first, second = agent.heard()
    assert first["task"] == second["task"] == second["message"]["taskId"]
    assert second["message"]["parts"] == [
        {"data": {"branch": "main"}, "mediaType": "application/json"},
        {"text": "go"},
    ]
    assert result.output["data"]["answered"][0]["data"] == {"branch": "main"}


def test_permission(context: Context, agent: Peer) -> None:
    """AUTH_REQUIRED asks for a yes, and that it was given is told on the same task."""
    kept = Kept()
    action = A2a.parse(ask("auth"))
    with pytest.raises(Ask) as asked:
        run(action.run(context(save=kept.save)))
    assert asked.value.question.schema is None
    granted = {"input-1": Reply(verdict="granted", by="me")}
    result = run(action.run(context(save=kept.save, saved=kept.states[-1], replies=granted)))
    assert result.ok, result.error
    assert agent.texts()[-1] == "granted"


@pytest.mark.parametrize("verdict", ["denied", "expired"])
def test_question_without_an_answer(context: Context, agent: Peer, verdict: Any) -> None:
    """Denied or expired, the task is canceled and the step fails."""
    kept = Kept()
    action = A2a.parse(ask("ask"))
    with pytest.raises(Ask):
        run(action.run(context(save=kept.save)))
    replies = {"input-1": Reply(verdict=verdict, by="me")}
    result = run(action.run(context(save=kept.save, saved=kept.states[-1], replies=replies)))
    assert (result.ok, result.retryable) == (False, False)
    assert len(canceled(agent)) == 1


def test_question_refused_by_the_profile(context: Context, agent: Peer) -> None:
    """`on_input_required: fail` asks nobody."""
    result = do(ask("ask", on_input_required="fail"), context())
    assert not result.ok
    assert result.error == "agent scripted: the agent asks: Which branch?"
    assert len(canceled(agent)) == 1


def test_canceled_with_its_run(context: Context, agent: Peer, tmp_path: Path) -> None:
    """A run that is not wanted any more takes its task with it, however often it is told."""
    kept = Kept()

    async def body() -> None:
        task = asyncio.create_task(
            A2a.parse(ask(f"wait {tmp_path / 'never'}")).run(context(save=kept.save))
        )
        await kept.task()
        for _ in range(3):
            task.cancel(CANCELLED)
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(body())
    assert [one["task"] for one in canceled(agent)] == [kept.states[-1]["task_id"]]


@pytest.mark.parametrize("limit", ["its own", "the run's"])
@pytest.mark.parametrize("stream", [pytest.param(True, marks=pytest.mark.slow), False])
def test_slow(
    context: Context,
    agent: Peer,
    published: list[Event],
    tmp_path: Path,
    limit: str,
    stream: bool,
) -> None:
    """A task over its time is canceled, told, and may be tried again."""

    def within(seconds: float) -> StepResult:
        published.clear()
        own = {"timeout": f"{seconds * 1000:.0f}ms"} if limit == "its own" else {}
        ctx = context(left=None if own else seconds)
        result = do(ask(f"wait {tmp_path / 'never'}", stream=stream, **own), ctx)
        assert (result.ok, result.retryable, result.timed_out) == (False, True, True)
        said = f"{seconds:g} s, its timeout" if own else "the time limit of the step or its profile"
        assert f"the task was not done within {said}; it was canceled" in str(result.error)
        return result

    # before a stream has begun nobody knows of a task that could be canceled
    limited(within, lambda result: result.output["task_id"])
    assert len(canceled(agent)) == 1
    assert [event.topic for event in published] == ["a2a.task.canceled"]


def test_nobody_there(context: Context) -> None:
    """An agent that cannot be reached may be there for the next attempt."""
    configure(scripted={"url": "http://127.0.0.1:9"})
    result = do(ask("say hi"), context())
    assert (result.ok, result.retryable) == (False, True)
    assert result.error is not None
    assert "cannot be reached" in result.error


def test_unknown_agent(context: Context) -> None:
    """An agent that the settings do not have is a mistake, with the nearest name."""
    result = do({"agent": "scriptet"}, context())
    assert (result.ok, result.retryable) == (False, False)
    assert result.error is not None
    assert "a2a_agents" in result.error
    assert "'scripted'" in result.error


def test_pin(context: Context, agent: Peer) -> None:
    """A card that is not the pinned one is refused before anything is sent."""
    configure(scripted={"url": agent.address, "card_sha256": "0" * 64})
    result = do(ask("say hi"), context())
    assert (result.ok, result.retryable) == (False, False)
    assert result.error is not None
    assert "its card has changed" in result.error
    assert agent.heard() == []


class Vault:
    """One secret."""

    def __init__(self, **secrets: str) -> None:
        self._secrets = secrets

    def get(self, name: str) -> str:
        if name not in self._secrets:
            raise SecretMissing(name)
        return self._secrets[name]

    def fill(self, text: str) -> str:
        if "secret(" not in text:
            return text
        return self.get(text.split('"')[1])


def test_token(context: Context, tmp_path: Path) -> None:
    """An agent that wants a bearer token gets the one of the settings; without one, or with a wrong
    one, nothing can be done."""
    token = "t0k" + "en" * 8
    with peer(tmp_path / "locked", token=token) as locked:
        reference = '${{ secret("locked") }}'
        configure(scripted={"url": locked.address, "bearer": reference})
        result = do(ask("say hi"), context(secrets=Vault(locked=token)))
        assert result.ok, result.error
        wrong = do(ask("say hi"), context(secrets=Vault(locked="wrong")))
        assert (wrong.ok, wrong.retryable) == (False, False)
        assert wrong.error is not None
        assert "401" in wrong.error
        broken = do(ask("say hi"), context(secrets=Vault(locked=f"{token}\nX-Evil: 1")))
        assert broken.error == "agent scripted: what bearer refers to cannot stand in a header"
        missing = do(ask("say hi"), context(secrets=Vault()))
        assert missing.error == "there is no secret 'locked'"
        configure(scripted={"url": locked.address})
        without = do(ask("say hi"), context())
        assert without.error is not None
        assert "its card asks for HTTP bearer" in without.error
        assert not without.retryable


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"agent": "Bad Name"},
        {"agent": "${{ event.payload.agent }}"},
        {"agent": "a", "message": 3},
        {"agent": "a", "message": "${{ event. }}"},
        {"agent": "a", "poll": "0s"},
        {"agent": "a", "topic": "Bad"},
        {"agent": "a", "on_input_required": "guess"},
        {"agent": "a", "envelope": False},
        {"agent": "a", "url": "http://elsewhere"},
    ],
)
def test_refused(value: Any) -> None:
    """What cannot be asked as it is written is refused when the profile is loaded."""
    with pytest.raises((ValidationError, ValueError)):
        A2a.parse(value)
