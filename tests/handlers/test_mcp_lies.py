"""What a server may do to a session, each by a real process that does it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import eventually, limited, run
from tests.handlers.mcp_servers import alive, configure, liar, spec

from opsmesh.handlers.errors import CallFailed
from opsmesh.handlers.mcp import pool, program, session
from opsmesh.handlers.mcp.pool import Pool
from opsmesh.handlers.mcp.session import Session
from opsmesh.router.mcp_servers import McpServer

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has less time to end than a real one."""
    monkeypatch.setattr(program, "GRACE_S", 0.2)


@asynccontextmanager
async def opened(server: McpServer) -> AsyncIterator[Session]:
    """A session that is closed with the body, and leaves no task behind."""
    before = asyncio.all_tasks()
    found = await Session.open("liar", server, fill=str)
    try:
        yield found
    finally:
        await found.aclose()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before


async def failing(found: Session, tool: str, *, timeout: float = 60, **more: Any) -> CallFailed:  # noqa: ASYNC109
    with pytest.raises(CallFailed) as caught:
        await found.call(tool, more, timeout=timeout)
    return caught.value


@pytest.mark.parametrize(
    ("mode", "timeout", "said"),
    [
        ("die", "60s", "server 'liar' ended with exit code 3: cannot find my configuration"),
        ("hang", "500ms", "server 'liar' was not ready within 0.5 s"),
        ("deaf", "500ms", "server 'liar' was not ready within 0.5 s"),
        ("garbage", "60s", "server 'liar' wrote 201 lines in a row that are no JSON-RPC"),
    ],
)
def test_does_not_come_up(mode: str, timeout: str, said: str) -> None:
    """A server that hangs, dies or writes garbage at its start is given up, and nothing is left."""
    pids: list[int] = []

    async def body() -> str:
        before = asyncio.all_tasks()
        with pytest.raises(CallFailed) as caught:
            await Session.open("liar", spec(mode, timeout=timeout), fill=str)
        assert caught.value.kind == "dead_server"
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before
        return str(caught.value)

    start = program.Program.start

    def noting(*args: Any, **more: Any) -> program.Program:
        found = start(*args, **more)
        pids.append(found.pid)
        return found

    program.Program.start = noting  # type: ignore[method-assign]
    try:
        assert run(body()).startswith(said)
    finally:
        program.Program.start = start  # type: ignore[method-assign]
    assert not any(alive(pid) for pid in pids)
    assert not list(program.folder().iterdir())


def test_floods_while_it_comes_up() -> None:
    """Of a server that floods its errors and does not come up the last words are told."""

    async def opened_within(seconds: float) -> str:
        with pytest.raises(CallFailed) as caught:
            await Session.open("liar", spec("flood", timeout=f"{seconds * 1000:.0f}ms"), fill=str)
        assert caught.value.kind == "dead_server"
        return str(caught.value)

    said = limited(lambda s: str(run(opened_within(s))), lambda told: "its last words" in told)
    assert said.startswith("server 'liar' was not ready within ")
    assert "; its last words: xxx" in said
    assert not list(program.folder().iterdir())


@pytest.mark.parametrize(
    ("tool", "kind", "said"),
    [
        ("lie", "bad_result", "its answer does not fit its schema: "),
        ("mute", "bad_result", "it promises structured content, and sent none"),
        ("evil", "bad_result", "does not match '^(a+)+$'"),
        ("deep", "bad_result", "the schema asks for more than"),
        ("remote", "bad_result", "the schema cannot be used"),
        ("broken", "bad_result", "its answer breaks the protocol"),
        ("wide", "bad_result", "200008 bytes of structured content exceed 131072"),
        ("fails", "tool_error", "liar/fails: no such thing"),
        ("refuses", "tool_error", "liar/refuses: not like this"),
    ],
)
def test_wrong_answer(tool: str, kind: str, said: str) -> None:
    """An answer that lies fails its own call in a moment, and not the session."""

    async def body() -> None:
        async with opened(spec()) as found:
            began = time.process_time()
            failure = await failing(found, tool)
            assert time.process_time() - began < 3
            assert failure.kind == kind
            assert said in str(failure)
            assert (await found.call("number", {}, timeout=60)).structured == {"n": 3}

    run(body())


def test_pattern_of_the_arguments() -> None:
    """A pattern that would never end is matched in a moment, on arguments too."""

    async def body() -> None:
        async with opened(spec()) as found:
            began = time.process_time()
            failure = await failing(found, "evil", text="a" * 40 + "!")
            assert failure.kind == "bad_arguments"
            assert time.process_time() - began < 3

    run(body())


def test_wrong_ids_and_noise() -> None:
    """Answers to questions that nobody asked, and lines that are no JSON, are passed over."""

    async def body() -> None:
        async with opened(spec()) as found:
            assert (await found.call("wrong_id", {}, timeout=60)).text == "ok"
            assert (await found.call("noise", {}, timeout=60)).text == "ok"

    run(body())


def test_long_text() -> None:
    """Of a long text the beginning is kept, and it is said."""

    async def body() -> None:
        async with opened(spec()) as found:
            answer = await found.call("long", {}, timeout=60)
            assert (answer.text, answer.truncated) == ("z" * 8192, True)

    run(body())


