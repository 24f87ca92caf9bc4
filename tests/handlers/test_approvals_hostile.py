"""Approvals against whoever would have a yes that nobody gave, or would keep us from asking."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import eventually, run
from tests.handlers.approving import asked, ended, ran, say, text
from tests.handlers.mesh import Mesh, mesh

from opsmesh.handlers import jsonschemas
from opsmesh.handlers.actions.contract import Question
from opsmesh.handlers.runs import asking, questions
from opsmesh.handlers.runs.approvals import InvalidAnswer, RefusedAnswer
from opsmesh.handlers.runs.ledger import StepRecord
from opsmesh.router import paths, user
from opsmesh.router.errands import ANSWER, QUESTIONS
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas.redact import built_in

#: ESC, a bell, "delete the line", right-to-left override, an isolate, a null and a C1 CSI.
NASTY = "\x1b[2K\x1b]0;owned\x07\u202e\u2066\x00\x9b31m"
UNSEEN = set("\x1b\x07\u202e\u2066\x00\x9b")


def secret() -> str:
    """A token that is none, as its owner would write it."""
    return "gh" + "p_" + "Zx81" * 9


async def request(m: Mesh, subject: str, **asked_for: Any) -> dict[str, Any]:
    """What the handlers say."""
    message = await m.client.request(subject, json.dumps(asked_for).encode(), timeout=60)
    said: dict[str, Any] = msgspec.json.decode(message.data)
    return said


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder."""
    return tmp_path / "state"


def test_the_key_is_its_users_alone(state: Path) -> None:
    """It is made once, whole, for nobody else to read."""
    key = asking.load_key(state)
    assert asking.load_key(state) == key
    assert stat.S_IMODE((state / asking.KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in state.iterdir()] == [asking.KEY_FILE]


def test_processes_that_start_together_have_one_key(state: Path) -> None:
    """Threads stand in for processes: each opens the folder for itself, as a process does."""

    async def body() -> list[bytes]:
        return await asyncio.gather(*(asyncio.to_thread(asking.load_key, state) for _ in range(16)))

    assert len(set(run(body()))) == 1


@pytest.mark.parametrize("how", ["short", "empty", "open", "link", "folder"])
def test_a_key_that_cannot_be_trusted_is_replaced(state: Path, tmp_path: Path, how: str) -> None:
    """Cut, readable by others, or not a file of its own: questions are asked all the same."""
    key, path = asking.load_key(state), state / asking.KEY_FILE
    if how == "open":
        path.chmod(0o644)
    elif how == "link":
        (tmp_path / "theirs").write_bytes(b"k" * asking.KEY_BYTES)
        path.unlink()
        path.symlink_to(tmp_path / "theirs")
    elif how == "folder":
        path.unlink()
        path.mkdir()
        with pytest.raises(OSError, match="directory"):  # said, and nothing is removed for it
            asking.load_key(state)
        return
    else:
        path.write_bytes(key[:7] if how == "short" else b"")
    fresh = asking.load_key(state)
    assert (fresh != key, len(fresh)) == (True, asking.KEY_BYTES)
    assert fresh != b"k" * asking.KEY_BYTES
    assert asking.load_key(state) == fresh
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600


def test_the_environment_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """$USER and $LOGNAME are anybody's to set."""
    before = user.name()
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "ann")
    assert user.name() == before != "ann"
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999)
    assert user.name() == "3999999"


