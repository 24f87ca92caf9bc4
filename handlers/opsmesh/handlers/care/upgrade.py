"""What the installed version would change of what is here, and changing it.

The one rule: looking changes nothing. An upgrade makes a backup first, then takes the steps of
`router.migrations`, then brings the streams' settings to what this version wants; begun again after
it was cut off anywhere, it comes to the same end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.care import backup
from opsmesh.router import migrations, paths, release, state_format, topology
from opsmesh.router.migrations import Migration
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.errors import SchemaError

#: Seconds after which a backup is too old to stand for what is here.
FRESH_S: Final = 86400.0
#: Seconds that the starts of components are looked back at: a host that says nothing for longer is
#: away.
HEARD_S: Final = 30 * 86400.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A stream's setting that differs. It is brought in line whenever the agent starts."""

    stream: str
    setting: str
    have: Any
    want: Any


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done; `steps` are those of the broker, then those of this host's folders.

    `hosts` are the versions that the hosts of the mesh have told of when they were started.
    """

    installed: str
    form: int
    broker: state_format.Mark | None
    folders: state_format.Mark
    steps: tuple[str, ...]
    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    backup: str | None
    backup_age_s: float | None
    hosts: dict[str, str]

    @property
    def pending(self) -> bool:
        """Whether an upgrade would do something that the next start does not do by itself."""
        return bool(self.steps)

    @property
    def differs(self) -> bool:
        """Whether anything is not as this version wants it."""
        return bool(self.steps or self.changes)

    @property
    def others(self) -> dict[str, str]:
        """The hosts that run another version."""
        return {host: one for host, one in self.hosts.items() if one != self.installed}


async def look(client: Client | None, settings: Settings) -> Plan:
    """Compare what is here with what this version wants; StateTooNew when a newer one wrote it."""
    broker = await migrations.at_broker(client) if client is not None else None
    folders = state_format.local()
    for mark, where in ((broker, "the broker"), (folders, paths.state_dir())):
        if mark is not None and mark.format > state_format.FORMAT:
            state_format.check(mark, where)
    due = [
        *(f"at the broker: {one.what}" for one in _pending(broker)),
        *(f"in this host's folders: {one.what}" for one in _pending(folders)),
    ]
    changes: list[Change] = []
    missing: list[str] = []
    if client is not None:
        changes, missing = await _streams(client, settings)
    newest = backup.kept()[-1:]
    age_s = times.now_us() / 1e6 - newest[0].stat().st_mtime if newest else None
    return Plan(
        installed=release.version(),
        form=state_format.FORMAT,
        broker=broker,
        folders=folders,
        steps=tuple(due),
        changes=tuple(changes),
        missing=tuple(missing),
        backup=str(newest[0]) if newest else None,
        backup_age_s=age_s,
        hosts=await _hosts(client) if client is not None and broker is not None else {},
    )


async def _streams(client: Client, settings: Settings) -> tuple[list[Change], list[str]]:
    changes: list[Change] = []
    missing: list[str] = []
    for wanted in topology.streams(settings):
        name = wanted.name or ""
        try:
            have = (await client.jetstream().stream_info(name)).config
        except NotFoundError:
            missing.append(name)
            continue
        for setting, old, new in topology.changes(have, wanted):
            changes.append(Change(stream=name, setting=setting, have=old, want=new))
    return changes, missing


def _pending(mark: state_format.Mark | None) -> list[Migration]:
    return migrations.pending(mark.format) if mark is not None else []


async def run(
    client: Client | None,
    settings: Settings,
    *,
    with_backup: bool = True,
    say: Callable[[str], None] = lambda _: None,
    progress: backup.Progress = lambda what, done: None,
) -> Path | None:
    """Bring everything to this version; the backup that was made before, if one was."""
    plan = await look(client, settings)
    made: Path | None = None
    if with_backup and plan.pending:
        folder = Path(paths.private_dir(str(backup.folder())))
        made = folder / backup.name(settings.host, why="before-upgrade")
        await backup.make(client, settings, made, keys=True, progress=progress)
        say(f"backup: {made}")
    await migrations.apply(client, settings, say=say)
    if client is not None:
        known = topology.Known(topology.known_file())
        await topology.ensure(client.jetstream(), settings, known)
    for change in plan.changes:
        say(f"stream {change.stream}: {change.setting} is {change.want} now, was {change.have}")
    state_format.mark_local()
    return made


async def _hosts(client: Client) -> dict[str, str]:
    """The version that each host's agent was started with, the last time that it was."""
    found: dict[str, str] = {}
    since_us = times.now_us() - round(HEARD_S * 1e6)
    subjects = ["evt.*.mesh.component.started"]
    async for message in scan(client, EVENTS, subjects=subjects, since_us=since_us):
        try:
            event = decode(message.data)
        except SchemaError:
            continue
        if isinstance(version := event.payload.get("version"), str):
            found[event.host] = version
    return found
