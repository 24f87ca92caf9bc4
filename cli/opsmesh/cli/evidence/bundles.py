"""`opsmesh evidence bundle`: bundles of this host and of others, found, read, packed and proved."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.cli import output
from opsmesh.cli.events import moment
from opsmesh.cli.evidence import bundle_find as find
from opsmesh.cli.evidence import bundle_text as text
from opsmesh.cli.session import with_client
from opsmesh.handlers.bundles import archive, catalog, folders, retention
from opsmesh.handlers.bundles.archive import BadBundle
from opsmesh.handlers.bundles.store import Object
from opsmesh.handlers.bundles.verify import Verdict, verify
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.settings import Settings
from opsmesh.schemas import durations, unseen

#: Bundles, the newest first, among which a shell completes: it does not wait for all.
COMPLETED = 200

app = typer.Typer(
    no_args_is_help=True, help="What `collect` has written: bundles of this host and of others."
)


def complete(incomplete: str) -> Iterator[tuple[str, str]]:
    """Ids of bundles on this host, for a shell."""
    for known in islice(catalog.local(find.bundles()), COMPLETED):
        for name in (known.bundle_id[:12], str(known.told.get("run_id") or "")):
            if (incomplete and name.startswith(incomplete)) or name == known.bundle_id[:12]:
                yield name, f"{known.told.get('profile')} {known.told.get('topic')}"


AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Ref = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The beginning of a bundle's id or of its run's, or its folder.",
        autocompletion=complete,
    ),
]


@app.command("ls")
def ls(
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="Only this one's.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this age (7d) or time on.")] = None,
    host: Annotated[str | None, typer.Option(help="Only of this host.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Only what is on this host; needs no broker.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest N.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List bundles, the newest last: those here, and those that other hosts have shared.

    Example: opsmesh evidence bundle ls --profile triage --since 7d
    """
    since_us = moment(since) or 0
    objects: list[Object] = [] if local else find.objects()
    found = [
        known
        for known in catalog.merged(catalog.local(find.bundles()), objects)
        if known.made_us >= since_us
        and (profile is None or known.told.get("profile") == profile)
        and (host is None or known.told.get("host") == host)
    ]
    newest = found[:limit][::-1]
    if as_json:
        output.as_json([text.record(known) for known in newest])
        return
    columns = ["time", "profile", "topic", "host", "where", "size", "errors", "bundle"]
    output.table([text.row(known) for known in newest], columns, empty="no bundle matches")


@app.command("show")
def show(
    ref: Ref,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="NAME", help="Print this file of it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest, with id and folder.")] = (
        False
    ),
) -> None:
    """Show what a bundle holds: its files, what is missing and why, what was taken out.

    One that another host has shared is fetched and checked first.

    \b
    Example: opsmesh evidence bundle show 3fa94c21
             opsmesh evidence bundle show 3fa94c21 --file report.md
    """
    folder = find.folder_of(ref)
    manifest = folders.read_manifest(folder)
    if file is not None:
        _print_file(folder, manifest, file)
        return
    bundle_id = folders.bundle_id(folder)
    if as_json:
        output.as_json({"bundle": bundle_id, "folder": str(folder), **manifest})
        return
    text.show(output.console(), bundle_id, folder, manifest)


