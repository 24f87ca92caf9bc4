"""When nothing came for a profile: the events of its topics before and after."""

from __future__ import annotations

from typing import Final

import msgspec

from opsmesh.handlers.explain.book import Book, Unreadable
from opsmesh.handlers.explain.lookup import Lookup, Place
from opsmesh.handlers.explain.standing import Files
from opsmesh.handlers.live.consumers import filter_subjects
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.router.topic_patterns import disjoint

#: How far back the last event is looked for, further each time, in microseconds; then everywhere.
BACK_US: Final = (3_600_000_000, 86_400_000_000, 7 * 86_400_000_000)


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """The last event before a period in which none came, and the next after it."""

    before: Place | None
    after: Place | None


def subjects(book: Book, files: Files, name: str) -> list[str]:
    """What a profile is decided on: of its texts in force, and of its file."""
    found: list[str] = []
    texts = [(book.text(reader.newest), reader.host) for reader in book.of(name) if not reader.gone]
    in_file = files.profile(name)
    if in_file is not None:
        texts.append((in_file, files.host))
    for profile, host in texts:
        if not isinstance(profile, Unreadable):
            found += _decided(profile, host)
    return list(disjoint(found))


async def look(lookup: Lookup, on: list[str], *, since_us: int, until_us: int | None) -> Quiet:
    """Around a period in which nothing came on these subjects."""
    before = None
    for back_us in (*BACK_US, since_us):
        found = await lookup.between(on, since_us - back_us, since_us, most=1)
        if found:
            before = found[-1]
            break
    after = await lookup.next(on, until_us) if until_us is not None else None
    return Quiet(before=before, after=after)


def _decided(profile: Profile, host: str) -> list[str]:
    """Without what only its conditions look back at."""
    heads = {".".join(one.split(".")[:2]) for one in filter_subjects(profile, host)}
    return [f"{head}.{pattern}" for head in heads for pattern in disjoint(profile.rule.decided)]
