"""`opsmesh top` on a terminal of 80×24, over a view that was filled by hand."""

from __future__ import annotations

import sys
from functools import partial

import pytest

pytest.importorskip("textual", reason="textual is not installed: make extras")

from tests.cli.conftest import Cli
from tests.cli.top.seen import (
    Recorded,
    asks,
    filled,
    letter,
    profile,
    question,
    run,
    screen,
    see,
    shows,
    top,
)
from tests.conftest import eventually
from tests.conftest import run as go
from textual.widgets import Input

from opsmesh.cli.top import keys
from opsmesh.cli.top.app import Top
from opsmesh.cli.top.screens import Details


def test_every_view_fits() -> None:
    """The keys 1 to 7 show the views; each has its row, and the keys that help."""

    async def body() -> None:
        async with top(filled()) as pilot:

            def there(row: str) -> bool:
                return any(row in " ".join(one.split()) for one in screen(pilot).splitlines())

            for key, row in (
                ("1", "python.test.failed"),
                ("2", "first-aid enabled 0 4 75%"),
                ("3", "succeeded first-aid"),
                ("4", "command 'notify-send'…"),
                ("5", "Restart backup.service?"),
                ("6", "journal running"),
                ("7", "producer:journal"),
            ):
                await pilot.press(key)
                await eventually(partial(there, row))
                found = screen(pilot).splitlines()
                assert len(found) == 24
                assert "? help" in found[-1]

    go(body())


def test_news_while_it_ends() -> None:
    """What comes while the screen is taken down is not drawn, and is no fault: the widgets of an
    app go before its timers do."""
    view = filled()

    async def body() -> None:
        async with top(view) as pilot:
            assert isinstance(pilot.app, Top)
            await pilot.app.rows.remove()
            view.touch()
            pilot.app.look()

    go(body())


def test_what_is_wrong_comes_first() -> None:
    """The verdict, and the first problem with what mends it, stand above everything."""
    view = filled()
    assert view.health is not None
    view.health.verdict = "degraded"
    view.health.problem("the agent hangs", "opsmesh doctor")
    view.health.problem("another", "see it")

    async def body() -> None:
        async with top(view) as pilot:
            first, second, tabs = screen(pilot).splitlines()[:3]
            assert "▲ degraded" in first
            assert second.strip() == "✗ the agent hangs → opsmesh doctor  (+1: 7)"
            assert "4 dlq 1  5 approvals 1" in tabs

    go(body())


def test_what_was_lost_is_told() -> None:
    """The view of the mesh tells what was lost and what can be done, and what waits for its tool
    stands last."""
    view = filled()
    assert view.health is not None
    view.health.gaps = [{"what": "pytest lost 12 events", "fix": "opsmesh dlq ls", "filled": ""}]
    waiting = {"name": "producer:yazi", "state": "waiting", "last_exit": "ya is not on PATH"}
    view.health.components.insert(0, {**view.health.components[0], **waiting})

    async def body() -> None:
        async with top(view, start="mesh") as pilot:
            rows = [line.split() for line in screen(pilot).splitlines()[3:] if line.strip()]
            assert " ".join(rows[0][:5]) == "loss pytest lost 12 events"
            assert [row[0] for row in rows[:4]] == ["loss", "process", "host", "process"]
            assert "ya is not on PATH" in " ".join(rows[3])
            await pilot.press("enter")
            await shows(pilot, "mend it     opsmesh dlq ls")

    go(body())


def test_a_broker_that_is_away_is_said() -> None:
    """Without a broker the view stays as it was, and says that it is from before."""
    view = filled()

    async def body() -> None:
        async with top(view) as pilot:
            view.connected = False
            view.touch()
            await shows(pilot, "✗ the broker is away; what is shown is from before")
            assert "python.test.failed" in screen(pilot)

    go(body())