@app.command("open")
def open_(
    ref: Ref,
    print_path: Annotated[
        bool, typer.Option("--print-path", help="Only print the folder, for scripts.")
    ] = False,
) -> None:
    """Open a bundle's folder in the file manager, or without a desktop its report in $PAGER.

    Example: cd "$(opsmesh evidence bundle open 3fa94c21 --print-path)"
    """
    folder = find.folder_of(ref)
    if print_path:
        sys.stdout.write(f"{folder}\n")
        return
    desktop = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    if desktop and (opener := shutil.which("xdg-open")):
        subprocess.Popen(
            [opener, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        output.note(f"opened {folder}")
        return
    report = folder / folders.REPORT
    pager = shlex.split(os.environ.get("PAGER", ""))
    if pager and sys.stdout.isatty() and shutil.which(pager[0]):
        subprocess.run([*pager, str(report if report.exists() else folder / "manifest.json")])
        return
    sys.stdout.write(f"{folder}\n")


@app.command("export")
def export(
    ref: Ref,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .tar.zst or .zip.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pack a bundle into one file to give away: checked first, the same bytes each time.

    Example: opsmesh evidence bundle export 3fa94c21 crash.tar.zst
    """
    zipped = out.name.endswith(".zip")
    if not zipped and not out.name.endswith(".tar.zst"):
        output.fail(
            f"{out.name} ends neither in .tar.zst nor in .zip",
            hint=f"opsmesh evidence bundle export {ref} {out.name}.tar.zst",
            code=output.USAGE,
        )
    if out.exists() and not force:
        output.fail(f"{out} is there already", hint="another name, or --force to replace it")
    folder = find.folder_of(ref)
    try:
        with tempfile.NamedTemporaryFile(
            prefix=f".{out.name}.", dir=out.absolute().parent, delete=False
        ) as part:
            new = Path(part.name)
            try:
                pack = archive.pack_zip if zipped else archive.pack
                bundle_id = pack(folder, part)  # type: ignore[arg-type]
                part.flush()
                os.fsync(part.fileno())
                size = part.tell()
                if force:
                    new.replace(out)
                else:
                    os.link(new, out)  # never over a file that came meanwhile
            finally:
                new.unlink(missing_ok=True)
    except BadBundle as error:
        output.fail(str(error), hint=f"what is wrong with it: opsmesh evidence bundle verify {ref}")
    except FileExistsError:
        output.fail(f"{out} is there already", hint="another name, or --force to replace it")
    except OSError as error:
        output.fail(f"{out} cannot be written: {error.strerror or error}")
    if as_json:
        output.as_json({"bundle": bundle_id, "file": str(out), "bytes": size})
        return
    output.note(f"bundle {bundle_id[:12]} is in {out} ({size} bytes)")


@app.command("verify")
def verify_(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="ID|FILE", help="A bundle, or an exported .tar.zst.", autocompletion=complete
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Check that every file of a bundle is what its manifest says, and that its run knows its id.

    The run's result event names the id too, and the evidence archive holds that event: a bundle
    whose manifest was written anew has another id. Exit code 0: intact; 1: not.

    Example: opsmesh evidence bundle verify 3fa94c21
    """
    verdict, known_by = _verdict(ref)
    if as_json:
        facts = {"intact": verdict.intact, "bundle": verdict.bundle_id, "files": verdict.files}
        output.as_json({**facts, "problems": list(verdict.problems), "known_by": known_by})
    else:
        for problem in verdict.problems:
            sys.stdout.write(f"{problem}\n")
        found = "intact" if verdict.intact else f"NOT intact, {len(verdict.problems)} problems"
        sys.stdout.write(f"{found}: {verdict.files} files, bundle {verdict.bundle_id}\n")
        if known_by:
            sys.stdout.write(f"{known_by}\n")
    raise typer.Exit(0 if verdict.intact else output.FAILED)


@app.command("gc")
def gc(
    older_than: Annotated[
        str | None, typer.Option(help="Those that are older than this: 30d.")
    ] = None,
    keep: Annotated[int | None, typer.Option(min=0, help="All but the newest N.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove bundles of this host, after showing which; those in the object store stay.

    Without options: what the settings `bundles.keep` and `bundles.max_bytes` let go, as handlers do
    every hour.

    Example: opsmesh evidence bundle gc --older-than 30d --dry-run
    """
    settings = Settings().bundles
    given = older_than is not None or keep is not None
    try:
        older_s = durations.parse(older_than) if older_than else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    chosen = retention.choose(
        find.bundles(),
        older_than_s=older_s if given else settings.keep,
        keep=keep,
        max_bytes=None if given else settings.max_bytes,
    )
    if not as_json:
        output.table(
            [text.old_row(old) for old in chosen],
            ["time", "why", "size", "folder"],
            empty="nothing is to go",
        )
    if chosen and not dry_run and not yes:
        if as_json or not sys.stdin.isatty():
            output.fail("nobody can be asked here", hint="--yes or --dry-run", code=output.USAGE)
        typer.confirm(f"Remove {len(chosen)} bundles, for good?", abort=True)
    gone = [] if dry_run else retention.remove(chosen)
    if as_json:
        shown = chosen if dry_run else gone
        output.as_json([text.old_record(old, removed=not dry_run) for old in shown])
    elif gone:
        output.note(f"removed {len(gone)} bundles, {sum(old.size for old in gone)} bytes")


def _verdict(ref: str) -> tuple[Verdict, str]:
    file = Path(ref)
    if file.is_file():
        with tempfile.TemporaryDirectory(prefix="opsmesh-verify-") as place:
            try:
                with file.open("rb") as source:
                    archive.unpack(source, Path(place, "bundle"))
            except (BadBundle, OSError) as error:
                return Verdict(bundle_id="-", files=0, problems=(str(error),)), ""
            verdict = verify(Path(place, "bundle"))
            manifest = folders.read_manifest(Path(place, "bundle"))
    else:
        folder = find.folder_of(ref)
        verdict, manifest = verify(folder), folders.read_manifest(folder)
    return _with_run(verdict, manifest)


def _with_run(verdict: Verdict, manifest: dict[str, Any]) -> tuple[Verdict, str]:
    """The verdict, with what the run's record says of the bundle's id where it can be asked."""

    async def body(client: Client, settings: Settings) -> list[tuple[str, Any]]:
        runs = Ledger(client).runs(str(manifest.get("profile")))
        return [
            (step.id, step.output.get("bundle"))
            async for run in runs
            if run.run_id == manifest.get("run_id")
            for step in run.steps
            if step.id == manifest.get("step")
        ]

    said: list[tuple[str, Any]] = []
    with contextlib.suppress(BrokerUnavailable, NatsError, TimeoutError):
        said = with_client(body)
    if not said or not said[0][1]:
        return verdict, ""
    if said[0][1] == verdict.bundle_id:
        return verdict, f"its run {manifest.get('run_id')} has made it"
    problem = f"manifest.json: its run has made bundle {said[0][1]}, and not this one"
    return (
        Verdict(
            bundle_id=verdict.bundle_id,
            files=verdict.files,
            problems=(*verdict.problems, problem),
        ),
        "",
    )


def _print_file(folder: Path, manifest: dict[str, Any], name: str) -> None:
    names = [entry["name"] for entry in manifest.get("files", []) if entry.get("sha256")]
    if name not in names:
        output.fail(
            f"the bundle holds no {name!r}",
            hint=f"it holds {', '.join(names)}",
            code=output.NOT_FOUND,
        )
    data = (folder / name).read_bytes()
    if sys.stdout.isatty():
        sys.stdout.write(unseen.marked(data.decode(errors="replace")))
        return
    sys.stdout.buffer.write(data)
