"""How a profile is: its text, who decides for it, and everything that keeps it from firing."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from nats.aio.client import Client

from opsmesh.handlers.explain import standing
from opsmesh.handlers.explain.book import Book, Reader, Unreadable
from opsmesh.handlers.explain.standing import Files, Owner, Told
from opsmesh.handlers.explain.wording import count, span
from opsmesh.router.rule import ProfileState
from opsmesh.schemas import times
from opsmesh.schemas.times import clock

#: Events that may wait for a moment without being a problem.
BUSY: Final = 100


class Deciding(msgspec.Struct, frozen=True, kw_only=True):
    """One of its consumers: the text in force there, its owner, and how far it is."""

    consumer: str
    host: str
    candidate: bool
    hash: str
    state: ProfileState
    since_us: int
    owner: Owner
    #: By a leaf's own handlers: how far they are is not known here.
    leaf: bool = False
    seq: int | None = None
    noted_us: int | None = None
    waiting: int = 0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A profile as it is now; `file` is empty when no file has it."""

    profile: str
    state: ProfileState | None
    hash: str = ""
    file: str = ""
    topics: tuple[str, ...] = ()
    deciding: tuple[Deciding, ...] = ()
    problems: tuple[Told, ...] = ()


async def health(client: Client, book: Book, files: Files, name: str) -> Health:
    """Of one profile that is in the files, or was in force."""
    readers = [reader for reader in book.of(name) if not reader.gone]
    deciding = [await _deciding(client, book, reader) for reader in readers]
    profile = files.profile(name)
    topics = profile.rule.decided if profile is not None else ()
    if profile is None and readers:
        text = book.text(readers[0].newest)
        topics = () if isinstance(text, Unreadable) else text.rule.decided
    state = profile.state if profile else next((one.state for one in deciding), None)
    return Health(
        profile=name,
        state=state,
        hash=profile.hash if profile else "",
        file=f"{profile.file}:{profile.line}" if profile else "",
        topics=topics,
        deciding=tuple(deciding),
        problems=tuple(_problems(book, files, name, deciding)),
    )


async def _deciding(client: Client, book: Book, reader: Reader) -> Deciding:
    newest, waiting = reader.newest, 0
    found = Deciding(
        consumer=reader.consumer,
        host=reader.host,
        candidate=reader.candidate,
        hash=newest.hash,
        state=newest.state,
        since_us=newest.at_us,
        owner=Owner(state="elsewhere", host=reader.host),
        leaf=bool(reader.leaf),
    )
    if reader.leaf:
        return found
    cursor, owner = await asyncio.gather(
        standing.cursor(client, reader.consumer), standing.owner(client, reader.consumer)
    )
    profile = book.text(newest)
    if cursor is not None and not isinstance(profile, Unreadable):
        waiting = await standing.waiting(client, profile, reader.host, after=cursor.seq)
    return msgspec.structs.replace(
        found,
        owner=owner,
        seq=cursor.seq if cursor else None,
        noted_us=cursor.at_us if cursor else None,
        waiting=waiting,
    )


def _problems(book: Book, files: Files, name: str, deciding: list[Deciding]) -> list[Told]:
    found = []
    profile = files.profile(name)
    active = [one for one in deciding if not one.candidate]
    if files.active.errors:
        text = f"a profile file is broken, an older text stays in force: {files.active.errors[0]}"
        found.append(Told(text, "opsmesh profile validate"))
    elif profile is None and name not in files.candidates.profiles:
        found.append(_absent(book, name))
    elif profile is not None:
        idle = files.idle(name)
        if idle is not None:
            found.append(idle)
        elif not active:
            found.append(Told("no process has taken it up yet", "opsmesh status"))
        found += [
            Told(f"{one.consumer} still decides with an older text, {one.hash}", "opsmesh status")
            for one in active
            if one.hash != profile.hash
            and one.state != "disabled"
            and one.owner.state not in ("none", "elsewhere")
        ]
    if profile is not None and profile.state == "shadow":
        hint = f"opsmesh profile enable {name}"
        found.append(Told("it is in shadow: it decides, and does not act", hint))
    for one in deciding:
        if one.state != "disabled":
            found += _reading(one)
    return found


def _reading(one: Deciding) -> list[Told]:
    some = f"{count(one.waiting, 'event')} {'waits' if one.waiting == 1 else 'wait'}"
    queue = some if one.waiting else "nothing waits"
    if one.owner.state == "none":
        return [Told(f"nobody decides on {one.consumer}; {queue}", "opsmesh status")]
    if one.owner.state == "hangs":
        ago = span(times.now_us() - one.noted_us) if one.noted_us else "an unknown time"
        text = f"the owner of {one.consumer} does not answer: at sequence {one.seq} for {ago}"
        return [Told(f"{text}; {queue}", "opsmesh status")]
    if one.waiting > BUSY:
        return [Told(f"{one.consumer} is behind: {queue}", "wait, or opsmesh status")]
    return []


def _absent(book: Book, name: str) -> Told:
    removed = [reader.newest.at_us for reader in book.of(name) if reader.gone]
    if removed:
        return Told(f"it was removed: {clock(max(removed))}", "opsmesh profile ls")
    return Told("it is in no file any more", "opsmesh profile ls")
