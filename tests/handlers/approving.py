"""A profile that asks a person: its text, what waits, an answer and what has run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nats.aio.client import Client
from tests.conftest import eventually, mesh_client
from tests.handlers.mesh import Mesh, mesh

from opsmesh.handlers.runs import approvals
from opsmesh.handlers.runs.approvals import Open
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router import redaction
from opsmesh.router.settings import Settings

TEXT = """
profiles:
  restart:
    on: service.start.failed
    {more}
    actions:
      - id: restart
        approve: {{prompt: "Restart ${{{{ event.payload.unit }}}}?", {approve}}}
        command: [sh, -c, "echo restarted >> $0", "{out}"]
      - id: after
        command: [sh, -c, "echo after-$1 >> $0", "{out}", "${{{{ {verdict} }}}}"]
"""


def text(out: Path, approve: str = "otherwise: skip", more: str = "") -> str:
    """A profile that asks, and one more step."""
    verdict = "steps.restart.approval.verdict"
    return TEXT.format(out=out, approve=approve, more=more, verdict=verdict)


def ran(out: Path) -> list[str]:
    """The steps that have run."""
    return out.read_text().split() if out.exists() else []


async def asked(m: Mesh, count: int = 1) -> list[Open]:
    """What waits for a person, once so many do."""

    async def there() -> list[Open] | None:
        found = [one async for one in approvals.waiting(m.client)]
        return found if len(found) == count else None

    found: list[Open] = await eventually(there)
    return found


async def say(m: Mesh, which: Open, verdict: Any = "granted", **more: Any) -> approvals.Answered:
    """An answer, by me and on the command line unless said otherwise."""
    return await reply(m.client, which, verdict, **more)


async def reply(
    client: Client, which: Open, verdict: Any = "granted", **more: Any
) -> approvals.Answered:
    """The same over any connection."""
    how = {"by": "me", "via": "cli", "host": "here", **more}
    rules = redaction.load(Settings())
    return await approvals.answer(client, which.asked.id, verdict, redactor=rules, **how)


async def ended(m: Mesh, state: str) -> Run:
    """The one run, once it is in this state."""

    async def there() -> Run | None:
        return next((one for one in await m.runs() if one.state == state), None)

    found = await eventually(there)
    assert isinstance(found, Run)
    return found


async def left(profile: str, settings: Settings) -> Open:
    """The question of a run whose handlers have asked, told, and ended."""
    async with mesh(profile, settings=settings) as m:
        await m.publish()
        [one] = await asked(m)
        # it is in the ledger before it is told, and handlers that end do not wait for what waits
        await m.wait("automation.approval.requested")
    return one


async def say_meanwhile(one: Open, settings: Settings, verdict: Any = "granted") -> None:
    """It is answered while there are no handlers."""
    async with mesh_client(settings) as client:
        await reply(client, one, verdict)