def test_hundred_megabytes() -> None:
    """A message of 100 MB ends the server, and never is in memory."""

    async def body() -> None:
        async with opened(spec()) as found:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            failure = await failing(found, "big")
            assert failure.kind == "bad_result"
            assert "sent a message of over 4194304 bytes" in str(failure)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
            assert not found.alive

    run(body())


def test_dies_in_a_call() -> None:
    """A server that dies in a call is a dead one for everybody who waits, with its last words."""

    async def body() -> None:
        async with opened(spec()) as found:
            waiting = asyncio.create_task(failing(found, "sleep"))
            failure = await failing(found, "die")
            assert failure.kind == (await waiting).kind == "dead_server"
            assert str(failure) == "server 'liar' was killed by SIGKILL: boom: it is over"

    run(body())


def test_dies_between_calls() -> None:
    """A server that died between calls is started again for the next one."""
    configure(liar=liar())

    async def body() -> None:
        sessions = Pool()
        first = await sessions.session("liar", str)
        pid = (await first.call("pid", {}, timeout=60)).text
        await first.call("once", {}, timeout=60)
        await eventually(lambda: not first.alive)
        again = await sessions.session("liar", str)
        assert (await again.call("pid", {}, timeout=60)).text != pid
        await sessions.aclose()

    run(body())


def test_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot live is started again after a wait, longer each time, up to a most."""
    waits: list[float] = []
    sleep = asyncio.sleep
    # between a failure and the next try no time passes
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: 1000.0))

    async def noting(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    class Clock:
        sleep = staticmethod(noting)
        Lock = asyncio.Lock

    monkeypatch.setattr(pool, "asyncio", Clock)
    configure(liar=liar("die"))

    async def body() -> None:
        sessions = Pool()
        for _ in range(8):
            with pytest.raises(CallFailed):
                await sessions.session("liar", str)

    run(body())
    assert waits == [0, 0.5, 1, 2, 4, 8, 10, 10]


def test_hangs_in_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers nothing at all after a call's time-out is ended."""
    monkeypatch.setattr(session, "LOOK_S", 0.2)

    async def body() -> None:
        async with opened(spec()) as found:
            pid = int((await found.call("pid", {}, timeout=60)).text)
            assert (await failing(found, "stuck", timeout=0.2)).kind == "timeout"
            await eventually(lambda: not alive(pid))
            assert not found.alive

    run(body())


def test_slow_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is only slow with one call keeps its session."""
    monkeypatch.setattr(session, "LOOK_S", 60)

    async def body() -> None:
        async with opened(spec()) as found:
            assert (await failing(found, "sleep", timeout=0.2)).kind == "timeout"
            looking = found._looking
            assert looking is not None
            await looking
            assert found.alive

    run(body())


def test_changes_its_tools() -> None:
    """A list of tools that changes is read again: what is gone is unknown, what is new is there."""

    async def body() -> None:
        async with opened(spec()) as found:
            await found.call("echo", {"text": "x"}, timeout=60)
            await found.call("change", {}, timeout=60)
            assert (await failing(found, "echo", text="x")).kind == "unknown_tool"
            assert (await found.call("fresh", {}, timeout=60)).text == "ok"

    run(body())


def test_asks_for_something() -> None:
    """Sampling, elicitation and roots are declined, and it is said that they were asked for."""

    async def body() -> None:
        async with opened(spec()) as found:
            answer = await found.call("ask", {}, timeout=60)
            assert json.loads(answer.text) == [True, False, True]  # elicitation: declined, no error
            assert answer.refused == ("sampling", "elicitation", "roots")

    run(body())


def test_does_not_end() -> None:
    """A server that goes on after its input has ended, and after TERM, is killed."""

    async def body() -> int:
        async with opened(spec("stays")) as found:
            return int((await found.call("pid", {}, timeout=60)).text)

    pid = run(body())
    assert not alive(pid)


def test_without_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that nobody uses ends its server after a while, and the next call opens another."""
    monkeypatch.setattr(session, "IDLE_S", 0.2)
    configure(liar=liar())

    async def body() -> None:
        sessions = Pool()
        first = await sessions.session("liar", str)
        pid = int((await first.call("pid", {}, timeout=60)).text)
        await eventually(lambda: not alive(pid))
        again = await sessions.session("liar", str)
        assert again is not first
        await sessions.aclose()

    run(body())


def test_cancelled_while_it_opens() -> None:
    """Who stops waiting for a server that is opened leaves no process behind."""
    configure(liar=liar("hang"))

    async def body() -> None:
        sessions = Pool()
        opening = asyncio.create_task(sessions.session("liar", str))
        await eventually(lambda: program.folder().exists() and list(program.folder().iterdir()))
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        await eventually(lambda: not list(program.folder().iterdir()))
        await sessions.aclose()

    run(body())


def test_own_environment_is_not_shown() -> None:
    """A server that is not given HOME's secrets finds none in its environment."""

    async def body() -> dict[str, str]:
        async with opened(spec()) as found:
            env: dict[str, str] = json.loads((await found.call("env", {}, timeout=60)).text)
            return env

    os.environ["AWS_LOOKALIKE"] = "x"
    try:
        assert "AWS_LOOKALIKE" not in run(body())
    finally:
        del os.environ["AWS_LOOKALIKE"]
