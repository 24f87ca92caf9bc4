"""A view filled by hand, and what is on the screen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.conftest import eventually
from textual.pilot import Pilot
from textual.widgets import Input

from opsmesh.cli.dlq.settle import Act
from opsmesh.cli.health import Health
from opsmesh.cli.top.app import Top
from opsmesh.cli.top.doing import Doing, NotDone
from opsmesh.cli.top.screens import Ask
from opsmesh.cli.view.model import ProfileView, SeenEvent, View
from opsmesh.handlers.runs.approvals import Open, Verdict
from opsmesh.handlers.runs.ledger import Asked, Run, StepRecord
from opsmesh.router.deadletter import Letter
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event

SIZE = (80, 24)


class Recorded(Doing):
    """A stand-in: notes what it is told to do; `refuses` is said instead of doing it."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__(Settings(host="desk"), lambda: None)
        self.done: list[tuple[Any, ...]] = []
        self._refuses = refuses

    async def answer(
        self, approval_id: str, verdict: Verdict, *, comment: str = "", value: Any = None
    ) -> str:
        return self._note(verdict, comment, value)

    async def settle(self, seqs: Sequence[int], act: Act, *, comment: str = "") -> str:
        return self._note(act, list(seqs), comment)

    def _note(self, *facts: Any) -> str:
        if self._refuses:
            raise NotDone(self._refuses)
        self.done.append(facts)
        return "it is done"


def event(topic: str = "python.test.failed", **more: Any) -> Event:
    """An event of this moment."""
    id = ids.uuid7()
    facts: dict[str, Any] = {
        "source": "pytest",
        "correlation_id": id,
        "severity": "error",
        "payload": {"nodeid": "test_sums.py::test_sum"},
    }
    return Event(
        topic=topic,
        ts_utc=times.format_us(times.now_us()),
        component="test",
        host="desk",
        session_id="",
        workspace="",
        id=id,
        **{**facts, **more},
    )


def see(view: View, topic: str = "python.test.failed", **more: Any) -> Event:
    """Have the view hear of one more event."""
    seq = view.events[-1].seq + 1 if view.events else 1
    one = event(topic, **more)
    subject = f"evt.desk.{topic}"
    view.see(SeenEvent(seq=seq, stored_us=times.now_us(), subject=subject, event=one))
    return one


def question(schema: dict[str, Any] | None = None) -> Open:
    """A question that waits."""
    now_us = times.now_us()
    asked = Asked(
        id=ids.uuid7(),
        name="ask",
        prompt="Restart backup.service?",
        asked_us=now_us - 60_000_000,
        expires_us=now_us + 3_600_000_000,
        otherwise="skip",
        token_sha256="",
        schema=schema,
    )
    step = StepRecord(id="ask", action="approve", state="asked", started_us=now_us, asked=(asked,))
    return Open(run("restart", state="waiting", steps=[step]), step, asked)


def run(profile: str, **more: Any) -> Run:
    """A run of this moment."""
    now_us = times.now_us()
    more.setdefault("correlation_id", "")
    return Run(
        run_id=ids.uuid7(),
        profile=profile,
        profile_hash="",
        event_id=ids.uuid7(),
        topic="service.start.failed",
        host="desk",
        stream_seq=1,
        created_us=now_us,
        updated_us=now_us,
        **more,
    )


def letter(seq: int = 17) -> Letter:
    """A dead letter, without its event."""
    return Letter(
        seq=seq,
        stored_us=times.now_us() - 120_000_000,
        profile="tell-me",
        profile_hash="",
        event_id="",
        topic="python.test.failed",
        host="desk",
        reason="command 'notify-send' is not found",
        errors=[{}],
        run_id="",
        origin="",
        origin_seq=0,
        origin_us=0,
        data=b"{}",
        headers={},
    )


def profile(name: str, **more: Any) -> ProfileView:
    """A profile that is well."""
    facts: dict[str, Any] = {"verdict": "ok", "detail": "", "fix": "", "waiting": 0}
    return ProfileView(name=name, kind="profile", state="enabled", **{**facts, **more})


def filled() -> View:
    """A mesh in which there is one of everything."""
    view = View(connected=True)
    see(view)
    view.run(run("first-aid", state="succeeded", duration_ms=91.0))
    view.letters = [letter()]
    view.approvals = [question()]
    view.profiles = {"first-aid": profile("first-aid", runs=4, succeeded=3, failed=1)}
    component = {"name": "producer:journal", "state": "running", "pid": 7, "restarts": 0}
    view.health = Health(components=[{**component, "last_exit": None}])
    view.touch()
    return view


@asynccontextmanager
async def top(view: View, doing: Doing | None = None, **more: Any) -> AsyncIterator[Pilot[None]]:
    """`opsmesh top` of that view, on a terminal of 80×24."""
    app = Top(view, doing or Recorded(), **more)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.pause()
        yield pilot


async def shows(pilot: Pilot[None], text: str) -> None:
    """Wait until the screen shows it: it is drawn some steps after what has changed it."""
    await eventually(lambda: text in screen(pilot))


async def asks(pilot: Pilot[None]) -> None:
    """Return once a question takes what is typed: keys before that go to the list below it."""
    await eventually(
        lambda: isinstance(pilot.app.screen, Ask) and isinstance(pilot.app.focused, Input)
    )


def screen(pilot: Pilot[None]) -> str:
    """What is on the screen, line by line."""
    # there is no public way to the text of it
    strips = pilot.app.screen._compositor.render_strips(pilot.app.size)
    return "\n".join(strip.text for strip in strips)
