"""The action `mcp`, against a real stdio server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.conftest import eventually, run
from tests.handlers.conftest import EVENT
from tests.handlers.mcp_servers import configure, liar, steps

from opsmesh.handlers.actions import mcp as action
from opsmesh.handlers.actions.contract import Action, NoSecrets, StepContext, StepResult
from opsmesh.handlers.actions.mcp import Mcp
from opsmesh.schemas.envelope import Event, decode, encode

Context = Callable[..., StepContext]
pytestmark = pytest.mark.usefixtures("home")


def do(context: Context, *values: dict[str, Any], **facts: Any) -> list[StepResult]:
    """The steps, one after the other, in one process."""

    async def body() -> list[StepResult]:
        async with steps(context) as make:
            return [
                await Mcp.parse({"server": "liar", **value}).run(make(**facts)) for value in values
            ]

    found: list[StepResult] = run(body())
    return found


def test_is_an_action() -> None:
    """Mcp keeps the contract of actions."""
    assert isinstance(Mcp.parse({"server": "a", "tool": "b"}), Action)


def test_answer(context: Context, published: list[Event]) -> None:
    """What the tool answered is there for later steps, and is an event in its cause's story."""
    configure(liar=liar())
    value = {"tool": "echo", "arguments": {"text": "${{ event.payload.unit }}"}}
    [result] = do(context, value)
    assert result.ok
    assert result.output["structured"] == {"text": "backup.service"}
    assert result.output["text"] == "backup.service"
    [event] = published
    assert result.output["event"] == event.id
    assert (event.topic, event.severity) == ("mcp.tool.completed", "info")
    assert (event.correlation_id, event.causation_id, event.hops) == ("story", EVENT.id, 1)
    assert (event.payload["server"], event.payload["tool"]) == ("liar", "echo")
    assert event.payload["structured"] == {"text": "backup.service"}
    assert decode(encode(event)) == event


def test_result_topic(context: Context, published: list[Event]) -> None:
    """With a topic of its own, the structured content is the payload; `false`: no event."""
    configure(liar=liar())
    do(
        context,
        {"tool": "number", "result": "mesh.number.seen"},
        {"tool": "number", "result": False},
    )
    [event] = published
    assert (event.topic, event.payload) == ("mesh.number.seen", {"n": 3})


def test_same_event_again(context: Context, published: list[Event]) -> None:
    """A step that runs again after a crash tells the same event."""
    configure(liar=liar())
    do(context, {"tool": "number"}, {"tool": "number"})
    assert published[0].id == published[1].id


@pytest.mark.parametrize(
    ("then", "retryable", "dead"),
    [("retry", True, False), ("fail", False, False), ("dlq", False, True)],
)
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("tool_error", {"tool": "fails"}),
        ("unknown_tool", {"tool": "nope"}),
        ("unknown_server", {"tool": "x", "server": "nobody"}),
        ("dead_server", {"tool": "x", "server": "gone"}),
        ("bad_arguments", {"tool": "echo", "arguments": {"text": 3}}),
        ("bad_result", {"tool": "lie"}),
    ],
)
def test_as_the_profile_says(
    context: Context,
    published: list[Event],
    kind: str,
    value: dict[str, Any],
    then: str,
    retryable: bool,
    dead: bool,
) -> None:
    """Each way to fail maps to retry, fail or DLQ, and is an event."""
    configure(liar=liar(), gone={"command": "no-such-program"})
    [result] = do(context, {**value, "on": {kind: then}})
    assert (result.ok, result.retryable, result.dead_letter) == (False, retryable, dead)
    [event] = published
    assert (event.topic, event.payload["kind"], event.payload["then"]) == (
        "mcp.tool.failed",
        kind,
        then,
    )
    assert event.payload["error"] == result.error


def test_arguments_are_checked_before(context: Context, tmp_path: Path) -> None:
    """Arguments that do not fit are never sent, and the error names the argument."""
    log = tmp_path / "log"
    configure(liar=liar(env={"LIAR_LOG": str(log)}))
    wrong, missing, field = do(
        context,
        {"tool": "echo", "arguments": {"text": "${{ vars.limit }}"}},
        {"tool": "echo"},
        {"tool": "echo", "arguments": {"text": "${{ event.payload.nope }}"}},
    )
    assert wrong.error == "tool 'echo': argument 'text': 3 is not of type 'string'"
    assert missing.error == "tool 'echo': 'text' is a required property"
    assert field.error is not None
    assert field.error.startswith("${{ event.payload.nope }}: no field")
    assert "tools/call" not in log.read_text()


