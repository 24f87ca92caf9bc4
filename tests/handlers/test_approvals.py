"""A person is asked before a step: what waits, who may answer, and what follows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
import pytest
from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, run
from tests.handlers.approving import asked, ended, left, ran, reply, say, say_meanwhile, text
from tests.handlers.mesh import mesh, write_profiles

from opsmesh.handlers.actions import registry
from opsmesh.handlers.actions.contract import Question, Reply, StepContext, StepResult
from opsmesh.handlers.errors import Ask
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs import approvals, asking
from opsmesh.handlers.runs.approvals import Open, RefusedAnswer
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.handlers.testing import Profiles
from opsmesh.router import deadletter, paths
from opsmesh.router.errands import ANSWER
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.testing import MemoryMesh
from opsmesh.schemas import times

#: A configuration folder of each test's own.
pytestmark = pytest.mark.usefixtures("home")


def test_granted(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Nothing runs before somebody says yes; who, where and how is told, and later steps see it."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out)) as m:
            cause = await m.publish()
            [one] = await asked(m)
            assert (one.asked.prompt, ran(out)) == ("Restart backup.service?", [])
            [told] = await m.wait("automation.approval.requested")
            assert told.payload["approval_id"] == one.asked.id
            assert told.correlation_id == cause.correlation_id
            assert (await say(m, one, comment="go on")).new
            done = await ended(m, "succeeded")
            assert ran(out) == ["restarted", "after-granted"]
            assert done.attempt == 1
            [granted] = await m.wait("automation.approval.granted")
            said = granted.payload
            assert (said["by"], said["by_host"], said["via"]) == ("me", "here", "cli")
            assert (said["comment"], said["approval_id"]) == ("go on", one.asked.id)
            assert [one async for one in approvals.waiting(m.client)] == []

    run(body())


@pytest.mark.parametrize(
    ("otherwise", "state", "did"),
    [
        ("skip", "succeeded", ["after-denied"]),
        ("run", "succeeded", ["after-denied"]),
        ("fail", "deadlettered", []),
    ],
)
def test_denied(
    nats_server: EmbeddedServer, tmp_path: Path, otherwise: str, state: str, did: list[str]
) -> None:
    """A refused step is never run; with `fail` the run is given up at once."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out, f"otherwise: {otherwise}", "retry: {attempts: 3}")) as m:
            await m.publish()
            [one] = await asked(m)
            await say(m, one, "denied", comment="not now")
            done = await ended(m, state)
            assert (ran(out), done.attempt) == (did, 1)
            step = done.step("restart")
            assert step is not None
            assert step.error == "me denied it: not now"
            await m.wait("automation.approval.denied")

    run(body())


@pytest.mark.parametrize(
    ("otherwise", "state", "did"),
    [
        ("skip", "succeeded", ["after-expired"]),
        ("run", "succeeded", ["restarted", "after-expired"]),
        ("fail", "deadlettered", []),
    ],
)
def test_expired(
    nats_server: EmbeddedServer, tmp_path: Path, otherwise: str, state: str, did: list[str]
) -> None:
    """Nobody answers in time: `otherwise` says what becomes of the step."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out, f"expires: 200ms, otherwise: {otherwise}")) as m:
            await m.publish()
            await ended(m, state)
            assert ran(out) == did
            [told] = await m.wait("automation.approval.expired")
            assert told.payload["otherwise"] == otherwise

    run(body())


def test_expired_while_nobody_was_there(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """The end of a question is a time, and not a timer: it is met by whoever comes next."""
    out, settings = tmp_path / "out", Settings()
    profile = text(out, "expires: 1h, otherwise: run")

    async def body() -> None:
        one = await left(profile, settings)
        async with mesh_client(settings) as client:
            await _expire(client, one)
            assert [o async for o in approvals.waiting(client)] == []
            with pytest.raises(RefusedAnswer, match="it expired at"):
                await reply(client, one)
        assert ran(out) == []
        async with mesh(profile, settings=settings) as m:
            await ended(m, "succeeded")
            assert ran(out) == ["restarted", "after-expired"]
            [refused] = await m.wait("automation.approval.refused")
            assert refused.payload["reason"].startswith("it expired at")

    run(body())


async def _expire(client: Client, one: Open) -> None:
    """Have a question's time come: as if its hour had passed while its handlers were away."""
    held = await Ledger(client).get(one.run.key)
    assert held is not None
    now_us = times.now_us()
    step = held.run.steps[-1]
    step.asked = (msgspec.structs.replace(step.asked[-1], expires_us=now_us),)
    await held.save(now_us)


