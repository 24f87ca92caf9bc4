"""Agents that lie, hang, or do not keep to the protocol: each is seen, named, and mapped to fail or
retry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import run
from tests.handlers.a2a_liar import Liar, liar
from tests.handlers.a2a_peers import configure

from opsmesh.handlers.a2a import agents, bounded, cards, remote
from opsmesh.handlers.actions.a2a import A2a
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import Event

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("a2a_liars")


Context = Callable[..., StepContext]


@pytest.fixture(scope="module")
def lies() -> Iterator[Liar]:
    """One liar for all tests of this module."""
    with liar() as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(home: Path, lies: Liar) -> None:
    lies.calls.clear()
    lies.headers.clear()
    lies.version = "1"


def ask(
    lies: Liar, kind: str, ctx: StepContext, about: dict[str, Any] | None = None, **more: Any
) -> StepResult:
    where = {"url": f"{lies.address}/{kind}", "timeout": "30s", **(about or {})}
    configure(liar=where)
    if kind == "slow":  # its card is not: it is kept before there is a limit to pass
        run(_card(ctx))
        configure(liar={**where, "timeout": "400ms"})
    value = {"agent": "liar", "message": "hello", "poll": "10ms", "timeout": "60s", **more}
    result = run(A2a.parse(value).run(ctx))
    assert isinstance(result, StepResult)
    return result


async def _card(ctx: StepContext) -> None:
    async with await remote.open_(agents.find(Settings(), "liar"), ctx.secrets):
        pass


@pytest.mark.parametrize(
    ("kind", "retryable", "said"),
    [
        ("other_task", False, "it answered about task 't2', not 't1'"),
        ("other_context", False, "it answered in the conversation"),
        ("no_id", False, "a task that has no usable id"),
        ("neither", False, "neither"),
        ("a_list", True, "expected an object"),
        ("wrong_types", False, "cannot be read"),
        ("html", True, "JSON"),
        ("deep", False, "cannot be read"),
        ("redirect", True, "307"),
        ("zipped", False, "its answer is encoded as 'gzip'"),
        ("slow", True, "it did not answer in time"),
        ("busy", True, "503"),
        ("refuses", False, "it refuses"),
        ("broken", True, "no"),
        ("forgets", True, "it does not know the task any more"),
        ("card_huge", False, "its card is over 262144 bytes"),
        ("card_html", False, "no agent card: not JSON"),
        ("card_list", False, "no agent card: no JSON object"),
        ("card_wrong", False, "is no agent card"),
        ("card_bare", False, "it speaks nothing"),
        ("card_503", True, "HTTP 503"),
        ("card_404", False, "HTTP 404"),
        ("grpc", False, "it speaks GRPC, and we JSONRPC and HTTP+JSON"),
        ("elsewhere", False, "which is not its own host"),
        ("key", False, "its card asks for an API key in the header X-Agent-Key"),
    ],
)
def test_lie(
    lies: Liar, context: Context, published: list[Event], kind: str, retryable: bool, said: str
) -> None:
    """The step fails with what was wrong, nothing is told as if the agent had answered, and only
    what may end otherwise is tried again."""
    result = ask(lies, kind, context(attempt=1))
    assert not result.ok
    assert result.error is not None
    assert said in result.error
    assert result.retryable == retryable, result.error
    assert published == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("endless", "its stream has over 200 news and no end"),
        ("foreign_news", "it sent news of task 't2', not of 't1'"),
        ("one_line", "its answer is over 1000000 bytes"),
    ],
)
def test_lying_stream(
    lies: Liar, context: Context, monkeypatch: pytest.MonkeyPatch, kind: str, said: str
) -> None:
    """A stream without an end, or about something else, is left."""
    monkeypatch.setattr(remote, "MAX_NEWS", 200)
    if kind == "one_line":
        monkeypatch.setattr(bounded, "MAX_ANSWER", 1_000_000)
    result = ask(lies, kind, context(attempt=1), stream=True)
    assert (result.ok, result.retryable) == (False, False)
    assert result.error is not None
    assert said in result.error


def test_broken_stream(lies: Liar, context: Context) -> None:
    """When a stream breaks off the task is looked at instead."""
    result = ask(lies, "breaks", context(attempt=1), stream=True)
    assert result.ok, result.error
    assert ("breaks", "GetTask") in lies.calls


@pytest.mark.parametrize("kind", ["a_list", "wrong_types", "deep"])
def test_tasks_that_cannot_be_listed(lies: Liar, context: Context, kind: str) -> None:
    """An agent that cannot say what became of a message is sent it again, and fails by itself."""
    saved = {"message_id": "m", "sent_us": 1, "since_us": 2**62}
    result = ask(lies, kind, context(attempt=1, saved=saved))
    assert not result.ok
    assert [method for _, method in lies.calls][:2] == ["ListTasks", "SendMessage"]


def test_a_liar_is_told_to_stop(lies: Liar, context: Context) -> None:
    """Whoever answers about another task is asked to cancel the one that we know."""
    ask(lies, "other_task", context(attempt=1))
    assert lies.calls[-1] == ("other_task", "CancelTask")


def test_name_of_the_card(lies: Liar, context: Context, published: list[Event]) -> None:
    """What an agent calls itself is cut, and has no control codes."""
    assert ask(lies, "honest", context(attempt=1)).ok
    [event] = published
    assert event.source.startswith("a2a:Liar[31m x")
    assert len(event.source) <= 84


def test_allowed_elsewhere(lies: Liar, context: Context) -> None:
    """An address on another host is used where the settings allow it, and only below that."""
    other = lies.address.replace("127.0.0.1", "localhost")
    assert ask(lies, "elsewhere", context(attempt=1), {"interfaces": [f"{other}/elsewhere"]}).ok
    assert not ask(lies, "elsewhere", context(attempt=1), {"interfaces": [f"{other}/else"]}).ok


class Key:
    """A key for everything."""

    def get(self, name: str) -> str:
        return "k-" + name

    def fill(self, text: str) -> str:
        return self.get("x") if "secret(" in text else text


def test_api_key(lies: Liar, context: Context) -> None:
    """An API key goes into the header that the card names, and into none that steers HTTP."""
    about = {"api_key": '${{ secret("x") }}', "headers": {"X-Tenant": "ops"}}
    assert ask(lies, "key", context(attempt=1, secrets=Key()), about).ok
    assert (lies.headers[0]["x-agent-key"], lies.headers[0]["x-tenant"]) == ("k-x", "ops")
    refused = ask(lies, "key_host", context(attempt=1, secrets=Key()), about)
    assert refused.error is not None
    assert "its card names the header 'Host'" in refused.error


def test_card_is_kept(lies: Liar, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A young card is not asked for again, an older one only for whether it changed; with a pin, a
    changed one is refused and the old one used no more."""
    before = lies.cards
    assert ask(lies, "kept", context(attempt=1)).ok
    assert ask(lies, "kept", context(attempt=1)).ok
    assert lies.cards == before + 1
    monkeypatch.setattr(cards, "FRESH_S", 0.0)
    assert ask(lies, "kept", context(attempt=1)).ok  # 304
    [file] = Path(cards._path("x")).parent.glob("*.json")
    pin = cards.digest(json.loads(file.read_bytes())["card"])
    assert ask(lies, "kept", context(attempt=1), {"card_sha256": pin}).ok
    lies.version = "2"
    changed = ask(lies, "kept", context(attempt=1), {"card_sha256": pin})
    assert (changed.ok, changed.retryable) == (False, False)
    assert changed.error is not None
    assert "opsmesh a2a card liar --pin" in changed.error
    assert not ask(lies, "kept", context(attempt=1), {"card_sha256": pin}).ok
    assert ask(lies, "kept", context(attempt=1)).ok
