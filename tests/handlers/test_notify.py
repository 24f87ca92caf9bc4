"""The action `notify` on a desktop: a real bus, and a stand-in for the notification daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import eventually, run
from tests.handlers import session_bus
from tests.handlers.conftest import EVENT
from tests.handlers.session_bus import Desktop

from opsmesh.handlers.actions.contract import Action, StepContext, StepResult
from opsmesh.handlers.actions.notify import SHARED, Notify
from opsmesh.handlers.actions.shared import Shared
from opsmesh.handlers.cases.arguments import arguments
from opsmesh.handlers.desktop import notify_send
from opsmesh.handlers.desktop.board import Board
from opsmesh.handlers.desktop.notice import Button, Notice
from opsmesh.handlers.desktop.rates import Said
from opsmesh.handlers.profiles.steps import Step
from opsmesh.schemas.envelope import Event

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("notify")


Context = Callable[..., StepContext]


class Presses:
    """What was pressed, and what is said of it."""

    def __init__(self, said: str = "") -> None:
        self.said = said
        self.heard: list[tuple[Notice, Button]] = []

    async def __call__(self, notice: Notice, button: Button) -> str:
        self.heard.append((notice, button))
        return self.said


@asynccontextmanager
async def board(presses: Presses | None = None, **more: Any) -> AsyncIterator[tuple[Shared, Board]]:
    """What steps of one process share: a board."""
    shared = Shared()

    async def make() -> Board:
        return Board(**{"per_minute": 100, "press": presses or Presses(), **more})

    try:
        yield shared, await shared.get(SHARED, make)
    finally:
        await shared.aclose()


def show(context: Context, value: Any, **facts: Any) -> StepResult:
    """One step that notifies."""

    async def body() -> StepResult:
        async with board() as (shared, _):
            return await Notify.parse(value).run(context(shared=shared, **facts))

    result: StepResult = run(body())
    return result


def event(unit: str) -> dict[str, Any]:
    """Facts of a step whose event is about a unit of this name."""
    about: Event = msgspec.structs.replace(EVENT, payload={"unit": unit})
    return {"event": about, "variables": {"event": about.view(), "host": "dev"}}


def test_shown(desktop: Desktop, context: Context) -> None:
    """Title, body, urgency, icon and time reach the daemon; the step says who shows it."""
    value = {
        "title": "${{ event.payload.unit }} failed",
        "body": "on ${{ host }}",
        "urgency": "critical",
        "icon": "dialog-error",
        "timeout": "5s",
    }
    assert isinstance(Notify.parse(value), Action)
    result = show(context, value)
    [seen] = desktop.seen()
    assert (seen.title, seen.body, seen.icon) == (
        "backup.service failed",
        "on dev",
        "dialog-error",
    )
    assert (seen.urgency, seen.timeout_ms, seen.actions, seen.replaces) == (2, 5000, [], 0)
    assert result.ok
    assert (result.output["by"], result.output["shown"]) == ("mock-notify", True)


def test_one_text_is_the_title(desktop: Desktop, context: Context) -> None:
    """`notify: text` shows a title."""
    assert show(context, "${{ event.payload.unit }}!").ok
    assert [(seen.title, seen.body) for seen in desktop.seen()] == [("backup.service!", "")]


def test_markup_is_text(desktop: Desktop, context: Context) -> None:
    """Where the daemon reads markup, what an event holds is none."""
    value = {"title": "<b>x</b>", "body": '<a href="http://x">${{ event.payload.unit }}</a> & co'}
    show(context, value, **event("<img src=x>"))
    [seen] = desktop.seen()
    assert seen.title == "<b>x</b>"
    assert seen.body == '&lt;a href="http://x"&gt;&lt;img src=x&gt;&lt;/a&gt; &amp; co'


def test_no_hidden_characters(desktop: Desktop, context: Context) -> None:
    """Controls and marks that turn text around are taken out; a title is one line."""
    unit = "a\u202eb\x1b[31m\u2066c\u200b\r\nd\x00\ue000\u2028e"
    value = {"title": "${{ event.payload.unit }}", "body": "${{ event.payload.unit }}"}
    show(context, value, **event(unit))
    [seen] = desktop.seen()
    assert (seen.title, seen.body) == ("ab[31mc d e", "ab[31mc\nd\ne")


def test_bounded(desktop: Desktop, context: Context) -> None:
    """A long text is cut where a person stops reading."""
    value = {"title": "${{ event.payload.unit }}", "body": "${{ event.payload.unit }}"}
    show(context, value, **event("x" * 100_000))
    show(context, {"title": "lines", "body": "${{ event.payload.unit }}"}, **event("y\n" * 500))
    long, lines = desktop.seen()
    assert (len(long.title), long.title[-1], len(long.body)) == (160, "…", 2000)
    assert lines.body == "y\n" * 20 + "…"


def test_no_secrets(desktop: Desktop, context: Context) -> None:
    """What redaction knows as a secret is not shown, also not torn apart by what is invisible."""
    token = "ghp_" + "a1B2" * 9
    value = {"title": "t", "body": "${{ event.payload.unit }}"}
    show(context, value, **event(f"{token} {token[:10]}\u200b{token[10:]}"))
    [seen] = desktop.seen()
    assert "a1B2" not in seen.body
    assert "redacted" in seen.body


def test_same_group_replaces(desktop: Desktop, context: Context) -> None:
    """The second and third of a group take the first one's place, and are counted."""

    async def body() -> list[StepResult]:
        async with board() as (shared, _):
            action = Notify.parse("${{ event.payload.unit }} failed")
            return [
                await action.run(context(shared=shared, idempotency_key=key))
                for key in ("1", "2", "2", "3")
            ]

    results = run(body())
    first = results[0].output["id"]
    assert [seen.title for seen in desktop.seen()] == [
        "backup.service failed",
        "2 × backup.service failed",
        "2 × backup.service failed",  # the same step once more
        "3 × backup.service failed",
    ]
    assert [seen.replaces for seen in desktop.seen()] == [0, first, first, first]
    assert results[-1].output["count"] == 3


