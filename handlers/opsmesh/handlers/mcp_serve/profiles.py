"""Tools about profiles: which there are, whether a text is right, and what it would have done.

A text that a client sends is checked and decided with, in a folder of its own that is removed; it
never comes into force by that, and nothing in it is run.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import BaseModel, Field

from opsmesh.handlers.backtest import from_stream
from opsmesh.handlers.backtest.diff import Change, compare
from opsmesh.handlers.backtest.jobs import over_archive
from opsmesh.handlers.backtest.result import Firing, ProfileResult, Result
from opsmesh.handlers.evidence import segments
from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.mcp_serve.answers import Marked, Refused, answer, when
from opsmesh.handlers.mcp_serve.connection import Mesh
from opsmesh.handlers.mcp_serve.events import registry
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, load_file, load_profiles
from opsmesh.router import paths
from opsmesh.schemas import times
from opsmesh.schemas.nearest import nearest

#: Characters of a profile file that a client may send.
MAX_FILE: Final = 64 * 1024
#: Firings of a profile that are shown.
SHOWN: Final = 20
#: Seconds that a backtest may take, and between news of it.
BACKTEST_S: Final = 300.0
NEWS_S: Final = 0.25

#: No None: the SDK reads JSON out of what may be something else than text.
Text = Annotated[
    str,
    Field(max_length=MAX_FILE, description="a whole profile file in YAML, with its `profiles:`"),
]


class Step(BaseModel):
    """One step of a profile."""

    id: str
    action: str


class Listed(BaseModel):
    """A profile in the files of this host."""

    profile: str
    state: str
    on: list[str]
    description: str = ""
    owner: str | None = None
    steps: list[Step]
    hash: str


class Profiles(BaseModel):
    """Every profile, and what is wrong with the files."""

    profiles: list[Listed]
    errors: list[str] = []


class Finding(BaseModel):
    """One thing that is wrong, or looks so, at its place."""

    severity: Literal["error", "warning", "note"]
    line: int
    column: int
    message: str
    hint: str = ""


class Validation(BaseModel):
    """Whether a profile file can be used."""

    ok: bool
    profiles: list[str]
    findings: list[Finding]


class Fired(BaseModel):
    """One event for which a profile would fire."""

    event_id: str
    seq: int
    topic: str
    host: str
    at: str


class Tested(BaseModel):
    """What one profile would have done in the period."""

    profile: str
    hash: str
    events: int
    firings: int
    outcomes: dict[str, int]
    fired: list[Fired] = Field(description=f"the newest {SHOWN}")
    gained: list[Fired] = Field(default=[], description="what the version in force has not")
    lost: list[Fired] = Field(default=[], description="what only the version in force has")
    compared: bool = False


class Backtest(BaseModel):
    """Past events, decided again. Nothing was run and nothing sent."""

    source: Literal["evidence", "stream"]
    since: str
    until: str
    host: str
    messages: int
    profiles: list[Tested]


class ProfileTools:
    """They change nothing; the backtest reads much."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def list_profiles(self, ctx: Context) -> Annotated[CallToolResult, Marked[Profiles]]:
        """The profiles of this host: what each listens to, its steps, and whether it is enabled."""
        return answer(await asyncio.to_thread(_listed))

    async def validate_profile(
        self, ctx: Context, text: Text
    ) -> Annotated[CallToolResult, Marked[Validation]]:
        """Check a profile file's whole text before anybody puts it into force: form, fields and
        types, topics, loops, programs."""
        settings = self._mesh.settings

        def check() -> Validation:
            with _written(text) as file:
                found = load_file(file)
                findings = lint(
                    found,
                    registry(),
                    folder=file.parent,
                    host=settings.host,
                    strict_topics=settings.strict_topics,
                )
            told = [
                Finding(
                    severity=one.severity,
                    line=one.line,
                    column=one.column,
                    message=one.message,
                    hint=one.hint,
                )
                for one in findings
            ]
            wrong = any(one.severity == "error" for one in told)
            return Validation(ok=not wrong, profiles=sorted(found.profiles), findings=told)

        return answer(await asyncio.to_thread(check))

    async def backtest_profile(
        self,
        ctx: Context,
        profile: Annotated[str | None, Field(max_length=128, description="one in force")] = None,
        text: Text = "",
        since: Annotated[str, Field(description="an age (12h, 7d) or a time")] = "24h",
        until: Annotated[str | None, Field(description="the same; now unless given")] = None,
    ) -> Annotated[CallToolResult, Marked[Backtest]]:
        """What profiles would have done with past events: one that is in force, by name, or those
        of a file's text, compared with what is in force. Nothing is run and nothing is sent."""
        now_us = times.now_us()
        since_us, until_us = when(since, now_us) or 0, when(until, now_us) or now_us
        if since_us >= until_us:
            raise Refused("since is not before until")
        after, before = await asyncio.to_thread(_versions, profile, text)
        chosen = [*after.values(), *before.values()]
        await ctx.report_progress(0, None, "reading past events")
        async with self._archive(chosen, since_us, until_us) as (source, folder):
            result = await _decided(ctx, folder, chosen, since_us, until_us, self._mesh)
        news, olds = result.profiles[: len(after)], result.profiles[len(after) :]
        changes = {change.profile: change for change in compare({o.profile: o for o in olds}, news)}
        return answer(
            Backtest(
                source=source,
                since=times.format_us(since_us),
                until=times.format_us(until_us),
                host=self._mesh.settings.host,
                messages=result.messages,
                profiles=[
                    _tested(one, changes[one.profile] if one.profile in before else None)
                    for one in news
                ],
            )
        )

    @contextlib.asynccontextmanager
    async def _archive(
        self, profiles: Sequence[Profile], since_us: int, until_us: int
    ) -> AsyncIterator[tuple[Literal["evidence", "stream"], Path]]:
        folder = self._mesh.settings.evidence_dir
        if segments.listing(folder):
            yield "evidence", folder
            return
        client = await self._mesh.client()
        # beside the archive, not in the temporary folder: that may be in memory
        paths.private_dir(paths.state_dir())
        with tempfile.TemporaryDirectory(prefix="backtest-", dir=paths.state_dir()) as name:
            await from_stream.copy(
                client, Path(name), profiles, since_us=since_us, until_us=until_us
            )
            yield "stream", Path(name)


