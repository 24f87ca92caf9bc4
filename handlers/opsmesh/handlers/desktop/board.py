"""What is on this desktop: one notice a group, and what its buttons are for.

One for a handlers process. It is kept in the runtime folder, which lives as long as the session:
a handler that comes after us knows what the buttons of a notice on the screen are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog

from opsmesh.handlers.desktop import notify_send, rates, text
from opsmesh.handlers.desktop.daemon import Changed, Closed, Daemon, Pressed, Signal
from opsmesh.handlers.desktop.notice import ANSWERS, Button, Notice, Shown
from opsmesh.handlers.errors import DesktopAway
from opsmesh.router import paths, tasks
from opsmesh.schemas import times

#: Notices that are remembered, the newest.
MOST: Final = 200
#: Seconds for which a group is counted on when its notice has expired and nobody waved it away.
GROUP_S: Final = 3600.0
#: Those of them with buttons that another daemon is shown again.
AGAIN: Final = 10
#: Deliveries beyond the desktop that are remembered, so that a retry does not send them again.
SENT: Final = 1000
#: Characters of what is said of a button that was pressed.
SAID: Final = 300
#: What is kept of them, by whether the process works at the hub of a leaf host: each has a board.
FILES: Final = ("notices.json", "notices-hub.json")

#: Does what a button is for; what a person is told of it, or "".
Press = Callable[[Notice, Button], Awaitable[str]]

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a notice was shown: `by` whom, as which number of its group, with buttons or without."""

    by: str
    id: int = 0
    count: int = 1
    buttons: tuple[str, ...] = ()
    inhibited: bool = False