def test_dismissed_group_begins_anew(desktop: Desktop, context: Context) -> None:
    """What a person has waved away is not counted on."""

    async def body() -> None:
        async with board() as (shared, one):
            action = Notify.parse("x")
            first = await action.run(context(shared=shared, idempotency_key="1"))
            await asyncio.to_thread(desktop.dismiss, first.output["id"])
            await eventually(lambda: not one._shown)
            await action.run(context(shared=shared, idempotency_key="2"))

    run(body())
    assert [(seen.title, seen.replaces) for seen in desktop.seen()] == [("x", 0), ("x", 0)]


def test_expired_group_is_counted_on(desktop: Desktop, context: Context) -> None:
    """What has left the screen by itself is counted on for an hour, in a notice of its own."""

    async def body() -> None:
        async with board() as (shared, one):
            action = Notify.parse("x")
            for number in range(3):
                result = await action.run(context(shared=shared, idempotency_key=str(number)))
                [shown] = one._shown.values()
                await asyncio.to_thread(desktop.expire, result.output["id"])
                await eventually(lambda shown=shown: shown.expired)
                if number == 1:
                    shown.at_us -= 3601 * 1_000_000

    run(body())
    assert [(seen.title, seen.replaces) for seen in desktop.seen()] == [
        *(("x", 0), ("2 × x", 0), ("x", 0))
    ]


