"""What the buttons of a notice do: they answer, judge, open evidence, or run another profile.

Whoever presses one sits at this session: it is taken for its user. A button only ever names what
its profile named when the notice was made.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from opsmesh.handlers import process
from opsmesh.handlers.desktop.notice import ANSWERS, Button, Notice
from opsmesh.handlers.feedback import feedback
from opsmesh.handlers.live import firing
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs import approvals, asking
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import trigger, user
from opsmesh.router.topology import EVENTS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids
from opsmesh.schemas.redact import Redactor

#: What opens a folder in the desktop's file manager.
OPENER: Final = "xdg-open"
#: Seconds after which an opener that has not ended is left to itself: it is the file manager.
OPENER_S: Final = 3.0
#: Where an answer came from, in its record.
VIA: Final = "notification"


class Buttons:
    """Does what a pressed button is for; `in_force` gives a profile as it acts now, or None, and
    `key` is what the tokens of this host's questions are made with."""

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        *,
        host: str,
        bundles: Path,
        redactor: Redactor,
        key: Callable[[], bytes],
        in_force: Callable[[str], Profile | None],
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._host = host
        self._bundles = bundles
        self._redactor = redactor
        self._key = key
        self._in_force = in_force

    async def press(self, notice: Notice, button: Button) -> str:
        """Do it; what is to be said of it, or ""."""
        if button.does in ANSWERS:
            return await self._answer(notice, "granted" if button.does == "approve" else "denied")
        run = await self._run(notice)
        if run is None:
            return f"{button.label}: its run is no longer on record"
        if button.does == "false_positive":
            return await self._judge(run)
        if button.does == "open_evidence":
            return await self._open(run)
        return await self._trigger(run, notice, button)

    async def _answer(self, notice: Notice, verdict: approvals.Verdict) -> str:
        question = notice.question
        if not question:
            async for one in approvals.waiting(self._client):
                if one.run.run_id == notice.run_id:
                    question = one.asked.id
        if not question:
            return "nothing of this run waits for an answer"
        try:
            await approvals.answer(
                self._client,
                question,
                verdict,
                by=user.name(),
                via=VIA,
                host=self._host,
                redactor=self._redactor,
                token=asking.token(self._key(), question),
            )
        except approvals.ApprovalError as error:
            return f"not taken: {error}"
        return ""

    async def _run(self, notice: Notice) -> Run | None:
        found = None
        async for run in self._ledger.runs(notice.profile):
            if run.run_id == notice.run_id:
                found = run
        return found

    async def _judge(self, run: Run) -> str:
        recorded = await feedback.record(
            self._client,
            run,
            "false_positive",
            host=self._host,
            redactor=self._redactor,
            profile=self._in_force(run.profile),
            by=user.name(),
            component=VIA,
        )
        told = "noted as a false positive"
        return f"{told}; {run.profile} acts no more here" if recorded.shadowed else told

    async def _open(self, run: Run) -> str:
        if not run.evidence_path:
            return "this run has no evidence yet"
        try:
            folder = await asyncio.to_thread(Path(run.evidence_path).resolve, True)
        except OSError:
            return f"its evidence is not on this host: {run.evidence_path}"
        if not folder.is_dir() or not folder.is_relative_to(self._bundles.resolve()):
            return "its evidence is no bundle of this host"
        opener = shutil.which(OPENER)
        if opener is None:
            return f"{OPENER} is not installed; the bundle is {folder}"
        opening = await asyncio.create_subprocess_exec(
            *(opener, str(folder)),
            env=process.minimal_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(OPENER_S):
                code = await opening.wait()
        except TimeoutError:
            return ""
        return f"{OPENER} cannot open {folder}" if code else ""

    async def _trigger(self, run: Run, notice: Notice, button: Button) -> str:
        if self._in_force(button.target) is None:
            return f"no profile {button.target!r} is in force"
        try:
            main = (await firing.fetch(self._client, run))[-1]
        except firing.Gone as gone:
            return f"{button.label}: {gone}"
        asked = Trigger(
            kind="manual",
            # pressed twice, it is one
            id=ids.derived(run.created_us // 1000, notice.once, button.key, button.target),
            origin=(EVENTS, run.stream_seq, run.stored_us) if run.data is None else None,
            events=run.events,
        )
        await trigger.send(self._client, button.target, main.data, asked)
        return ""