def test_prompts_are_text(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """What an event holds reaches no terminal as a command, and turns no line around."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out")) as m:
            await m.publish(payload={"unit": f"a{NASTY}.service"})
            [one] = await asked(m)
            assert not UNSEEN & set(one.asked.prompt)
            assert one.asked.prompt.startswith("Restart a")
            [told] = await m.wait("automation.approval.requested")
            assert told.payload["prompt"] == one.asked.prompt

    run(body())


def test_long_prompts_are_cut(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A prompt that an event makes long is asked, as far as it goes."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out")) as m:
            await m.publish(payload={"unit": "x" * 100_000})
            [one] = await asked(m)
            assert len(one.asked.prompt) == asking.MAX_PROMPT

    run(body())


def test_secrets_stay_out(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """In a prompt and in a comment a secret is taken out, in the ledger and in events."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out")) as m:
            await m.client.jetstream().publish(*await _leaking(m))
            [one] = await asked(m)
            await say(m, one, comment=f"with {secret()}{NASTY}", by=f"me{NASTY}")
            done = await ended(m, "succeeded")
            reply = done.steps[0].asked[0].reply
            assert reply is not None
            assert not UNSEEN & set(reply.comment + reply.by)
            assert secret() not in str(done)
            for event in await m.wait("automation.approval.>", 2):
                assert secret() not in str(event)

    run(body())


async def _leaking(m: Mesh) -> tuple[str, bytes]:
    """An event with a secret that nobody has taken out on its way in."""
    event = await m.publish("demo.unheard", payload={"unit": secret()})
    data = msgspec.json.decode(msgspec.json.encode(event))
    data |= {"topic": "service.start.failed", "id": event.id[:-1] + "f"}
    return f"evt.{m.settings.host}.service.start.failed", json.dumps(data).encode()


SCHEMA = "answer: {type: object, properties: {n: {}, s: {type: string}}}"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"s": "x" * 70_000}, "bytes; 65536 are allowed"),
        ({"n": "\ud800"}, "cannot be stored"),
        ({"s": "SECRET"}, "holds a secret"),
        ({"s": 1}, "does not fit"),
    ],
)
def test_answers_that_are_not_taken(
    nats_server: EmbeddedServer, tmp_path: Path, value: dict[str, Any], why: str
) -> None:
    """Too long, no text, secret, or unfit: it is said, and another one may be given."""
    if value.get("s") == "SECRET":
        value = {"s": secret()}

    async def body() -> None:
        async with mesh(text(tmp_path / "out", SCHEMA)) as m:
            await m.publish()
            [one] = await asked(m)
            with pytest.raises(InvalidAnswer, match=why):
                await say(m, one, value=value)
            await say(m, one, value={"s": "fine"})
            await ended(m, "succeeded")

    run(body())


REDOS = {"type": "string", "pattern": "^(a+)+$"}


def _laughs() -> dict[str, Any]:
    """References that multiply: 2**40 checks of one value."""
    levels = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(40)}
    return {"$ref": "#/$defs/l0", "$defs": {**levels, "l40": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "value", "why"),
    [
        (REDOS, "a" * 40 + "!", "more than"),
        (_laughs(), 1, "more than"),
        ({"$ref": "#"}, 1, "without end"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, 1, "refers to"),
        ({"$ref": "file:///etc/hostname"}, 1, "refers to"),
    ],
)
def test_schemas_of_strangers(
    monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], value: Any, why: str
) -> None:
    """None keeps this process busy, and nothing is fetched."""
    # the start of a process counts, and on a busy machine takes seconds
    monkeypatch.setattr(jsonschemas, "PATIENCE_S", 1.5 if why == "more than" else 30.0)

    async def body() -> None:
        before = time.process_time()
        assert why in await jsonschemas.fault(schema, value)
        assert time.process_time() - before < 1

    run(body())


def test_costly_schemas_that_are_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern is checked, in its own process, like anything else."""
    monkeypatch.setattr(jsonschemas, "PATIENCE_S", 30.0)

    async def body() -> None:
        schema = {"type": "string", "pattern": "^v[0-9]+$"}
        assert await jsonschemas.fault(schema, "v12") == ""
        assert "does not match" in await jsonschemas.fault(schema, "12")

    run(body())


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"enum": ["x" * 20_000]}, "16384 are allowed"),
        ({"pattern": "("}, "no regular expression"),
        ({"type": "nothing"}, "no JSON Schema"),
        (None, "deeper than"),
    ],
)
def test_schemas_that_are_not_asked_with(schema: dict[str, Any] | None, why: str) -> None:
    """An action's question with such a schema is its failure; the run does not hang on it."""
    if schema is None:
        schema = {}
        for _ in range(200):
            schema = {"not": schema}
    record = StepRecord(id="s", action="talk", state="started", started_us=1)
    with pytest.raises(ValueError, match=why):
        asking.checked(Question(name="q", prompt="?", schema=schema), record, built_in(), place="x")


