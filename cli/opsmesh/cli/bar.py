"""`opsmesh bar`: the mesh as one block of a desktop's bar, in the JSON that Waybar takes.

The block says three things: whether the mesh is well, how many questions wait for a person, and how
many failures there were since that person last looked (`--seen`, on a click).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from nats.aio.client import Client
from nats.aio.msg import Msg

from opsmesh.cli import health
from opsmesh.handlers.desktop.text import clean
from opsmesh.router import connection, files, paths, tasks
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import BrokerUnavailable, PermissionDenied
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times

#: What counts as a failure of the mesh's own doing; what fails in a tool is an event like others.
FAILURES: Final = (
    "automation.run.deadlettered",
    "automation.slo.breached",
    "mesh.component.failed",
    "mesh.config.rejected",
    "mesh.gap.detected",
    "mesh.stream.regressed",
)
#: What may change the block at once.
NEWS: Final = ("automation.approval.*", *FAILURES)
#: Seconds between looks: parts of the health have no event.
LOOK_S: Final = 10.0
#: Failures from before that are not counted, however long nobody looked, in microseconds.
OLDEST_US: Final = 7 * 24 * 3600 * 1_000_000
#: Lines of the tooltip for each kind of thing.
SHOWN: Final = 5


def bar(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="A line whenever it changes, for ever.")
    ] = False,
    seen: Annotated[
        bool, typer.Option("--seen", help="What has failed until now was looked at.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="As Waybar takes it: text, alt, tooltip, class.")
    ] = False,
) -> None:
    """One block for a desktop's bar: health, questions that wait, failures since you last looked.

    `class` and `alt` are ok, waiting, failed, degraded or down; all well is no text.

    Examples: opsmesh bar
              opsmesh bar --follow --json        # Waybar: "exec", with "return-type": "json"
              opsmesh bar --seen                 # Waybar: "on-click"
    """
    settings = Settings()
    if seen:
        paths.private_dir(paths.state_dir())  # a bar may be clicked before there is a mesh
        files.write_private(_seen_file(), json.dumps({"seen_us": times.now_us()}).encode())
        if not follow:
            return
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        tasks.run(_follow(settings, as_json) if follow else _once(settings, as_json))


async def _once(settings: Settings, as_json: bool) -> None:
    _print(await look(settings), as_json)


async def _follow(settings: Settings, as_json: bool) -> None:
    news = asyncio.Event()
    listening = asyncio.create_task(_listen(settings, news))
    said: dict[str, Any] = {}
    try:
        while True:
            block = await look(settings)
            if block != said:
                _print(block, as_json)
                said = block
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await news.wait()
            news.clear()
    finally:
        listening.cancel()


async def _listen(settings: Settings, news: asyncio.Event) -> None:
    """Wake the look for what happens; again once there is a broker, when it went."""

    async def heard(_: Msg) -> None:
        news.set()

    gone = asyncio.Event()

    def changed() -> None:
        gone.set()
        news.set()

    while True:
        gone.clear()
        with contextlib.suppress(BrokerUnavailable, PermissionDenied, *AWAY):
            where = connection.endpoint(settings, role="viewer")
            client = await connection.connect(where, name="bar", patient=False, changed=changed)
            try:
                for topic in NEWS:
                    await client.subscribe(f"evt.*.{topic}", cb=heard)
                news.set()  # what came before it listened
                await gone.wait()
            finally:
                await client.close()
        await asyncio.sleep(LOOK_S)


async def look(settings: Settings) -> dict[str, Any]:
    """The block as it is now, in Waybar's words (waybar-custom(5))."""
    failures: list[str] = []

    async def also(client: Client) -> None:
        with contextlib.suppress(*AWAY, PermissionDenied):
            failures.extend(await _failures(client))

    return block(await health.check(settings, also=also), failures)


def block(found: health.Health, failures: Sequence[str]) -> dict[str, Any]:
    """What is shown for a health and some failures. Pure."""
    waiting = len(found.approvals)
    kind = found.verdict
    if kind == "ok":
        kind = "failed" if failures else "waiting" if waiting else "ok"
    parts = [
        {"down": "mesh down", "degraded": "mesh degraded"}.get(kind, ""),
        f"? {waiting}" if waiting else "",
        f"✗ {len(failures)}" if failures else "",
    ]
    lines = [f"opsmesh: {found.verdict}"]
    lines += _some([f"✗ {one['what']} — {one['fix']}" for one in found.problems])
    lines += _some([f"? {clean(one['prompt'])} ({one['profile']})" for one in found.approvals])
    counted = Counter(reversed(failures))
    lines += _some([f"! {one}{f' ×{n}' if n > 1 else ''}" for one, n in counted.items()])
    return {
        "text": "  ".join(part for part in parts if part),
        "alt": kind,
        "class": kind,
        "tooltip": "\n".join(lines),
        "approvals": waiting,
        "failures": len(failures),
    }


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"… and {more} more"] if more > 0 else [])]


async def _failures(client: Client) -> list[str]:
    """Each failure since somebody looked, oldest first: its topic and its host."""
    since_us = max(_seen_us(), times.now_us() - OLDEST_US)
    subjects = [f"evt.*.{topic}" for topic in FAILURES]
    return [
        "{2} on {1}".format(*msg.subject.split(".", 2))
        async for msg in scan(
            client, EVENTS, subjects=subjects, since_us=since_us, headers_only=True
        )
    ]


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        # Waybar reads markup in the tooltip: https://docs.gtk.org/Pango/pango_markup.html
        escaped = {
            name: _markup(value) if name in ("text", "tooltip") else value
            for name, value in found.items()
        }
        sys.stdout.write(json.dumps(escaped, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"{found['alt']}  {found['text']}".rstrip() + "\n")
    sys.stdout.flush()


def _markup(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seen_file() -> Path:
    return Path(paths.state_dir(), "bar.json")


def _seen_us() -> int:
    try:
        return int(json.loads(_seen_file().read_bytes())["seen_us"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
