"""What is pressed on the desktop reaches the mesh: a real bus, a real broker, and a stand-in for
the notification daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.conftest import eventually, restart, run
from tests.handlers import session_bus
from tests.handlers.approving import reply
from tests.handlers.mesh import Mesh, mesh
from tests.handlers.session_bus import Desktop, Seen

from opsmesh.handlers.desktop import notify_send
from opsmesh.handlers.desktop.board import Board
from opsmesh.handlers.desktop.questions import Questions
from opsmesh.handlers.runs import approvals
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.user import name as user

#: One process, and one set of what they share; a broker of each test's own.
pytestmark = [
    pytest.mark.xdist_group("notify_buttons"),
    pytest.mark.usefixtures("nats_server"),
]


ASKS = """
profiles:
  restart:
    on: service.start.failed
    actions:
      - id: restart
        approve: {{prompt: "Restart ${{{{ event.payload.unit }}}}?", {approve}}}
        command: ["true"]
"""

TELLS = """
profiles:
  tell:
    on: service.start.failed
    actions:
      - collect: [{command: ["true"]}]
      - notify:
          title: "${{ event.payload.unit }} failed"
          actions: [false_positive, open_evidence, approve, {label: Logs, trigger: logs}]
  logs:
    on: never.happens
    actions: [command: [echo, "${{ event.payload.unit }}"]]
"""


async def seen(desktop: Desktop, count: int = 1) -> list[Seen]:
    """What the daemon was asked to show, once there is so much."""

    async def there() -> list[Seen] | None:
        found = await asyncio.to_thread(desktop.seen)
        return found if len(found) >= count else None

    found: list[Seen] = await eventually(there)
    return found


async def noted(m: Mesh) -> Board:
    """The board of these handlers, once they know what the daemon shows: it knows first."""
    board = await m.server._services.shared.get("desktop", m.server._board)
    await eventually(lambda: board._shown)
    return board


async def press(desktop: Desktop, m: Mesh, key: str) -> None:
    """A person presses a button of the newest notice, once it is on the board."""
    board = await noted(m)
    await asyncio.to_thread(desktop.press, max(board._shown), key)


async def asked_unheard(m: Mesh) -> Questions:
    """A question is put that the desktop's side, which this gives, has not been told of."""
    questions = m.server._questions
    assert questions is not None
    assert questions._subscription is not None
    await questions._subscription.unsubscribe()
    await m.publish()
    await m.wait("automation.approval.requested")
    return questions


@pytest.mark.parametrize(("key", "verdict"), [("approve", "granted"), ("deny", "denied")])
def test_a_question_is_answered(desktop: Desktop, key: str, verdict: str) -> None:
    """A question appears by itself; a button answers it, in the name of the session's user."""

    async def body() -> None:
        async with mesh(ASKS.format(approve="expires: 10m")) as m:
            await m.publish()
            [asked] = await seen(desktop)
            assert asked.title == "Restart backup.service?"
            assert asked.body.startswith("restart, step restart\nuntil ")
            assert asked.actions == ["approve", "Approve", "deny", "Deny"]
            await press(desktop, m, key)
            [told] = await m.wait(f"automation.approval.{verdict}")
            assert (told.payload["by"], told.payload["via"]) == (user(), "notification")
            await m.wait("automation.run.succeeded")
            await eventually(desktop.closed)

    run(body())


def test_a_long_question(desktop: Desktop) -> None:
    """What does not fit into a title stands in the body."""

    async def body() -> None:
        text = ASKS.format(approve="otherwise: skip").replace(
            "Restart $", "Restart\\n" + "x" * 200 + " $"
        )
        async with mesh(text) as m:
            await m.publish()
            [asked] = await seen(desktop)
            assert asked.title.startswith("Restart xxx")
            assert asked.body.splitlines()[1] == "x" * 200 + " backup.service?"

    run(body())


def test_answered_elsewhere(desktop: Desktop) -> None:
    """A question that is answered on the command line goes from the screen."""

    async def body() -> None:
        async with mesh(ASKS.format(approve="otherwise: skip")) as m:
            await m.publish()
            await seen(desktop)
            [one] = [one async for one in approvals.waiting(m.client)]
            await reply(m.client, one)
            await eventually(desktop.closed)

    run(body())


def test_pressed_too_late(desktop: Desktop) -> None:
    """An answer that is not taken is said, and on record."""

    async def body() -> None:
        async with mesh(ASKS.format(approve="by: [somebody_else]")) as m:
            await m.publish()
            await seen(desktop)
            await press(desktop, m, "approve")
            [told] = await m.wait("automation.approval.refused")
            assert told.payload["via"] == "notification"
            *_, said = await seen(desktop, 2)
            assert said.body == f"not taken: {user()} may not answer; somebody_else may"
            assert (await m.runs())[0].state == "waiting"

    run(body())


