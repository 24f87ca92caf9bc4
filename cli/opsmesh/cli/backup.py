"""`opsmesh backup` and `opsmesh restore`: the whole mesh of this machine in one file, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from opsmesh.cli import output, sizes
from opsmesh.cli.progress import progress
from opsmesh.handlers.care import backup as backups
from opsmesh.handlers.care import broker
from opsmesh.handlers.care import restore as restores
from opsmesh.handlers.care.file import Manifest, Reader
from opsmesh.router import paths
from opsmesh.router.hub import cluster
from opsmesh.router.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def backup(
    path: Annotated[
        str | None,  # a Path forgets the slash that says that a folder is meant
        typer.Argument(
            metavar="FILE|FOLDER", help="Where it goes; `backups` in the state folder unless set."
        ),
    ] = None,
    keys: Annotated[
        bool,
        typer.Option("--keys", help="With the keys that sign evidence and let hosts in: a secret."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Make none: read FILE, and say whether it is whole.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Make none: list those in the state folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write streams, what profiles remember, evidence, bundles and configuration into one file.

    The mesh may run or be down. The file has its name only once it is whole and on disk, and its
    owner alone can read it. Keys stay out of it unless --keys is given.

    Examples: opsmesh backup
              opsmesh backup /mnt/usb/ --keys
              opsmesh backup --verify /mnt/usb/laptop-20261127T091200Z.opsmesh-backup
    """
    if list_:
        _list(as_json)
        return
    if verify:
        if path is None:
            output.fail("say which: opsmesh backup --verify FILE", code=output.USAGE)
        _verify(Path(path), as_json)
        return
    settings = Settings()
    target = Path(path or paths.private_dir(str(backups.folder())))
    folder = target if path is None or path.endswith("/") or target.is_dir() else target.parent
    if not folder.is_dir():
        output.fail(f"there is no folder {folder}", hint="is it mounted?", code=output.NOT_FOUND)
    if folder == target:
        target /= backups.name(settings.host)
    if target.exists():
        hint = "give another name, or a folder"
        output.fail(f"{target} is there already", hint=hint, code=output.USAGE)

    async def body() -> Manifest:
        async with broker.reached(settings) as client:
            with progress(quiet=as_json) as say:
                return await backups.make(client, settings, target, keys=keys, progress=say)

    manifest = asyncio.run(body())
    if as_json:
        output.as_json(_record(target, manifest))
        return
    print(f"wrote {target}: {_told(manifest)}")
    if keys:
        output.note("it holds this mesh's keys: whoever has it can sign and connect as you")
    else:
        output.note(
            "without the keys (--keys): put back elsewhere, it cannot seal under the old one"
        )


