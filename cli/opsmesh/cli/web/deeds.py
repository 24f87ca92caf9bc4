"""What is done from the page: the same calls as the command line's, on record as such.

The one rule: nothing here has a way of its own; who may, and what is told, is decided where the
command line's calls go.
"""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

from opsmesh.cli.dlq import ready
from opsmesh.cli.dlq.settle import Act, Settled, settle
from opsmesh.cli.said import person
from opsmesh.handlers.runs import approvals
from opsmesh.handlers.runs.approvals import Verdict
from opsmesh.router import redaction
from opsmesh.router.settings import Settings

#: The surface, in records.
VIA = "web"


class Refusal(Exception):
    """It was not done; `hint` is what a person can do."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


async def answer(
    client: Client, settings: Settings, approval_id: str, verdict: Verdict, *, body: dict[str, Any]
) -> dict[str, Any]:
    """Answer a question, in the name of the user who runs this server. ApprovalError."""
    done = await approvals.answer(
        client,
        approval_id,
        verdict,
        by=person(),
        via=VIA,
        host=settings.host,
        redactor=redaction.load(settings),
        value=body.get("value"),
        comment=str(body.get("comment") or ""),
    )
    return {"run": done.run.run_id, "verdict": verdict, "new": done.new}


async def letter(
    client: Client, settings: Settings, seq: int, act: Act, *, comment: str
) -> dict[str, Any]:
    """Send a dead letter again, or give it up. Refusal when that cannot be, BrokenProfiles when
    nobody can know what it would do."""
    so_far = Settled(wanted=1)
    known = await ready.look(client) if act == "retry" else None
    refuse = known.refuse if known is not None else lambda letter: None
    await settle(client, settings, [seq], act, comment=comment, refuse=refuse, so_far=so_far)
    if so_far.refused:
        raise Refusal(so_far.refused[0].why, hint=so_far.refused[0].hint)
    if so_far.gone:
        raise Refusal(f"there is no dead letter {seq} any more")
    return {"seq": seq, "act": act}