def test_what_reached_nobody_does_not_count(
    home: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that failed to show has not used its profile's share, and told nobody what was held
    back."""
    monkeypatch.setattr(notify_send, "PROGRAM", "no-such-program")

    async def body() -> None:
        async with board(per_minute=1) as (shared, one):
            for _ in range(3):
                assert not (await Notify.parse("x").run(context(shared=shared))).ok
            one._said["triage"] = Said(held=4)
            await Notify.parse("x").run(context(shared=shared))
            assert one._said["triage"] == Said(held=4)

    run(body())


def test_a_button_that_fails(desktop: Desktop, context: Context) -> None:
    """An answer that could not be given leaves the question on the screen, and is said."""

    async def press(notice: Notice, button: Button) -> str:
        raise OSError("the broker is away")

    async def body() -> None:
        async with board(press=press) as (shared, _):
            result = await Notify.parse({"title": "restart?", "actions": ["approve"]}).run(
                context(shared=shared)
            )
            await asyncio.to_thread(desktop.press, result.output["id"], "approve")
            await eventually(lambda: len(desktop.seen()) == 3)

    run(body())
    _, again, said = desktop.seen()
    assert (again.title, again.actions) == ("restart?", ["approve", "Approve"])
    assert said.body == "Approve: OSError: the broker is away"


def test_held_back(desktop: Desktop, context: Context) -> None:
    """What is beyond a minute's share is not shown and no failure; the next one tells how many."""
    now = [0.0]

    async def body() -> list[StepResult]:
        async with board(per_minute=2, clock=lambda: now[0]) as (shared, _):
            results = []
            for number in range(5):
                action = Notify.parse({"title": f"t{number}", "body": "b"})
                results.append(await action.run(context(shared=shared)))
            now[0] = 61
            await Notify.parse({"title": "later", "body": "b"}).run(context(shared=shared))
            other = context(shared=shared, profile="other")
            await Notify.parse("another profile's").run(other)
            return results

    results = run(body())
    assert [result.output["held_back"] for result in results] == [False, False, True, True, True]
    assert all(result.ok for result in results)
    assert [(seen.title, seen.body) for seen in desktop.seen()] == [
        ("t0", "b"),
        ("t1", "b"),
        ("later", "b\n(3 more of triage were held back)"),
        ("another profile's", ""),
    ]


def test_buttons(desktop: Desktop, context: Context) -> None:
    """A button that is pressed is heard with its notice; one that answers takes the notice away,
    and what came of it is said."""
    presses = Presses("not taken: <too late>")

    async def body() -> int:
        async with board(presses) as (shared, one):
            value = {
                "title": "restart?",
                "actions": ["approve", "false_positive", {"label": "Logs", "trigger": "logs"}],
            }
            result = await Notify.parse(value).run(context(shared=shared))
            number: int = result.output["id"]
            await asyncio.to_thread(desktop.press, number, "trigger-2")
            await eventually(lambda: len(presses.heard) == 1)
            await asyncio.to_thread(desktop.press, number, "approve")
            await eventually(lambda: not one._tasks and len(presses.heard) == 2)
            return number

    number = run(body())
    asked, *said = desktop.seen()
    assert asked.actions == [
        *("approve", "Approve", "false_positive", "False positive", "trigger-2", "Logs")
    ]
    assert (asked.timeout_ms, asked.resident) == (0, True)  # it waits for an answer
    (notice, logs), (_, approve) = presses.heard
    assert (notice.run_id, notice.profile) == ("run1", "triage")
    assert (logs.does, logs.target, approve.does) == ("trigger", "logs", "approve")
    assert desktop.closed() == [number]
    assert [one.body for one in said] == ["not taken: &lt;too late&gt;"] * 2


def test_forged_button(desktop: Desktop, context: Context) -> None:
    """Who is not the daemon presses no buttons."""
    presses = Presses()

    async def body() -> None:
        async with board(presses) as (shared, _):
            value = {"title": "restart?", "actions": ["approve", "deny"]}
            result = await Notify.parse(value).run(context(shared=shared))
            await asyncio.to_thread(desktop.forge, result.output["id"], "approve")
            await asyncio.to_thread(desktop.press, result.output["id"], "deny")
            await eventually(lambda: presses.heard)

    run(body())
    assert [button.key for _, button in presses.heard] == ["deny"]


def test_unknown_button(desktop: Desktop, context: Context) -> None:
    """A notice of somebody else, and a button that a notice has not, are nothing to us."""
    presses = Presses()

    async def body() -> None:
        async with board(presses) as (shared, _):
            result = await Notify.parse({"title": "x", "actions": "deny"}).run(
                context(shared=shared)
            )
            number = result.output["id"]
            for wrong in ((number + 7, "deny"), (number, "approve"), (number, "deny")):
                await asyncio.to_thread(desktop.press, *wrong)
            await eventually(lambda: presses.heard)

    run(body())
    assert len(presses.heard) == 1


def test_answers_are_not_grouped(desktop: Desktop, context: Context) -> None:
    """A question does not take the place of another run's, whatever their titles."""

    async def body() -> None:
        async with board() as (shared, _):
            action = Notify.parse({"title": "restart?", "actions": ["approve"]})
            for run_id in ("a", "b"):
                await action.run(context(shared=shared, run_id=run_id, idempotency_key=run_id))

    run(body())
    assert [(seen.title, seen.replaces) for seen in desktop.seen()] == [("restart?", 0)] * 2


def test_buttons_after_our_restart(desktop: Desktop, context: Context, home: Path) -> None:
    """A handler that comes after us knows what the buttons on the screen are for."""
    presses, file = Presses(), home / "notices.json"

    async def body() -> None:
        async with board(file=file) as (shared, _):
            action = Notify.parse({"title": "restart?", "actions": ["deny"]})
            result = await action.run(context(shared=shared))
        async with board(presses, file=file) as (_, one):
            one.resume()
            await eventually(lambda: one._shown)
            await asyncio.to_thread(desktop.press, result.output["id"], "deny")
            await eventually(lambda: presses.heard)

    run(body())
    [(notice, button)] = presses.heard
    assert (notice.title, notice.run_id, button.does) == ("restart?", "run1", "deny")
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(desktop.seen()) == 1


@pytest.mark.parametrize("ours_too", [False, True])
def test_another_daemon(
    home: Path, context: Context, monkeypatch: pytest.MonkeyPatch, ours_too: bool
) -> None:
    """A daemon that takes another one's place is shown what has buttons, and they work: also when
    we were away meanwhile."""
    session_bus.required()
    presses, file = Presses(), home / "notices.json"

    async def body(desktop: Desktop) -> None:
        async with board(presses, file=file) as (shared, one):
            for value in ({"title": "restart?", "actions": ["deny"]}, "no buttons"):
                await Notify.parse(value).run(context(shared=shared))
            if not ours_too:
                await asyncio.to_thread(_other_daemon, desktop)
                await eventually(lambda: len(one._shown) == 1)
                await _denied(desktop, presses)
        if ours_too:
            await asyncio.to_thread(_other_daemon, desktop)
            async with board(presses, file=file) as (_, one):
                one.resume()
                await eventually(lambda: len(one._shown) == 1)
                await _denied(desktop, presses)

    with session_bus.running(home) as desktop:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", desktop.address)
        desktop.start_daemon()
        run(body(desktop))
        assert [seen.title for seen in desktop.seen()] == ["restart?"]


def _other_daemon(desktop: Desktop) -> None:
    desktop.stop_daemon()
    desktop.start_daemon()


async def _denied(desktop: Desktop, presses: Presses) -> None:
    await eventually(lambda: desktop.seen())
    await asyncio.to_thread(desktop.press, 1, "deny")
    await eventually(lambda: [button.does for _, button in presses.heard] == ["deny"])


def test_no_markup(home: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon without markup gets the text as it is, and one without buttons none."""
    session_bus.required()
    with session_bus.running(home) as desktop:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", desktop.address)
        desktop.start_daemon("body")
        result = show(context, {"title": "t", "body": "a < b", "actions": ["deny"]})
        [seen] = desktop.seen()
    assert (seen.body, seen.actions, result.output["buttons"]) == ("a < b", [], [])


def test_no_bus(context: Context, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a session bus the step fails, says so, and is not tried again."""
    monkeypatch.setattr(notify_send, "PROGRAM", "no-such-program")
    result = show(context, "x")
    assert (result.ok, result.retryable) == (False, False)
    assert result.error == "desktop: there is no session bus"


def test_no_daemon(context: Context, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bus and no daemon the step fails; the next attempt may find one."""
    session_bus.required(daemon=False)
    monkeypatch.setattr(notify_send, "PROGRAM", "no-such-program")
    with session_bus.running(home) as desktop:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", desktop.address)
        result = show(context, "x")
    assert (result.ok, result.retryable) == (False, True)
    assert result.error == "desktop: no notification daemon is there"


def test_notify_send(context: Context, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where we cannot reach the desktop, notify-send (a stand-in) is given the text alone."""
    program = home / "bin" / "notify-send"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done >"$0.args"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    value = {"title": "${{ event.payload.unit }}", "body": "<b> \\n", "actions": ["deny"]}
    result = show(context, value, **event("--hint=string:x:y"))
    assert (result.ok, result.output["by"], result.output["buttons"]) == (True, "notify-send", [])
    assert Path(f"{program}.args").read_text().splitlines() == [
        *("--app-name=opsmesh", "--urgency=normal", "--icon=dialog-information"),
        *("--expire-time=0", "--", "--hint=string:x:y", "&lt;b&gt; \\\\n"),
    ]


def test_told_not_to_disturb(home: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the daemon says that it is told not to disturb, the step knows."""
    session_bus.required()
    with session_bus.running(home) as desktop:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", desktop.address)
        desktop.start_daemon()
        facts = (session_bus.SERVICE, "Inhibited", ("b", True))
        desktop.call(session_bus.PATH, session_bus.MOCK, "AddProperty", "ssv", *facts)
        result = show(context, "x")
    assert (result.output["shown"], result.output["inhibited"]) == (True, True)


def test_in_a_case() -> None:
    """A case of `profile test` sees what would be shown, as text."""
    step = Step(id="tell", action=Notify.parse({"title": "t", "body": "${{ event.payload.n }}"}))
    value, problems = arguments(step, {"event": {"payload": {"n": 3}}})
    assert (value["body"], problems) == ("3", [])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "title"),
        ({"title": "x", "actions": ["aprove"]}, "did you mean 'approve'?"),
        ({"title": "x", "actions": [{"label": "x", "trigger": "No Name"}]}, "trigger"),
        ({"title": "x", "icon": "../x"}, "neither an icon's name nor an absolute path"),
        ({"title": "x", "icon": "/${{ event.payload.unit }}\n"}, "neither an icon's name"),
        ({"title": "x", "to": "https://example.org/hook"}, "an address holds secrets"),
        ({"title": "x", "to": []}, "to"),
        ({"title": "${{ nope }}"}, "unknown name 'nope'"),
        ({"title": "x", "urgency": "loud"}, "urgency"),
    ],
)
def test_refused(value: Any, said: str) -> None:
    """What could never be shown is refused when the profile is loaded."""
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        Notify.parse(value)


def test_a_placeholder_without_answer(context: Context, home: Path) -> None:
    """A text that cannot be made is not tried again."""
    result = show(context, "${{ event.payload.nope }}")
    assert (result.ok, result.retryable) == (False, False)
