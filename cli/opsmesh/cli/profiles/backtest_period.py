"""Where a backtest's events come from: the evidence archive, or the stream written as one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from nats.aio.client import Client

from opsmesh.cli import output
from opsmesh.cli.session import with_client
from opsmesh.handlers.evidence import segments
from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.router import paths
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.topic_patterns import disjoint
from opsmesh.router.topology import EVENTS

Kind = Literal["evidence", "stream"]

#: Messages of the stream that are written down at once.
COMMIT: Final = 10_000


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
    """What the profiles listen to, out of the stream, as the sink would write it."""
    patterns = disjoint(pattern for profile in profiles for pattern in profile.rule.listens)
    subjects = [f"evt.*.{pattern}" for pattern in patterns]

    async def body(client: Client, _: Settings) -> None:
        messages = scan(client, EVENTS, subjects=subjects, since_us=since_us)
        with Archive(folder, stream=EVENTS, segment_bytes=64 * 2**20) as written:
            async with contextlib.aclosing(messages):  # type: ignore[type-var]
                count = 0
                async for msg in messages:
                    where = delivery(msg.reply)
                    stored_us = where.timestamp_ns // 1000
                    if stored_us >= until_us:
                        break
                    written.event(where.stream_seq, stored_us, msg.data)
                    count += 1
                    if count % COMMIT == 0:
                        written.commit()
            written.commit()

    with_client(body)
