"""What a person does in `top`: answers, retries, drops. Each by the way that its command goes.

The one rule: what could not be done is said with what to do about it, and is never an exception
that ends the view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from nats.aio.client import Client

from opsmesh.cli.dlq import ready
from opsmesh.cli.dlq.settle import Act, Settled, settle
from opsmesh.cli.dlq.text import numbers
from opsmesh.cli.said import person
from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.runs import approvals
from opsmesh.handlers.runs.approvals import Verdict
from opsmesh.router import deadletter, redaction
from opsmesh.router.connection import AWAY
from opsmesh.router.deadletter import Letter
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Settings
from opsmesh.schemas.errors import SchemaError

#: The surface that answers are given on.
VIA: Final = "top"
DONE: Final[dict[Act, str]] = {"retry": "sent again", "drop": "dropped"}


class NotDone(Exception):
    """Something could not be done; the text says why, and what is next."""


class Doing:
    """Does it over the view's own connection. `client` gives it, None while the broker is away."""

    def __init__(self, settings: Settings, client: Callable[[], Client | None]) -> None:
        self._settings = settings
        self._client = client

    async def answer(
        self, approval_id: str, verdict: Verdict, *, comment: str = "", value: Any = None
    ) -> str:
        """Answer a question; what is to be said of it."""
        client = self._there()
        try:
            done = await approvals.answer(
                client,
                approval_id,
                verdict,
                by=person(),
                via=VIA,
                host=self._settings.host,
                redactor=redaction.load(self._settings),
                value=value,
                comment=comment,
            )
        except (HandlersError, RouterError, SchemaError, *AWAY) as error:
            raise NotDone(_why(error)) from error
        return f"{done.run.profile}: {verdict}" if done.new else "answered before; nothing changes"

    async def settle(self, seqs: Sequence[int], act: Act, *, comment: str = "") -> str:
        """Send dead letters again, or give them up; what is to be said of it."""
        client, so_far = self._there(), Settled(wanted=len(seqs))
        try:
            notes = ""
            more: dict[str, Any] = {}
            if act == "retry":
                known = await ready.look(client)
                more["refuse"] = known.refuse
                if await ready.nobody_takes(client):
                    notes = "; no handlers answer, the run begins when they do"
            await settle(client, self._settings, seqs, act, comment=comment, so_far=so_far, **more)
        except (HandlersError, RouterError, SchemaError, *AWAY) as error:
            raise NotDone(_why(error)) from error
        done = f"{DONE[act]}: {numbers([one.seq for one in so_far.done])}" if so_far.done else ""
        if so_far.refused:
            first = so_far.refused[0]
            stay = numbers([one.letter.seq for one in so_far.refused])
            raise NotDone("\n".join(filter(None, [done, f"{stay} stays: {first.why}", first.hint])))
        return f"{done}{notes}" if done else "gone already: somebody else has settled it"

    async def whole(self, letter: Letter) -> Letter:
        """The letter with its event, which the view has not; as it is while the broker is away."""
        try:
            return await deadletter.get(self._there(), letter.seq) or letter
        except (NotDone, RouterError, *AWAY):
            return letter

    def _there(self) -> Client:
        client = self._client()
        if client is None:
            raise NotDone("the broker is away; nothing was done")
        return client


def _why(error: Exception) -> str:
    hint = str(getattr(error, "hint", ""))
    text = str(error) or type(error).__name__
    return f"{text}\n{hint}" if hint else text