def test_nearest(context: Context) -> None:
    """A server or tool that is not there is named with the nearest that is."""
    configure(liar=liar())
    tool, server = do(context, {"tool": "ehco"}, {"server": "lair", "tool": "echo"})
    assert tool.error == "server 'liar' has no tool 'ehco'; did you mean 'echo'?"
    assert server.error == "mcp_servers has no server 'lair'; did you mean 'liar'?"


def test_allow_list_of_the_settings(context: Context) -> None:
    """A tool that the server's settings do not allow is not called."""
    configure(liar=liar(tools=["num*"]))
    good, bad = do(context, {"tool": "number"}, {"tool": "echo", "arguments": {"text": "x"}})
    assert good.ok
    assert bad.error is not None
    assert bad.error.startswith("tool 'echo' is not among the tools that mcp_servers.liar.tools")


def test_one_session(context: Context) -> None:
    """Steps at the same time, and one after the other, share one server process."""
    configure(liar=liar())

    async def body() -> set[str]:
        async with steps(context) as make:
            step = Mcp.parse({"server": "liar", "tool": "pid"})
            found = await asyncio.gather(*(step.run(make()) for _ in range(20)))
            return {result.output["text"] for result in [*found, await step.run(make())]}

    assert len(run(body())) == 1


def test_slow_call_holds_nobody_up(context: Context) -> None:
    """A call that waits does not keep others over the same session waiting."""
    configure(liar=liar())

    async def body() -> None:
        async with steps(context) as make:
            slow = asyncio.create_task(
                Mcp.parse({"server": "liar", "tool": "sleep"}).run(make(timeout=60.0))
            )
            result = await Mcp.parse({"server": "liar", "tool": "number"}).run(make())
            assert result.ok
            assert not slow.done()
            slow.cancel()
            await asyncio.wait([slow])

    run(body())


def test_cancelled(context: Context, tmp_path: Path) -> None:
    """A run that is cancelled cancels the call at the server, and the session goes on."""
    log = tmp_path / "log"
    configure(liar=liar(env={"LIAR_LOG": str(log)}))

    async def body() -> None:
        async with steps(context) as make:
            pid = (await Mcp.parse({"server": "liar", "tool": "pid"}).run(make())).output["text"]
            slow = asyncio.create_task(Mcp.parse({"server": "liar", "tool": "sleep"}).run(make()))
            await eventually(lambda: '"sleep"' in log.read_text())
            slow.cancel()
            await asyncio.wait([slow])
            assert slow.cancelled()
            await eventually(lambda: "notifications/cancelled" in log.read_text())
            again = await Mcp.parse({"server": "liar", "tool": "pid"}).run(make())
            assert again.output["text"] == pid

    run(body())
    called = [json.loads(line) for line in log.read_text().splitlines()]
    [sleep] = [one["id"] for one in called if (one.get("params") or {}).get("name") == "sleep"]
    [told] = [one["params"] for one in called if one["method"] == "notifications/cancelled"]
    assert told["requestId"] == sleep


def test_time_limit(context: Context, tmp_path: Path) -> None:
    """The step's time limit is the call's: the server hears that nobody waits any more."""
    log = tmp_path / "log"
    configure(liar=liar(env={"LIAR_LOG": str(log)}))

    async def body() -> StepResult:
        async with steps(context) as make:
            await Mcp.parse({"server": "liar", "tool": "number"}).run(make())
            step, seconds = Mcp.parse({"server": "liar", "tool": "sleep"}), 0.3
            late = await step.run(make(timeout=seconds))
            while '"sleep"' not in log.read_text():  # the limit was over before it was sent
                seconds *= 2
                late = await step.run(make(timeout=seconds))
            # before the session ends, and the server with it
            await eventually(lambda: "notifications/cancelled" in log.read_text())
            return late

    result = run(body())
    assert (result.ok, result.timed_out, result.retryable) == (False, True, True)
    assert result.output["kind"] == "timeout"
    assert "notifications/cancelled" in log.read_text()