def test_a_filter_is_typed() -> None:
    """What is typed after / takes effect with each key; Enter keeps it, Esc takes it away."""
    view = filled()
    see(view, "shell.command.failed")

    async def body() -> None:
        async with top(view) as pilot:
            await pilot.press("slash", *"shell.>")
            await eventually(lambda: "python.test.failed" not in screen(pilot))
            await pilot.press("enter")
            await shows(pilot, "1 of 2  /shell.>")
            await pilot.press("escape")
            await shows(pilot, "python.test.failed")
            await pilot.press("slash", *"zz", "escape")
            await eventually(lambda: "/zz" not in screen(pilot))

    go(body())


def test_the_newest_is_stayed_at_until_somebody_reads() -> None:
    """At the last event the view follows; one row up it stands still and counts; G goes on."""
    view = filled()
    for n in range(50):
        see(view, payload={"n": n})

    async def body() -> None:
        async with top(view) as pilot:
            see(view, payload={"n": "fresh"})
            await shows(pilot, "n=fresh")
            await pilot.press("k")
            for n in range(1000):
                see(view, payload={"n": f"late{n}"})
            await shows(pilot, "paused, 1,000 new")
            assert "n=late" not in screen(pilot)
            await pilot.press("G")
            await shows(pilot, "n=late999")
            assert "paused" not in screen(pilot)
            await pilot.press("space")
            await shows(pilot, "paused, 0 new")

    go(body())


def test_the_cursor_stays_at_its_row() -> None:
    """A row that comes before does not move what somebody looks at."""
    view = filled()

    async def body() -> None:
        async with top(view, start="runs") as pilot:
            app = pilot.app
            assert isinstance(app, Top)
            view.run(run("second", state="running"))
            await eventually(lambda: len(app.rows.items) == 2)
            await pilot.press("g")
            await eventually(lambda: app.rows.cursor == 0)
            at = app.rows.current
            early = run("early")
            early.created_us = 1
            view.run(early)
            await eventually(lambda: len(app.rows.items) == 3)
            assert app.rows.current is at
            assert app.rows.cursor == 1

    go(body())


def test_enter_tells_all() -> None:
    """Enter shows the row whole, as its command does; Esc goes back; it is told anew."""
    view = filled()
    seen = view.events[-1].event
    assert seen is not None

    async def body() -> None:
        async with top(view) as pilot:
            await pilot.press("enter")
            await shows(pilot, f'"id": "{seen.id}"')
            assert "events · python.test.failed" in screen(pilot)
            await pilot.press("j", "k", "G", "g", "escape")
            await shows(pilot, "? help")

    go(body())


def test_yes_takes_a_comment() -> None:
    """y asks for a comment and answers; what became of it is said."""
    doing = Recorded()

    async def body() -> None:
        async with top(filled(), doing, start="approvals") as pilot:
            await pilot.press("y")
            await shows(pilot, "Yes to restart?")
            await asks(pilot)
            await pilot.press(*"go on", "enter")
            await shows(pilot, "it is done")
            assert doing.done == [("granted", "go on", None)]

    go(body())


def test_a_value_is_asked_for() -> None:
    """A question with a schema takes JSON; what is none is said, and nothing is done."""
    view, doing = filled(), Recorded()
    view.approvals = [question({"type": "string"})]

    async def body() -> None:
        async with top(view, doing, start="approvals") as pilot:

            def at(name: str) -> bool:
                return pilot.app.focused is not None and pilot.app.focused.id == name

            await pilot.press("y")
            await asks(pilot)
            await pilot.press(*"main", "enter")
            await eventually(lambda: at("comment"))
            await pilot.press("enter")
            await shows(pilot, "no JSON")
            assert doing.done == []
            await eventually(lambda: at("value"))
            await pilot.press("home", '"', "end", '"', "enter")
            await eventually(lambda: at("comment"))
            await pilot.press("enter")
            await eventually(lambda: doing.done == [("granted", "", "main")])

    go(body())


