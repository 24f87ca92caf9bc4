"""Putting a backup back, on a machine whose mesh is down.

The one rule: nothing that was here is destroyed. It is moved aside (`replaced-…`) before anything
is written, and a note in the state folder keeps every part of the mesh from starting until the
backup is here as a whole: a restore that was cut off is begun again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.care import contents
from opsmesh.handlers.care.file import BadBackup, Manifest, Reader, Stream
from opsmesh.handlers.errors import HandlersError
from opsmesh.router import bucket_copy, paths, snapshot, state_format, topology
from opsmesh.router import files as private
from opsmesh.router.settings import Settings
from opsmesh.router.snapshot import Snapshot
from opsmesh.schemas import times

#: How the name begins under which what was here is kept.
REPLACED: Final = "replaced-"
#: Of the state folder: what a restore puts in the place of.
_STATE: Final = ("jetstream", "known.json", *contents.STATE)

#: What is done now, and how many bytes of it are.
Progress = Callable[[str, int], None]


class NotEmpty(HandlersError):
    """There is something here already, which a restore would take the place of."""

    def __init__(self, what: str) -> None:
        super().__init__(f"there is something here already: {what}")
        self.hint = "put the backup in its place, and keep it aside: --replace"


def check(reader: Reader) -> None:
    """Return when the backup is whole, and this version may use what it holds."""
    manifest = reader.manifest
    mark = state_format.Mark(format=manifest.state_format, opsmesh=manifest.opsmesh)
    if mark.format > state_format.FORMAT:
        state_format.check(mark, str(reader.path))
    if problems := reader.problems():
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise BadBackup(reader.path, f"{problems[0]}{more}; nothing was touched")


def present(settings: Settings) -> list[str]:
    """What lies here that a restore would take the place of, for people."""
    state = Path(paths.state_dir())
    found = []
    if not settings.nats.url and any((state / "jetstream").glob("jetstream/*/streams/*")):
        found.append(f"streams in {state / 'jetstream'}")
    if any(settings.evidence_dir.glob("[0-9]*")):
        found.append(f"evidence in {settings.evidence_dir}")
    if any(Path(paths.bundles_dir()).glob("[0-9]*")):
        found.append(f"bundles in {paths.bundles_dir()}")
    return found


async def present_at(client: Client, manifest: Manifest) -> list[str]:
    """The same of a server that is not ours: the streams there that a restore would remove."""
    found = []
    for one in manifest.streams:
        with contextlib.suppress(NotFoundError):
            state = (await client.jetstream().stream_info(one.name)).state
            if state.last_seq:
                found.append(f"stream {one.name} up to sequence {state.last_seq} at the server")
    return found


def aside(settings: Settings, manifest: Manifest) -> Path:
    """Move away what is here; the folder where it is now."""
    state = Path(paths.state_dir())
    when = times.format_us(times.now_us())[:19].replace(":", "").replace("-", "")
    target = state / f"{REPLACED}{when}"
    for name in _STATE:
        if name == "jetstream" and settings.nats.url:
            continue
        _move(state / name, target / name)
    _move(settings.evidence_dir, target / "evidence")
    _move(Path(paths.bundles_dir()), target / "bundles")
    config = contents.folder("config", settings)
    for member in manifest.members:
        part, _, below = member.name.partition("/")
        if part == "config" and (config / below).is_file():
            path = target / member.name
            path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            shutil.copy2(config / below, path)
    return target


def _move(source: Path, target: Path) -> None:
    if source.exists():
        target.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        shutil.move(source, target)


def begin(path: Path) -> None:
    """Note that a restore is at work: from now on nothing starts here."""
    note = state_format.Restoring(backup=str(path.resolve()))
    folder = Path(paths.private_dir(paths.state_dir()))
    private.write_private(folder / state_format.RESTORING, msgspec.json.encode(note))


def finish(manifest: Manifest) -> None:
    """Everything is here and on disk: the mesh may start."""
    known = topology.Known(Path(paths.state_dir(), "known.json"))
    known.remember({one.name: one.last_seq for one in manifest.streams}, reset=True)
    state_format.mark_local(manifest.state_format)
    os.sync()
    Path(paths.state_dir(), state_format.RESTORING).unlink(missing_ok=True)


def files(
    reader: Reader,
    settings: Settings,
    *,
    config: bool,
    progress: Progress = lambda what, done: None,
) -> None:
    """Write the files of the backup; those of the configuration only where they are missing, unless
    `config`."""
    done = 0
    for member in reader.manifest.members:
        part, _, below = member.name.partition("/")
        if part == "streams":
            continue
        if part not in contents.PARTS:
            raise BadBackup(reader.path, f"{member.name!r} is no place for a file")
        path = contents.folder(part, settings) / below
        if path.exists() and (not config if part == "config" else _stays(member.name)):
            continue
        if below.startswith("producers/") and reader.manifest.host != settings.host:
            continue  # how far another machine's tools were read
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        new = path.with_name(f".{path.name}.restored")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, member.mode)
        with os.fdopen(descriptor, "wb") as file:
            for data in reader.blocks(member.name):
                file.write(data)
                done += len(data)
                progress("files", done)
        new.replace(path)


def _stays(name: str) -> bool:
    """Whether what is here is never written over: an older `auth` would let in again whom somebody
    has locked out since."""
    return name.startswith("state/auth/") or name == "state/redaction.key"


async def streams(
    client: Client, reader: Reader, *, progress: Progress = lambda what, done: None
) -> None:
    """Make every stream anew, in the place of one of its name."""
    for one in reader.manifest.streams:
        with contextlib.suppress(NotFoundError):
            await client.jetstream().delete_stream(one.name)
        await _stream(client, reader, one, progress)


async def _stream(client: Client, reader: Reader, one: Stream, progress: Progress) -> None:
    def chunks() -> Iterator[bytes]:
        return _counted(reader.blocks(f"streams/{one.name}"), f"stream {one.name}", progress)

    held = Snapshot(config=one.config, state=one.state)
    messages, first = one.messages, int(one.state.get("first_seq", 0))
    if one.name in contents.BUCKETS:
        messages = bucket_copy.values(chunks())
        await bucket_copy.load(client, held, chunks)
    else:
        await snapshot.load(client, held, chunks())
    found = (await client.jetstream().stream_info(one.name)).state
    missing = messages - found.messages
    if one.name in contents.GROWING:  # what aged while it was read is missing at its beginning
        missing -= max(0, found.first_seq - first)
    elif one.name not in contents.BUCKETS:  # and what was taken out of a queue, anywhere
        missing = 0
    if found.last_seq != one.last_seq or missing > 0:
        raise BadBackup(
            reader.path,
            f"stream {one.name} came back with {found.messages} messages up to sequence "
            f"{found.last_seq}, not {messages} up to {one.last_seq}",
        )


def _counted(blocks: Iterable[bytes], what: str, progress: Progress) -> Iterator[bytes]:
    """The same in pieces that fit into a message."""
    done = 0
    for block in blocks:
        for start in range(0, len(block), snapshot.CHUNK):
            chunk = block[start : start + snapshot.CHUNK]
            done += len(chunk)
            progress(what, done)
            yield chunk
