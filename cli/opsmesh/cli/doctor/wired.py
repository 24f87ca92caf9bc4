"""What `doctor` says of tools that are wired: whether they are heard, and when they last were."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from opsmesh.cli import components, producer
from opsmesh.cli.doctor.checks import Check
from opsmesh.cli.install import listening
from opsmesh.cli.install import rows as install_rows
from opsmesh.cli.lsp import listing as lsp_list
from opsmesh.producers import troubles, wirings
from opsmesh.producers.lsp import running as lsp_running
from opsmesh.router import connection, running
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import durations, times
from opsmesh.schemas.envelope import decode, subject

#: Seconds that the broker has to say what it heard last of every tool.
PATIENCE: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Last:
    """The last event of this machine on a tool's topics."""

    time: str
    topic: str
    source: str


def producers(settings: Settings) -> Iterator[Check]:
    """A line for each producer: heard of when, or why it does not run."""
    rows = {row["name"]: row for row in producer.rows()}
    up = running.mesh() is not None
    for name, reason in components.producers(settings).items():
        row = rows.get(name, {})
        detail, ok, fix = reason or "can run here", None if reason else True, ""
        if reason is not None and reason.startswith(components.BROKEN):
            ok, fix = False, "mend or remove the package it came with"
        elif row.get("state") == "running":
            detail = heard(
                Last(time=row["last_time"], topic=row["last_event"], source=name)
                if row.get("last_time")
                else None
            )
            if cannot := troubles.read(name):
                ok, detail = False, "; ".join(" ".join(one.split()) for one in cannot.values())
                fix = "mend what it says; the producer tries again by itself"
        elif up and reason is None:
            ok, fix = False, f"opsmesh install {name}"
            detail = listening.silent(name) or "about to run"
        yield Check(check=f"producer {name}", ok=ok, detail=detail, fix=fix)


def wired(last: Mapping[str, Last | None] | None) -> Iterator[Check]:
    """A line for each tool that is wired here, with what was heard `last` of it; None when no
    broker could be asked."""
    found = wirings.discover()
    for row in install_rows.chosen(None, found):
        name, fix = row["tool"], f"opsmesh install {row['tool']}"
        if row["state"] != "wired":
            detail = f"{row['state']}: {row['detail']}"
            if name not in found.wirings:
                fix = f"opsmesh uninstall {name}"
            yield Check(check=f"tool {name}", ok=False, detail=detail, fix=fix)
        elif row["silent"]:
            detail = f"wired, but {row['detail']}"
            # a mesh that does not run is said once, and a tool is not to blame for it
            ok = None if running.mesh() is None else False
            yield Check(check=f"tool {name}", ok=ok, detail=detail, fix=fix)
        else:
            quiet = last is None or not found.wirings[name].topics  # systemd's units tell nothing
            told = "" if last is None or quiet else f", {heard(last.get(name))}"
            yield Check(check=f"tool {name}", ok=True, detail=f"wired{told}")


def proxies() -> Iterator[Check]:
    """A line for each language server that runs behind `opsmesh lsp`."""
    for row in lsp_running.proxies():
        wrong = lsp_list.trouble(row)
        detail = wrong or f"behind {row['editor'] or 'an editor'}, {row['events']} events"
        fix = "start the language server anew" if row["stopped"] else ""
        yield Check(
            check=f"lsp {row['server']}", ok=not wrong, detail=detail, fix=fix if wrong else ""
        )


def ask(settings: Settings) -> dict[str, Last | None] | None:
    """What was heard last of each tool that is wired; None when the broker does not say."""
    found = wirings.discover()
    topics = {
        row["tool"]: list(found.wirings[row["tool"]].topics)
        for row in install_rows.chosen(None, found)
        if row["tool"] in found.wirings
    }
    if not topics or (not settings.nats.url and running.mesh() is None):
        return None
    try:
        return asyncio.run(asyncio.wait_for(_ask(settings, topics), PATIENCE))
    except (RouterError, NatsError, TimeoutError, OSError):
        return None  # the broker's own check says so


async def _ask(settings: Settings, topics: Mapping[str, list[str]]) -> dict[str, Last | None]:
    client = await connection.connect(
        connection.endpoint(settings, role="admin"), name="doctor", patient=False
    )
    found: dict[str, Last | None] = {}
    try:
        for tool, names in topics.items():
            events = []
            for topic in names:
                with contextlib.suppress(NotFoundError):
                    message = await client.jetstream().get_last_msg(
                        EVENTS, subject(settings.host, topic), direct=True
                    )
                    events.append(decode(message.data or b""))
            last = max(events, key=lambda event: times.parse_us(event.ts_utc), default=None)
            found[tool] = (
                Last(time=last.ts_utc, topic=last.topic, source=last.source) if last else None
            )
    finally:
        await client.close()
    return found


def heard(last: Last | None) -> str:
    """When something was last heard, for people."""
    if last is None:
        return "no event yet"
    age = max(0, (times.now_us() - times.parse_us(last.time)) // 1_000_000)
    return f"last event {durations.text(_round(age))} ago: {last.topic} from {last.source}"


def _round(seconds: int) -> int:
    """As exact as a person wants it: seconds, then minutes, then hours."""
    for unit in (86_400, 3_600, 60):
        if seconds >= 2 * unit:
            return seconds // unit * unit
    return seconds
