"""Making a backup, while the mesh goes on or while it is down.

Nothing is stopped and nothing is locked: the order of reading (`contents`) is what makes it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.care import contents
from opsmesh.handlers.care.file import Manifest, Stream, Writer
from opsmesh.router import bucket_copy, paths, release, snapshot, state_format
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token

#: How the name of a backup ends.
SUFFIX: Final = ".opsmesh-backup"
#: How many of those in the state folder are kept by `opsmesh gc`.
KEEP: Final = 5


#: What is done now, and how many bytes of it are.
Progress = Callable[[str, int], None]


def folder() -> Path:
    """Where backups go that nobody named."""
    return Path(paths.state_dir(), "backups")


def name(host: str, *, why: str = "") -> str:
    """A new backup's name: the host's, when, and what for."""
    when = times.format_us(times.now_us())[:19].replace(":", "").replace("-", "")
    return f"{host_token(host)}-{when}Z{f'-{why}' if why else ''}{SUFFIX}"


def kept() -> list[Path]:
    """The backups in the state folder, the oldest first."""
    found = [path for path in folder().glob(f"*{SUFFIX}") if not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


async def make(
    client: Client | None,
    settings: Settings,
    path: Path,
    *,
    keys: bool = False,
    progress: Progress = lambda what, done: None,
) -> Manifest:
    """Write a backup to `path`, whole or not at all; what it holds. Without a client: of the files
    alone."""
    mark = state_format.FORMAT
    streams: list[Stream] = []
    with Writer(path) as writer:
        if client is None:
            _files(writer, settings, keys=keys, progress=progress)
        for name in contents.STREAMS if client is not None else ():
            if name == EVENTS:  # the archive ends where the stream goes on
                _files(writer, settings, keys=keys, progress=progress)
            if client is not None and (one := await _stream(client, writer, name, progress)):
                streams.append(one)
                mark = state_format.of(one.config.get("metadata")).format
        manifest = Manifest(
            opsmesh=release.version(),
            state_format=mark,
            host=settings.host,
            made_utc=times.format_us(times.now_us()),
            keys=keys,
            streams=tuple(streams),
            members=writer.members,
        )
        writer.finish(manifest)
    return manifest


async def _stream(client: Client, writer: Writer, name: str, progress: Progress) -> Stream | None:
    """One stream; None when there is none of that name."""
    try:
        await client.jetstream().stream_info(name)
    except NotFoundError:
        return None
    copy = bucket_copy if name in contents.BUCKETS else snapshot
    with writer.member(f"streams/{name}") as write:
        found = await copy.save(client, name, _counted(write, f"stream {name}", progress))
    return Stream(
        name=name,
        messages=found.messages,
        last_seq=found.last_seq,
        config=found.config,
        state=found.state,
    )


def _counted(
    write: Callable[[bytes], object], what: str, progress: Progress
) -> Callable[[bytes], None]:
    done = 0

    def counted(data: bytes) -> None:
        nonlocal done
        write(data)
        done += len(data)
        progress(what, done)

    return counted


def _files(writer: Writer, settings: Settings, *, keys: bool, progress: Progress) -> None:
    done = 0
    for place in contents.files(settings, keys=keys):
        if writer.add(place.name, place.path):
            done += writer.members[-1].size
        elif place.part == "evidence":  # it was sealed and compressed this moment
            sealed = place.path.with_name(f"{place.path.name}.zst")
            if writer.add(f"{place.name}.zst", sealed):
                done += writer.members[-1].size
        progress("files", done)
