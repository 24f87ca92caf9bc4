"""Where a backtest's events come from: the evidence archive, or the stream written as one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from nats.aio.client import Client

from opsmesh.cli import output
from opsmesh.cli.session import with_client
from opsmesh.handlers.backtest import from_stream
from opsmesh.handlers.evidence import segments
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.router import paths
from opsmesh.router.settings import Settings

Kind = Literal["evidence", "stream"]


@contextlib.contextmanager
def archive(
    source: Kind | None,
    settings: Settings,
    profiles: Sequence[Profile],
    since_us: int,
    until_us: int,
) -> Iterator[tuple[Kind, Path]]:
    """The folder to read: the evidence archive, or one that the stream was written into."""
    folder = settings.evidence_dir
    archived = bool(segments.listing(folder))
    if source is None:
        source = "evidence" if archived else "stream"
    if source == "evidence":
        if not archived:
            hint = "the sink runs with the mesh: opsmesh up; or read the stream: --from stream"
            output.fail(f"nothing is archived in {folder}", hint=hint, code=output.NOT_FOUND)
        yield source, folder
        return
    # beside the archive, not in the temporary folder: that may be in memory
    paths.private_dir(paths.state_dir())
    with tempfile.TemporaryDirectory(prefix="backtest-", dir=paths.state_dir()) as name:
        _copy(Path(name), profiles, since_us, until_us)
        yield source, Path(name)


def _copy(folder: Path, profiles: Sequence[Profile], since_us: int, until_us: int) -> None:
    async def body(client: Client, _: Settings) -> None:
        await from_stream.copy(client, folder, profiles, since_us=since_us, until_us=until_us)

    with_client(body)