@dataclass(eq=False)
class Board:
    """Shows notices. Without `press` there are no buttons."""

    per_minute: int
    press: Press | None = None
    file: Path | None = None
    clock: Callable[[], float] = time.monotonic
    #: Called when a notification daemon has appeared.
    appeared: Callable[[], None] | None = None
    _shown: dict[int, Shown] = field(default_factory=dict)
    _said: dict[str, rates.Said] = field(default_factory=dict)
    _sent: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._resuming: asyncio.Task[None] | None = None
        self._signals: asyncio.Queue[Signal] = asyncio.Queue()
        self._daemon = Daemon(self._signals.put_nowait)
        #: Held while a notice is on its way: a button may be pressed before its id is known here.
        self._showing = asyncio.Lock()
        self._hearing = asyncio.create_task(self._hear())

    @classmethod
    async def plain(cls, per_minute: int) -> Board:
        """One without buttons, that leaves nothing behind."""
        return cls(per_minute)

    def resume(self) -> None:
        """Take up what a predecessor has left on the screen."""
        left = self._load()
        if any(shown.notice.buttons for shown in left):
            self._resuming = self._do(self._take_up(left))

    async def settled(self) -> None:
        """Return once what a predecessor has left is taken up."""
        if self._resuming is not None:
            await asyncio.wait([self._resuming])

    def admit(self, notice: Notice) -> int | None:
        """Whether the notice's profile may say something now: how many were held back before, or
        None when this one is; it is then counted in its group."""
        said = self._said.get(notice.profile, rates.Said())
        after, held = rates.admit(said, self.clock(), per_minute=self.per_minute)
        self._said[notice.profile] = after
        if held is None and (known := self._of_group(notice.group)) is not None:
            known.count += known.notice.once != notice.once
        return held

    def take_back(self, notice: Notice, held: int) -> None:
        """What was let through has reached nobody: it counts for nothing, and neither has anybody
        been told how many were held back."""
        said = self._said[notice.profile]
        self._said[notice.profile] = rates.Said(times=said.times[:-1], held=said.held + held)

    async def show(self, notice: Notice, *, held: int = 0) -> Outcome:
        """Put it on the screen; DesktopAway when there is none. `held` were held back before."""
        async with self._showing:
            known = self._of_group(notice.group)
            count = 1
            if known is not None and not _over(known):
                count = known.count + (known.notice.once != notice.once)
            try:
                return await self._put(Shown(notice=notice, count=count), known, held=held)
            except DesktopAway as away:
                if not notify_send.found():
                    raise
                await self._send(notice, worded(notice, count, held), away)
                return Outcome(by=notify_send.PROGRAM, count=count)

    def questions(self) -> set[str]:
        """The questions that are on the screen."""
        there = (one.notice.question for one in self._shown.values() if not one.expired)
        return {question for question in there if question}

    async def close(self, *, question: str, run_id: str = "") -> None:
        """Take the notice of a question away that has ended, and those of its run that are there
        to answer it and for nothing else."""
        async with self._showing:
            for shown in list(self._shown.values()):
                notice = shown.notice
                answers = all(button.does in ANSWERS for button in notice.buttons)
                of_run = run_id and notice.run_id == run_id and notice.buttons and answers
                if notice.question == question or (of_run and not notice.question):
                    await self._close(shown)

    def was_sent(self, once: str, target: str) -> bool:
        """Whether a notice has gone to a target already."""
        return (once, target) in self._sent

    def note_sent(self, once: str, target: str) -> None:
        """It has."""
        self._sent[once, target] = None
        if len(self._sent) > SENT:
            self._sent.popitem(last=False)

    async def aclose(self) -> None:
        """Hear no more; what is on the screen stays there."""
        await tasks.end([self._hearing, *self._tasks])
        await self._daemon.aclose()

    async def _put(self, shown: Shown, old: Shown | None = None, *, held: int = 0) -> Outcome:
        notice = shown.notice
        about = await self._daemon.about()
        pressable = self.press is not None and "actions" in about.capabilities
        title, body = worded(notice, shown.count, held)
        markup = "body-markup" in about.capabilities
        known = old is not None and self._is_there(old) and not old.expired
        shown.id = await self._daemon.show(
            title,
            text.escaped(body) if markup else body,
            replaces=old.id if old is not None and known else 0,
            icon=notice.icon,
            actions=[(one.key, one.label) for one in notice.buttons] if pressable else [],
            urgency=notice.urgency,
            resident=pressable and notice.resident,
            timeout_ms=notice.timeout_ms,
        )
        shown.bus, shown.owner = self._daemon.bus_id, self._daemon.owner
        shown.at_us = times.now_us()
        if old is not None:
            self._shown.pop(old.id, None)
        self._shown[shown.id] = shown
        while len(self._shown) > MOST:
            self._shown.pop(next(iter(self._shown)))
        self._save()
        return Outcome(
            by=about.name,
            id=shown.id,
            count=shown.count,
            buttons=tuple(one.key for one in notice.buttons) if pressable else (),
            inhibited=await self._daemon.inhibited(),
        )

    async def _send(self, notice: Notice, words: tuple[str, str], away: DesktopAway) -> None:
        try:
            await notify_send.show(notice, *words)
        except DesktopAway as also:
            raise DesktopAway(f"{away}; {also}", retryable=away.retryable) from away

    def _of_group(self, group: str) -> Shown | None:
        return next((one for one in self._shown.values() if one.notice.group == group), None)

    async def _hear(self) -> None:
        while True:
            signal = await self._signals.get()
            try:
                async with self._showing:
                    await self._take(signal)
            except Exception:  # the next one is heard all the same
                log.exception("desktop.signal_failed", signal=str(signal))

    async def _take(self, signal: Signal) -> None:
        match signal:
            case Pressed(id, key):
                self._pressed(id, key)
            case Closed(id, expired):
                if (shown := self._shown.get(id)) is not None:
                    shown.expired = expired
                    if not expired:
                        self._shown.pop(id)
                    self._save()
            case Changed(owner):
                await self._changed(owner)

    def _pressed(self, id: int, key: str) -> None:
        shown = self._shown.get(id)
        if shown is None or self.press is None:
            return
        button = next((one for one in shown.notice.buttons if one.key == key), None)
        if button is not None:
            self._do(self._press(shown, button, self.press))

    async def _press(self, shown: Shown, button: Button, press: Press) -> None:
        notice = shown.notice
        failed = False
        try:
            said = await press(notice, button)
        except Exception as error:  # the broker is away, most likely
            log.exception("desktop.button_failed", button=button.key, profile=notice.profile)
            failed, said = True, f"{button.label}: {type(error).__name__}: {error}"
        log.info("desktop.pressed", button=button.key, profile=notice.profile, run=notice.run_id)
        async with self._showing:
            if button.does in ANSWERS:
                await self._close(shown)
                if failed:  # it is not answered
                    await self._again([shown])
        if said:
            with contextlib.suppress(DesktopAway):
                about = await self._daemon.about()
                words = text.clean(said)[:SAID]
                if "body-markup" in about.capabilities:
                    words = text.escaped(words)
                await self._daemon.show(notice.title, words, urgency="low")

    async def _close(self, shown: Shown) -> None:
        self._shown.pop(shown.id, None)
        self._save()
        with contextlib.suppress(DesktopAway):
            await self._daemon.close(shown.id)

    def _is_there(self, shown: Shown) -> bool:
        return (shown.bus, shown.owner) == (self._daemon.bus_id, self._daemon.owner)

    async def _changed(self, owner: str) -> None:
        """The daemon that gave the ids is gone; its successor gets what has buttons again."""
        lost = [one for one in self._shown.values() if not self._is_there(one)]
        if not owner:  # until there is one
            return
        for one in lost:
            self._shown.pop(one.id, None)
        await self._again(lost)
        if self.appeared is not None:
            self.appeared()

    async def _again(self, lost: list[Shown]) -> None:
        for shown in [one for one in lost if one.notice.buttons][-AGAIN:]:
            with contextlib.suppress(DesktopAway):
                await self._put(Shown(notice=shown.notice, count=shown.count))

    async def _take_up(self, left: list[Shown]) -> None:
        async with self._showing:
            try:
                await self._daemon.join()
                left = [one for one in left if one.bus == self._daemon.bus_id]  # this session's
                if not left:
                    return
                about = await self._daemon.about()
            except DesktopAway as away:
                log.info("desktop.away", reason=str(away))
                return
            alive = [] if about.sender_bound else [one for one in left if self._is_there(one)]
            self._shown = {one.id: one for one in alive} | self._shown
            dead = [one for one in left if one not in alive]
            if dead:  # their buttons do nothing any more
                log.info("desktop.shown_again", daemon=about.name, notices=len(dead))
            for one in dead:
                if self._is_there(one):
                    with contextlib.suppress(DesktopAway):
                        await self._daemon.close(one.id)
            await self._again(dead)

    def _do(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _load(self) -> list[Shown]:
        if self.file is None:
            return []
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=list[Shown])
        except (OSError, msgspec.DecodeError):
            return []

    def _save(self) -> None:
        if self.file is None:
            return
        fresh = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            paths.private_dir(str(self.file.parent))
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(list(self._shown.values())))
            fresh.replace(self.file)
        except OSError as error:  # what is shown is shown; a successor will not know its buttons
            log.warning("desktop.not_kept", error=str(error))


def _over(shown: Shown) -> bool:
    return shown.expired and shown.at_us < times.now_us() - round(GROUP_S * 1e6)


def worded(notice: Notice, count: int, held: int) -> tuple[str, str]:
    """Title and body, with how many of its group there were, and how many nobody saw."""
    title = notice.title if count == 1 else f"{count} × {notice.title}"
    if not held:
        return title, notice.body
    more = f"({held} more of {notice.profile} {'was' if held == 1 else 'were'} held back)"
    return title, f"{notice.body}\n{more}".strip()
