"""`opsmesh upgrade`: bring what an older version has written to the one that is installed."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer
from nats.aio.client import Client

from opsmesh.cli import output
from opsmesh.cli.progress import progress
from opsmesh.handlers.care import broker
from opsmesh.handlers.care import upgrade as upgrades
from opsmesh.handlers.care.upgrade import FRESH_S, Plan
from opsmesh.router.settings import Settings
from opsmesh.schemas import durations


def upgrade(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: say what would. 1: something pends.")
    ] = False,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Without the backup that is made before.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Bring streams and folders to the form of the installed version, after a backup.

    Needed only where --check says so: settings of streams are brought in line whenever the mesh
    starts. The mesh may run or be down; it may be cut off, and run again. An older version refuses
    what this one has written: to go back, install the older one and restore the backup.

    Examples: opsmesh upgrade --check
              opsmesh upgrade
    """
    settings = Settings()

    async def body() -> Plan:
        async with broker.reached(settings) as client:
            if not check:
                await _upgrade(client, settings, backup=not no_backup, quiet=as_json)
            return await upgrades.look(client, settings)

    plan = asyncio.run(body())
    if as_json:
        output.as_json({**msgspec.to_builtins(plan), "pending": plan.pending})
    else:
        _print(plan, check=check)
    if check and plan.pending:
        raise typer.Exit(output.FAILED)


async def _upgrade(client: Client | None, settings: Settings, *, backup: bool, quiet: bool) -> None:
    with progress(quiet=quiet) as say:
        await upgrades.run(
            client,
            settings,
            with_backup=backup,
            say=(lambda _: None) if quiet else print,
            progress=say,
        )


def _print(plan: Plan, *, check: bool) -> None:
    wrote = plan.broker.opsmesh if plan.broker else ""
    form = plan.broker.format if plan.broker else "-"
    print(f"opsmesh {plan.installed}, form {plan.form}")
    print(f"the broker's streams: form {form}{f', by opsmesh {wrote}' if wrote else ''}")
    print(f"this host's folders: form {plan.folders.format}")
    for step in plan.steps:
        print(f"pending: {step}")
    for change in plan.changes:
        print(
            f"at the next start: stream {change.stream}, {change.setting}: "
            f"{change.have} becomes {change.want}"
        )
    if plan.missing:
        print(f"at the next start: new streams {', '.join(plan.missing)}")
    for host, version in sorted(plan.others.items()):
        print(f"host {host} runs opsmesh {version}")
    if plan.backup is None:
        print("no backup is here: opsmesh backup")
    elif plan.backup_age_s is not None and plan.backup_age_s > FRESH_S:
        age = durations.text(plan.backup_age_s)
        print(f"the newest backup is {age} old: opsmesh backup")
    if plan.pending:
        output.note("opsmesh upgrade does it, after a backup")
    elif check:
        print("nothing is pending")
    else:
        print("everything is of this version")