def restore(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="What `opsmesh backup` wrote.")],
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="In the place of what is here, which is kept aside (replaced-…)."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read it, say what would happen, change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup back: streams with their sequences, positions, evidence, bundles, configuration.

    The mesh has to be down. The file is read whole before anything is touched. What happened after
    the backup is not in it: profiles go on from where they were then, and actions that a run has
    taken since are not known any more.

    Examples: opsmesh restore --dry-run laptop-20261127T091200Z.opsmesh-backup
              opsmesh down; opsmesh restore --replace FILE; opsmesh up
    """
    settings = Settings()
    if (node := cluster.read()) is not None:
        output.fail(
            f"this machine is a node of cluster {node.name}: what it holds is not its own alone",
            hint="opsmesh hub cluster leave; restore; then a cluster again, and hub cluster adopt",
        )
    with _read(path) as reader:
        restores.check(reader)
        if reader.manifest.streams and broker.guest(settings):
            output.fail(
                "it holds streams, and this host has no broker of its own",
                hint="restore it on the hub, or leave the hub first: opsmesh leave",
            )
        here = restores.present(settings)
        if dry_run:
            _would(reader, here, replace=replace, as_json=as_json)
            return

        async def body() -> Path | None:
            async with broker.down(settings):
                kept = None
                there = await _other_server(reader.manifest, settings, replace=replace)
                if (here or there) and not replace:
                    raise restores.NotEmpty("; ".join([*here, *there]))
                restores.begin(path)
                if here:
                    kept = restores.aside(settings, reader.manifest)
                with progress(quiet=as_json) as say:
                    restores.files(reader, settings, config=replace, progress=say)
                    if reader.manifest.streams:
                        async with broker.quick(settings) as client:
                            await restores.streams(client, reader, progress=say)
                restores.finish(reader.manifest)
                return kept

        kept = asyncio.run(body())
    manifest = reader.manifest
    if as_json:
        output.as_json({**_record(path, manifest), "replaced": str(kept) if kept else None})
        return
    print(f"restored {path}: {_told(manifest)}")
    if kept is not None:
        print(f"what was here before is in {kept}")
    if manifest.host != settings.host:
        output.note(f"it was made on {manifest.host}, and this is {settings.host}")
    print("next: opsmesh up --detach · opsmesh evidence verify --against-stream")


async def _other_server(manifest: Manifest, settings: Settings, *, replace: bool) -> list[str]:
    """What streams of a server of the user's own are in the way; with `replace` they are backed up
    first: nothing there can be moved aside."""
    if not settings.nats.url or not manifest.streams:
        return []
    async with broker.quick(settings) as client:
        there = await restores.present_at(client, manifest)
        if there and replace:
            folder = Path(paths.private_dir(str(backups.folder())))
            target = folder / backups.name(settings.host, why="before-restore")
            await backups.make(client, settings, target, keys=True)
            output.note(f"what the server held is in {target}")
    return there


def _read(path: Path) -> Reader:
    try:
        return Reader(path)
    except FileNotFoundError:
        hint = "opsmesh backup --list"
        output.fail(f"there is no file {path}", hint=hint, code=output.NOT_FOUND)
    except OSError as error:
        output.fail(f"{path} cannot be read: {error.strerror}")


def _verify(path: Path, as_json: bool) -> None:
    with _read(path) as reader, progress(quiet=as_json) as say:
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            say("read", done)

        problems = reader.problems(count)
        manifest = reader.manifest
    if as_json:
        output.as_json({**_record(path, manifest), "intact": not problems, "problems": problems})
    else:
        for problem in problems:
            print(f"✗ {problem}")
        print(f"{'damaged' if problems else 'intact'}: {_told(manifest)}")
    if problems:
        raise typer.Exit(output.FAILED)


def _list(as_json: bool) -> None:
    rows = []
    for path in backups.kept():
        try:
            with Reader(path) as reader:
                rows.append(_record(path, reader.manifest))
        except Exception as error:
            rows.append({"file": str(path), "problem": str(error)})
    if as_json:
        output.as_json(rows)
        return
    table = [
        {
            "made": output.local(row["made"]) if "made" in row else row["problem"],
            "opsmesh": row.get("opsmesh"),
            "events": row.get("events"),
            "size": sizes.text(row["bytes"]) if "bytes" in row else None,
            "keys": "yes" if row.get("keys") else None,
            "file": row["file"],
        }
        for row in rows
    ]
    columns = ["made", "opsmesh", "events", "size", "keys", "file"]
    output.table(table, columns, empty="no backups yet: opsmesh backup")


def _would(reader: Reader, here: list[str], *, replace: bool, as_json: bool) -> None:
    manifest = reader.manifest
    if as_json:
        output.as_json({**_record(reader.path, manifest), "here": here})
        return
    print(f"would restore: {_told(manifest)}")
    for what in here:
        print(f"{'would be kept aside' if replace else 'in the way'}: {what}")
    if here and not replace:
        output.note("it would be refused without --replace")


def _record(path: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "file": str(path),
        "made": manifest.made_utc,
        "host": manifest.host,
        "opsmesh": manifest.opsmesh,
        "state_format": manifest.state_format,
        "keys": manifest.keys,
        "bytes": manifest.bytes,
        "events": next((one.messages for one in manifest.streams if one.name == "EVENTS"), 0),
        "streams": {
            one.name: {"messages": one.messages, "last_seq": one.last_seq}
            for one in manifest.streams
        },
        "files": sum(not one.name.startswith("streams/") for one in manifest.members),
    }


def _told(manifest: Manifest) -> str:
    record = _record(Path(), manifest)
    return (
        f"{record['events']} events, {len(manifest.streams)} streams, {record['files']} files, "
        f"{sizes.text(manifest.bytes)}; made on {manifest.host} by opsmesh {manifest.opsmesh}, "
        f"{output.local(manifest.made_utc)}"
    )