def test_answered_while_nobody_was_there(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Question and answer survive handlers that are away, and are told once."""
    out, settings = tmp_path / "out", Settings()

    async def body() -> None:
        one = await left(text(out), settings)
        await say_meanwhile(one, settings)
        async with mesh(text(out), settings=settings) as m:
            await ended(m, "succeeded")
            assert ran(out) == ["restarted", "after-granted"]
            assert len(await m.wait("automation.approval.requested")) == 1
            assert len(await m.wait("automation.approval.granted")) == 1

    run(body())


def test_answered_twice(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """The first answer counts; the same again changes nothing, another one is refused and told."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out)) as m:
            await m.publish()
            [one] = await asked(m)
            assert (await say(m, one)).new
            assert not (await say(m, one)).new
            with pytest.raises(RefusedAnswer, match="answered already: me granted it"):
                await say(m, one, "denied")
            with pytest.raises(RefusedAnswer, match="answered already"):
                await say(m, one, by="another")
            await ended(m, "succeeded")
            refused = await m.wait("automation.approval.refused", 2)
            assert [event.payload["by"] for event in refused] == ["me", "another"]
            with pytest.raises(RefusedAnswer, match="answered already"):
                await say(m, one, "denied")  # also after the run has ended

    run(body())


def test_two_at_once(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Of many answers at the same moment one counts, and each of the others knows which."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out)) as m:
            await m.publish()
            [one] = await asked(m)
            names = [f"p{n}" for n in range(8)]
            found = await asyncio.gather(
                *(say(m, one, by=name) for name in names), return_exceptions=True
            )
            done = [answer for answer in found if isinstance(answer, approvals.Answered)]
            assert len(done) == 1
            refused = [error for error in found if isinstance(error, RefusedAnswer)]
            assert len(refused) == 7
            reply = done[0].asked.reply
            assert reply is not None
            assert all(f"{reply.by} granted it" in str(error) for error in refused)
            await ended(m, "succeeded")
            assert ran(out).count("restarted") == 1

    run(body())


def test_without_the_right(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Who is not in `by` is refused, and that is on record; who is may still answer."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out, "by: [ann, bob]")) as m:
            await m.publish()
            [one] = await asked(m)
            with pytest.raises(RefusedAnswer, match="guest may not answer; ann and bob may"):
                await say(m, one, by="guest")
            assert ran(out) == []
            assert (await m.wait("automation.approval.refused"))[0].payload["by"] == "guest"
            await say(m, one, by="bob")
            await ended(m, "succeeded")

    run(body())


def test_tokens(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Where nobody knows who answers the token is needed; it is this question's, and is used up."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out), settings=Settings()) as m:
            await m.publish(payload={"unit": "a.service"})
            await m.publish(payload={"unit": "b.service"})
            first, second = await asked(m, 2)
            key = asking.load_key(Path(paths.state_dir()))
            with pytest.raises(RefusedAnswer, match="needs the question's token"):
                await say(m, first, via="notification", by="")
            with pytest.raises(RefusedAnswer, match="token is not this question's"):
                await say(m, first, via="notification", by="", token=second.token(key))
            done = await say(m, first, via="notification", by="", token=first.token(key))
            assert done.new
            with pytest.raises(RefusedAnswer, match="answered already"):
                await say(m, first, via="notification", by="", token=first.token(key))
            everything = b"".join([str(e).encode() for e in await m.events()])
            assert first.token(key).encode() not in everything
            assert first.token(key) not in str(await m.runs())

    run(body())


def test_waits_without_a_place(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run that asks lets others pass: three questions wait at once with a limit of one."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out")) as m:
            for _ in range(3):
                await m.publish()
            assert len({one.run.run_id for one in await asked(m, 3)}) == 3

    run(body())


def test_asked_once_for_all_attempts(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A step that was approved and fails is run again without another question."""
    out = tmp_path / "out"
    profile = f"""
profiles:
  restart:
    on: service.start.failed
    retry: {{attempts: 3, initial: 10ms}}
    actions:
      - approve: Restart?
        command: [sh, -c, "echo x >> $0; exit 1", "{out}"]
"""

    async def body() -> None:
        async with mesh(profile) as m:
            await m.publish()
            [one] = await asked(m)
            await say(m, one)
            await ended(m, "deadlettered")
            assert ran(out) == ["x", "x", "x"]
            assert len(await m.events("automation.approval.requested")) == 1

    run(body())


def test_an_edited_step_is_asked_anew(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A yes is for the text that was asked about: edited before it is run, it is asked again."""
    out, settings = tmp_path / "out", Settings()

    async def body() -> None:
        one = await left(text(out), settings)
        await say_meanwhile(one, settings)
        async with mesh(text(out, more="timeout: 50s"), settings=settings) as m:
            [again] = await asked(m)
            assert again.asked.id != one.asked.id
            assert ran(out) == []

    run(body())


SCHEMA = """answer: {type: object, required: [ref], properties: {ref: {type: string}}}"""


def test_answers_with_a_value(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A yes comes with a value that fits, and later steps see it; one that does not fit is said."""
    out = tmp_path / "out"
    profile = f"""
profiles:
  roll-back:
    on: service.start.failed
    actions:
      - {{id: to, approve: {{prompt: "To which?", {SCHEMA}}}}}
      - command: [sh, -c, 'echo "$1" >> $0', "{out}", "${{{{ steps.to.approval.answer.ref }}}}"]
"""

    async def body() -> None:
        async with mesh(profile) as m:
            await m.publish()
            [one] = await asked(m)
            for wrong in (None, {}, {"ref": 7}, "HEAD"):
                with pytest.raises(approvals.InvalidAnswer, match="does not fit"):
                    await say(m, one, value=wrong)
            await say(m, one, value={"ref": "HEAD~1"})
            await ended(m, "succeeded")
            assert ran(out) == ["HEAD~1"]

    run(body())


def test_errors_in_profiles(tmp_path: Path) -> None:
    """What cannot be asked is said where it stands."""
    cases = {
        "{approve: {prompt: x, otherwse: skip}}": "did you mean 'otherwise'",
        "{approve: {prompt: x, answer: {type: nothing}}}": "no JSON Schema",
        "{approve: {prompt: '${{ evnt }}'}}": "did you mean 'event'",
        "{approve: {prompt: x, expires: 10}}": "10 is no duration",
        "{approve: ''}": "prompt",
        "{id: x}": "a step needs an action",
    }
    for step, said in cases.items():
        write_profiles(f"profiles: {{a: {{on: a.b, actions: [{step}]}}}}")
        [error] = load_profiles(Path(paths.config_dir())).errors
        assert said in str(error), step


class Talk:
    """Asks two things, one after the other."""

    key: ClassVar[str] = "talk"
    on_unknown: ClassVar[str] = "resume"

    @classmethod
    def parse(cls, value: Any) -> Self:
        return cls()

    def describe(self) -> dict[str, Any]:
        return {}

    async def run(self, ctx: StepContext) -> StepResult:
        if "first" not in ctx.replies:
            await ctx.save({"began": 1})
            raise Ask(Question(name="first", prompt="one?", schema={"type": "integer"}))
        if "second" not in ctx.replies:
            raise Ask(Question(name="second", prompt="two?", otherwise="skip"))
        heard = [ctx.replies["first"].answer, ctx.replies["second"].verdict]
        return StepResult(ok=True, output={"heard": heard, "saved": dict(ctx.saved)})


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The action `talk`, beside ours."""
    ours = registry.discover()
    found = registry.Found({**ours.actions, "talk": Talk}, ours.problems)
    monkeypatch.setattr(registry, "discover", lambda: found)


def test_an_action_asks(nats_server: EmbeddedServer, talk: None) -> None:
    """An action that asks is run again with the answers, and what it saved, in the same attempt."""

    async def body() -> None:
        async with mesh("profiles: {t: {on: service.start.failed, actions: [{talk: 1}]}}") as m:
            await m.publish()
            [first] = await asked(m)
            await say(m, first, value=42)

            async def next_one() -> Open | None:
                found = [one async for one in approvals.waiting(m.client)]
                return next((one for one in found if one.asked.name == "second"), None)

            second: Open = await eventually(next_one)
            await say(m, second, "denied")
            done = await ended(m, "succeeded")
            assert done.steps[0].output == {"heard": [42, "denied"], "saved": {"began": 1}}
            assert done.attempt == 1

    run(body())


def test_in_the_test_kit(tmp_path: Path) -> None:
    """In a test of a profile a step's question ends as the test says, else nobody answers."""
    out = tmp_path / "out"
    file = tmp_path / "p.yaml"
    file.write_text(text(out))
    memory = MemoryMesh(host="laptop")
    profiles = Profiles.load(file, memory)
    memory.emit(
        "service.start.failed", {"unit": "a.service", "manager": "user", "result": "exit-code"}
    )
    [decision] = profiles.fired()
    profiles.act(decision)
    assert ran(out) == ["after-expired"]
    profiles.act(decision, replies={"restart": Reply(verdict="granted", by="me")})
    assert ran(out)[1:] == ["restarted", "after-granted"]


def test_dead_letter_says_why(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run that was refused is dead-lettered with who refused it."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out", "otherwise: fail")) as m:
            await m.publish()
            [one] = await asked(m)
            await say(m, one, "denied")
            await ended(m, "deadlettered")
            [letter] = [found async for found in deadletter.letters(m.client)]
            assert letter.reason == "me denied it"

    run(body())


def test_a_refusal_is_told_by_whoever_takes_the_answer(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """An answer of a person on another host that is refused is told under the name of the host
    that took it, which may publish under no other, and names the person's."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out", "by: [somebody]")) as m:
            await m.publish()
            [one] = await asked(m)
            given = {"run": one.asked.id, "choice": "approve", "by": "me", "host": "elsewhere"}
            said = await m.client.request(ANSWER, json.dumps(given).encode(), timeout=60)
            assert json.loads(said.data)["ok"] is False
            [refused] = await m.wait("automation.approval.refused")
            assert refused.host == m.settings.host
            assert refused.payload["by_host"] == "elsewhere"

    run(body())