@pytest.mark.parametrize(
    "question",
    [
        Question(name="approve", prompt="the gate's name"),
        Question(name="", prompt="?"),
        Question(name="q", prompt="?", expires_s=float("nan")),
        Question(name="q", prompt="?", expires_s=float("inf")),
        Question(name="q", prompt="?", expires_s=-1.0),
    ],
)
def test_questions_that_are_not_put(question: Question) -> None:
    """A stranger's question has a name of its own, and an end that can come."""
    record = StepRecord(id="s", action="talk", state="started", started_us=1)
    with pytest.raises(ValueError, match=r"no name|cannot expire"):
        asking.checked(question, record, built_in(), place="x")


def test_refusals_do_not_flood(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """The same refusal again and again is one event, at most two where a minute ends."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out", "by: [ann]")) as m:
            await m.publish()
            [one] = await asked(m)
            for _ in range(40):
                with pytest.raises(RefusedAnswer):
                    await say(m, one, by="guest", comment="let me in")
            assert 1 <= len(await m.events("automation.approval.refused")) <= 2

    run(body())


def test_over_the_broker(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A surface on which anybody could be has no say there without the token; what is no answer is
    said to be none."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out)) as m:
            await m.publish()
            [one] = await asked(m)
            said = await request(m, ANSWER, run=one.asked.id, choice="approve", via="link")
            assert "needs the question's token" in said["error"]
            for wrong in ("*", ">", "a.b", "", "x" * 5000):
                said = await request(m, ANSWER, run=wrong, choice="approve")
                assert said["ok"] is False
                assert len(json.dumps(said)) < 400
            assert (await m.client.request(ANSWER, b"\xff{", timeout=60)).data.startswith(
                b'{"ok":false'
            )
            assert ran(out) == []

    run(body())


def test_settings_broken_meanwhile(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A mistake in config.yaml keeps no answer from being taken, and what it holds from being
    cleaned by the rules that are in force."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out)) as m:
            await m.publish()
            [one] = await asked(m)
            Path(paths.config_dir(), "config.yaml").write_text("redact: {field: [x]}")
            said = await request(m, ANSWER, run=one.asked.id, choice="approve", reason=secret())
            assert said["ok"] is True
            await ended(m, "succeeded")
            assert ran(out) == ["restarted", "after-granted"]
            [granted] = await m.wait("automation.approval.granted")
            assert secret() not in json.dumps(granted.payload)

    run(body())


def test_the_list_fits_into_a_message(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions beyond what one message holds are counted, and the rest is shown."""
    monkeypatch.setattr(questions, "MAX_BYTES", 6000)

    async def body() -> None:
        async with mesh(text(tmp_path / "out")) as m:
            for n in range(3):
                await m.publish(payload={"unit": f"{n}{'x' * 3000}"})
            await asked(m, 3)
            said = await request(m, QUESTIONS)
            assert (len(said["questions"]), said["left_out"]) == (1, 2)

    run(body())


def test_late_and_by_nobody(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """After its end no answer changes what was done."""
    out = tmp_path / "out"

    async def body() -> None:
        async with mesh(text(out, "expires: 100ms, otherwise: skip")) as m:
            await m.publish()

            async def over() -> Any:
                return await m.events("automation.approval.expired")

            [told] = await eventually(over)
            done = await ended(m, "succeeded")
            with pytest.raises(RefusedAnswer, match="nobody can answer it any more"):
                await say(m, _of(done, told.payload["approval_id"]))
            assert ran(out) == ["after-expired"]

    run(body())


def _of(run_: Any, approval_id: str) -> Any:
    from opsmesh.handlers.runs.approvals import Open

    step = run_.steps[0]
    assert step.asked[0].id == approval_id
    return Open(run_, step, step.asked[0])