@pytest.mark.parametrize(
    ("press", "done"),
    [
        (["d", "escape"], []),
        (["n"], []),
        (["r", "enter"], [("retry", [17], "")]),
        (["enter", "d", "o", "k", "enter"], [("drop", [17], "ok")]),
        (["R", "enter"], [("retry", [17, 18], "")]),
        (["slash", "1", "8", "enter", "D", "enter"], [("drop", [18], "")]),
    ],
)
def test_a_letter_is_settled_when_it_is_meant(press: list[str], done: list[object]) -> None:
    """r and d ask before anything is done, over a letter that is shown whole too; R and D take
    every letter that the filter shows."""
    doing, view = Recorded(), filled()
    view.letters = [letter(17), letter(18)]

    async def body() -> None:
        async with top(view, doing, start="dlq") as pilot:
            await pilot.press("g")
            for key in press[:-1]:
                await pilot.press(key)
                # what the key opens, or leaves, is there before the next one comes
                if key in ("r", "d", "R", "D"):
                    await asks(pilot)
                elif key == "slash":
                    await eventually(lambda: isinstance(pilot.app.focused, Input))
                elif key == "enter" and press[0] == "slash":
                    await eventually(lambda: not isinstance(pilot.app.focused, Input))
                elif key == "enter":
                    await eventually(lambda: isinstance(pilot.app.screen, Details))
            await pilot.press(press[-1])
            await eventually(lambda: doing.done == done)

    go(body())


def test_what_could_not_be_done_is_said() -> None:
    """A refusal is shown with what to do about it, and the view goes on."""

    async def body() -> None:
        async with top(filled(), Recorded("it is too late"), start="dlq") as pilot:
            await pilot.press("d")
            await asks(pilot)
            await pilot.press("enter")
            await shows(pilot, "it is too late")

    go(body())


def test_views_by_name() -> None:
    """After : the beginning of a view's name is enough; another word is told from them."""

    async def body() -> None:
        async with top(filled()) as pilot:
            await pilot.press("colon", *"ru", "enter")
            await shows(pilot, "succeeded    first-aid")
            await pilot.press("colon", *"zz", "enter")
            await shows(pilot, "no view 'zz'")
            await pilot.press("tab")
            await shows(pilot, "notify-send")

    go(body())


def test_what_belongs_to_it() -> None:
    """f leads from a profile to its runs, and from a run to its events."""
    view = filled()
    view.run(run("other", correlation_id="c-1"))
    see(view, "service.start.failed", correlation_id="c-1")
    view.profiles["other"] = profile("other")

    async def body() -> None:
        async with top(view, start="profiles") as pilot:
            await pilot.press("j", "f")
            await shows(pilot, "1 of 2  /other")
            await pilot.press("f")
            await shows(pilot, "1 of 2  /c-1")
            assert "service.start.failed" in screen(pilot)

    go(body())


def test_help_fits() -> None:
    """? shows every key on a screen of 80×24."""

    async def body() -> None:
        async with top(filled()) as pilot:
            await pilot.press("question_mark")
            for _, several in keys.HELP:
                for key, does in several:
                    await shows(pilot, key)
                    await shows(pilot, does)

    go(body())


def test_text_is_no_markup() -> None:
    """What looks like markup, in a payload and in a letter, is text."""
    view = filled()
    see(view, payload={"m": "[bold]x[/nothing]"})
    view.letters = [letter()]

    async def body() -> None:
        async with top(view) as pilot:
            await shows(pilot, "m=[bold]x[/nothing]")
            await pilot.press("enter")
            await shows(pilot, "[bold]x[/nothing]")

    go(body())


def test_without_the_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Textual the command says what to install."""
    monkeypatch.setitem(sys.modules, "textual", None)
    for name in ("opsmesh.cli.top.app", "opsmesh.cli.top.rows"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = cli("top")
    assert found.exit_code == 1
    assert "pip install 'opsmesh[tui]'" in " ".join(found.stderr.split())


def test_without_a_terminal(cli: Cli) -> None:
    """In a script it ends with what a script calls instead."""
    found = cli("top")
    assert (found.exit_code, "opsmesh status --json" in found.stderr) == (2, True)