def test_a_value_is_asked_for(desktop: Desktop) -> None:
    """A question that wants a value cannot be granted by a button, and says what can."""

    async def body() -> None:
        async with mesh(ASKS.format(approve="answer: {type: integer}")) as m:
            await m.publish()
            [asked] = await seen(desktop)
            assert asked.actions == ["deny", "Deny"]
            assert "opsmesh approve 0" in asked.body

    run(body())


def test_asked_before_we_came(desktop: Desktop) -> None:
    """Handlers that come back neither lose a question nor show it twice, and hear its button."""

    async def body() -> None:
        text = ASKS.format(approve="otherwise: skip")
        async with mesh(text) as m:
            await m.publish()
            await seen(desktop)
            await noted(m)
        async with mesh(text) as m:
            await press(desktop, m, "approve")
            await m.wait("automation.approval.granted")
        assert len(desktop.seen()) == 1

    run(body())


def test_told_while_we_look(desktop: Desktop) -> None:
    """A question that two hear of at once is put on the screen once."""

    async def body() -> None:
        async with mesh(ASKS.format(approve="otherwise: skip")) as m:
            questions = await asked_unheard(m)
            await asyncio.gather(questions._show_all(), questions._show_all())
            assert len(desktop.seen()) == 1

    run(body())


def test_no_desktop_at_first(
    nats_server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question waits for a desktop as well: it is shown when a notification daemon appears."""
    session_bus.required()
    monkeypatch.setattr(notify_send, "PROGRAM", "no-such-program")

    async def body(desktop: Desktop) -> None:
        async with mesh(ASKS.format(approve="otherwise: skip")) as m:
            await m.publish()
            await m.wait("automation.approval.requested")
            board = await m.server._services.shared.get("desktop", m.server._board)
            await eventually(lambda: board._daemon.bus_id)
            await asyncio.to_thread(desktop.start_daemon)
            [asked] = await seen(desktop)
            assert asked.title == "Restart backup.service?"

    with session_bus.running(home) as desktop:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", desktop.address)
        run(body(desktop))


def test_told_while_we_were_cut_off(desktop: Desktop, nats_server: EmbeddedServer) -> None:
    """A question that was told while the connection was broken is shown after the reconnect."""

    async def body() -> None:
        async with mesh(ASKS.format(approve="otherwise: skip")) as m:
            await asked_unheard(m)
            assert desktop.seen() == []
            await restart(m.client, nats_server)
            await seen(desktop)

    run(body())


def test_hidden_by_the_settings(desktop: Desktop, monkeypatch: pytest.MonkeyPatch) -> None:
    """`notify.approvals: hide` keeps questions off the desktop."""
    monkeypatch.setenv("OPSMESH_NOTIFY__APPROVALS", "hide")

    async def body() -> None:
        async with mesh(ASKS.format(approve="expires: 200ms")) as m:
            await m.publish()
            await m.wait("automation.approval.expired")
            assert desktop.seen() == []

    run(body())


def test_false_positive(desktop: Desktop) -> None:
    """The button judges the run."""

    async def body() -> None:
        async with mesh(TELLS) as m:
            cause = await m.publish()
            await m.wait("automation.run.succeeded")
            await press(desktop, m, "false_positive")
            [told] = await m.wait("automation.feedback.recorded")
            [of] = await m.runs()
            assert told.payload["verdict"] == "false_positive"
            assert (told.payload["run"], told.payload["by"]) == (of.run_id, user())
            assert told.correlation_id == cause.correlation_id

    run(body())


def test_open_evidence(desktop: Desktop, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The button opens the run's bundle with xdg-open (a stand-in)."""
    program, out = home / "bin" / "xdg-open", home / "opened"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >{out}\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    async def body() -> None:
        async with mesh(TELLS) as m:
            await m.publish()
            await m.wait("automation.run.succeeded")
            await press(desktop, m, "open_evidence")
            await eventually(lambda: out.exists() and out.read_text())
            [of] = await m.runs()
            assert out.read_text().strip() == of.evidence_path

    run(body())


def test_trigger_button(desktop: Desktop) -> None:
    """One's own button runs the profile that it names with the same event, once."""

    async def body() -> None:
        async with mesh(TELLS) as m:
            cause = await m.publish()
            await m.wait("automation.run.succeeded")
            for _ in range(2):
                await press(desktop, m, "trigger-3")
            await m.wait("automation.run.succeeded", 2)
            [of] = [one for one in await m.runs() if one.profile == "logs"]
            assert of.event_id == cause.id
            assert of.steps[0].output["stdout"] == "backup.service\n"

    run(body())


def test_nothing_to_answer(desktop: Desktop) -> None:
    """An answer for a run that asks nothing says so."""

    async def body() -> None:
        async with mesh(TELLS) as m:
            await m.publish()
            await m.wait("automation.run.succeeded")
            await press(desktop, m, "approve")
            *_, said = await seen(desktop, 2)
            assert said.body == "nothing of this run waits for an answer"

    run(body())
