"""`pytest_last_failed`: which tests failed when pytest last ran in a project, from its cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.files import read_end
from opsmesh.handlers.collectors.subject import folder_of
from opsmesh.schemas import times

#: pytest's own names, below its cache folder (_pytest/cacheprovider.py).
LAST_FAILED: Final = "v/cache/lastfailed"
NODE_IDS: Final = "v/cache/nodeids"
#: Names of tests among the facts; the piece has all of them.
FACTS: Final = 100
#: Bytes of the cache's list of all tests; what is longer is not counted.
MAX_NODE_IDS: Final = 16 * 2**20


class PytestLastFailedSpec(Spec):
    """Which project; the folder that the event is about unless given."""

    path: Text | None = None
    cache_dir: Annotated[Text, Field(description="pytest's cache_dir, below the project.")] = (
        ".pytest_cache"
    )


class PytestLastFailed:
    """One test a line."""

    key: ClassVar[str] = "pytest_last_failed"
    spec: ClassVar[type[PytestLastFailedSpec]] = PytestLastFailedSpec

    def __init__(self, spec: PytestLastFailedSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        folder = folder_of(request, self._spec.path)
        cache = folder / request.render(self._spec.cache_dir)
        if not cache.resolve().is_relative_to(folder.resolve()):
            raise Unavailable(f"{cache} is not within {folder}")
        return [await asyncio.to_thread(_read, request, cache)]


def _read(request: Request, cache: Path) -> Piece:
    file = cache / LAST_FAILED
    if not file.resolve().is_relative_to(cache.parent.resolve()):  # a link to what is no cache
        raise Unavailable(f"{file} is not within {cache.parent}")
    try:
        when = round(cache.joinpath("v/cache").stat().st_mtime * 1e6)
    except OSError as error:
        raise Unavailable(f"{cache}: no cache of pytest: {error.strerror}") from None
    known = _load(cache / NODE_IDS, MAX_NODE_IDS)
    total = len(known) if isinstance(known, list) else None
    try:
        data, size = read_end(file, request.max_bytes)
    except FileNotFoundError:
        data, size = b"{}", 2  # pytest writes none while nothing fails
    except (OSError, ValueError) as error:
        raise Unavailable(f"{file}: {error}") from None
    if size > len(data):
        raise Unavailable(f"{file}: {size} bytes are more than the limit of {request.max_bytes}")
    try:
        failed = json.loads(data)
    except ValueError:
        raise Unavailable(f"{file}: is no JSON") from None
    if not isinstance(failed, dict):
        raise Unavailable(f"{file}: is no list of tests")
    names = sorted(" ".join(str(name).split("\n")) for name in failed)
    facts: dict[str, Any] = {
        "failed": names[:FACTS],
        "count": len(names),
        "total": total,
        "time": times.format_us(when),
    }
    text = "".join(f"{name}\n" for name in names) or "no test failed last\n"
    return request.piece(text, path=str(file), facts=facts)


def _load(file: Path, limit: int) -> Any:
    try:
        data, size = read_end(file, limit)
        return json.loads(data) if size == len(data) else None
    except (OSError, ValueError):
        return None