def test_progress(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is kept in the ledger, but not each step of it."""
    monkeypatch.setattr(action, "PROGRESS_S", 60)  # a second may pass on a busy machine
    configure(liar=liar())
    saved: list[Any] = []

    async def save(state: Any) -> None:
        saved.append(state)

    [result] = do(context, {"tool": "progress", "arguments": {"end": True}}, save=save)
    assert result.ok
    assert saved == [{"progress": 0.0, "total": 100.0, "message": "m0"}]


def test_environment(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has a minimal environment, what its settings declare, and its secrets."""
    monkeypatch.setenv("OPSMESH_TEST_LEAK", "1")
    secret = "-".join(("tell", "nobody"))
    configure(liar=liar(env={"PLAIN": "x", "TOKEN": '${{ secret("token") }}'}))

    class Known(NoSecrets):
        def fill(self, text: str) -> str:
            return secret if "secret(" in text else text

    [result] = do(context, {"tool": "env"}, secrets=Known())
    env = json.loads(result.output["text"])
    assert (env["PLAIN"], env["TOKEN"]) == ("x", secret)
    assert "OPSMESH_TEST_LEAK" not in env


def test_missing_secret(context: Context, published: list[Event]) -> None:
    """A secret that is nowhere fails the step at once, and nothing is started."""
    from opsmesh.handlers.secrets import store
    from opsmesh.router.settings import Settings
    from opsmesh.schemas.exact import Known

    configure(liar=liar(env={"TOKEN": '${{ secret("no.such") }}'}))
    [result] = do(context, {"tool": "env"}, secrets=store.load(Settings().secrets, Known()))
    assert (result.ok, result.retryable, published) == (False, False, [])
    assert result.error is not None
    assert result.error.startswith("there is no secret 'no.such'")


def test_settings_that_change(context: Context) -> None:
    """A server that is added or changed in config.yaml is there without a restart."""
    configure()

    async def body() -> list[StepResult]:
        async with steps(context) as make:
            step = Mcp.parse({"server": "liar", "tool": "env"})
            found = [await step.run(make())]
            for text in ("one", "two"):
                configure(liar=liar(env={"PLAIN": text}))
                found.append(await step.run(make()))
            return found

    before, one, two = run(body())
    assert before.error == "mcp_servers has no server 'liar'; there is none"
    assert [json.loads(r.output["text"])["PLAIN"] for r in (one, two)] == ["one", "two"]


def test_without_the_extra(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the SDK a profile is valid, and its step says what to install."""
    monkeypatch.setitem(sys.modules, "opsmesh.handlers.mcp.pool", None)
    [result] = do(context, {"tool": "number"})
    assert (result.ok, result.retryable) == (False, False)
    assert result.error is not None
    assert "this needs the extra 'mcp'" in result.error


def test_too_much_for_an_event(
    context: Context, published: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that no event can hold is a bad result, and is not half told."""
    monkeypatch.setattr(action, "MAX_PAYLOAD", 10)
    configure(liar=liar())
    [result] = do(context, {"tool": "number"})
    assert result.output["kind"] == "bad_result"
    assert [event.topic for event in published] == ["mcp.tool.failed"]


@pytest.mark.parametrize(
    "value",
    [
        "time",
        {},
        {"server": "a"},
        {"server": "${{ event.payload.x }}", "tool": "b"},
        {"server": "a", "tool": "${{ event.payload.x }}"},
        {"server": "../a", "tool": "b"},
        {"server": "a", "tool": ""},
        {"server": "a", "tool": "b", "arguments": ["x"]},
        {"server": "a", "tool": "b", "arguments": {"x": "${{ event. }}"}},
        {"server": "a", "tool": "b", "result": "Bad Topic"},
        {"server": "a", "tool": "b", "result": True},
        {"server": "a", "tool": "b", "on": {"tool_error": "ignore"}},
        {"server": "a", "tool": "b", "timeout": "3s"},
    ],
)
def test_refused(value: Any) -> None:
    """What cannot be called as it is written is refused when the profile is loaded."""
    with pytest.raises((ValidationError, ValueError)):
        Mcp.parse(value)