class _GivenUp(Exception):
    """The client does not want the answer any more."""


async def _decided(
    ctx: Context,
    folder: Path,
    profiles: Sequence[Profile],
    since_us: int,
    until_us: int,
    mesh: Mesh,
) -> Result:
    """In a thread; its progress is told, and it ends when nobody waits for it."""
    done, stop = [0, 0], threading.Event()

    def progress(count: int, total: int) -> None:
        done[:] = count, total
        if stop.is_set():
            raise _GivenUp

    work = asyncio.ensure_future(
        asyncio.to_thread(
            over_archive,
            folder,
            profiles,
            since_us=since_us,
            until_us=until_us,
            topics=Path(paths.config_dir(), "topics.yaml"),
            host=mesh.settings.host,
            progress=progress,
        )
    )
    try:
        while not (await asyncio.wait([work], timeout=NEWS_S))[0]:
            await ctx.report_progress(done[0], done[1] or None, "deciding past events")
        return work.result()
    finally:
        stop.set()
        if not work.done():
            work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


def find(name: str) -> Profile:
    """The profile of this name in the files; Refused when there is none."""
    return _of(load_profiles(Path(paths.config_dir())), name)


def state_of(profile: Profile) -> str:
    """Its state here: a person's choice on this machine, or else what its file says."""
    return overrides.read().get(profile.name, profile.state)


def _of(found: ProfileSet, name: str) -> Profile:
    if name not in found.profiles:
        if found.errors:
            raise Refused(str(found.errors[0]), hint="opsmesh profile validate")
        near = nearest(name, found.profiles)
        raise Refused(
            f"no profile {name!r}",
            hint=f"did you mean {near}?" if near else "list_profiles shows them",
        )
    return found.profiles[name]


def _listed() -> Profiles:
    found = load_profiles(Path(paths.config_dir()))
    chosen = overrides.read()
    return Profiles(
        profiles=[
            Listed(
                profile=one.name,
                state=chosen.get(one.name, one.state),
                on=list(one.on),
                description=one.description or "",
                owner=one.owner,
                steps=[Step(id=step.id, action=step.action.key) for step in one.steps],
                hash=one.hash,
            )
            for one in found.profiles.values()
        ],
        errors=[str(error) for error in found.errors],
    )


def _versions(profile: str | None, text: str) -> tuple[dict[str, Profile], dict[str, Profile]]:
    """What is tested, and the versions in force of a text's profiles."""
    if (profile is None) == (not text):
        raise Refused("give a profile's name or a file's text", hint="list_profiles shows names")
    current = load_profiles(Path(paths.config_dir()))
    if profile is not None:
        return {profile: _of(current, profile)}, {}
    with _written(text) as file:
        found = load_file(file)
    if found.errors:
        raise Refused(str(found.errors[0]), hint="validate_profile tells all that is wrong")
    if not found.profiles:
        raise Refused("the text has no profiles", hint="profiles: {name: {on: …, actions: […]}}")
    names = [name for name in found.profiles if name in current.profiles]
    return dict(found.profiles), {name: current.profiles[name] for name in names}


@contextlib.contextmanager
def _written(text: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="opsmesh-profile-") as folder:
        file = Path(folder, "profiles.yaml")
        file.write_text(text, encoding="utf-8", errors="replace")
        yield file


def _fired(many: Sequence[Firing]) -> list[Fired]:
    return [
        Fired(
            event_id=one.event_id,
            seq=one.event_seq,
            topic=one.topic,
            host=one.host,
            at=times.format_us(one.at_us),
        )
        for one in many[-SHOWN:]
    ]


def _tested(found: ProfileResult, change: Change | None) -> Tested:
    return Tested(
        profile=found.profile,
        hash=found.hash,
        events=found.events,
        firings=len(found.firings),
        outcomes=found.outcomes,
        fired=_fired(found.firings),
        gained=_fired(change.gained) if change is not None else [],
        lost=_fired(change.lost) if change is not None else [],
        compared=change is not None,
    )
