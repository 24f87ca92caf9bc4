"""`opsmesh profile backtest`: what profiles would have done with the events of the past."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from opsmesh.cli import output
from opsmesh.cli.events import moment
from opsmesh.cli.profiles import backtest_report
from opsmesh.cli.profiles import lookup as profile_lookup
from opsmesh.cli.profiles.backtest_period import Kind, archive
from opsmesh.cli.profiles.backtest_report import Report
from opsmesh.handlers.backtest.diff import Change, Difference, compare, explain, same_decisions
from opsmesh.handlers.backtest.jobs import over_archive
from opsmesh.handlers.backtest.result import Result
from opsmesh.handlers.backtest.source import Source, Stored
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, load_file, load_profiles
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.nearest import nearest
from opsmesh.schemas.registry import load_registry

#: `--against`: the version that is in the configuration folder, or no comparison.
CURRENT: Final = "current"
NONE: Final = "none"
#: Differences that are shown of a profile, unless all are asked for.
SHOWN: Final = 20
#: Bytes to read below which one process is as fast as several.
LITTLE: Final = 16 * 2**20


def backtest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A profile file.")],
    since: Annotated[str, typer.Option(help="Begin this long ago (12h, 7d) or at a time.")] = "7d",
    until: Annotated[
        str | None, typer.Option(help="End before this age or time; now unless given.")
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="current|FILE|none",
            help="Compare with the profiles of the configuration folder, or of another file.",
        ),
    ] = CURRENT,
    source: Annotated[
        Kind | None,
        typer.Option("--from", help="The evidence archive (where there is one) or the stream."),
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option("--profile", "-p", help="Only this profile; repeatable.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="What this host would have decided; yours unless given.")
    ] = None,
    all_hosts: Annotated[
        bool, typer.Option("--all-hosts", help="What every host would have decided.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help=f"Every difference, not {SHOWN} of each profile.")
    ] = False,
    fail_on_diff: Annotated[
        bool, typer.Option("--fail-on-diff", help="Exit code 1 when firings differ.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; one a core unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Decide past events with the profiles of FILE, and compare with the version in force.

    Nothing is run and nothing is sent. Profiles in shadow or disabled are decided as enabled. The
    period begins with nothing in any window; what still waits at its end is counted as open.

    Example: opsmesh profile backtest new.yaml --since 7d --against current
    """
    if host is not None and all_hosts:
        output.fail("--host and --all-hosts contradict each other", code=output.USAGE)
    since_us, until_us = moment(since) or 0, moment(until) or times.now_us()
    if since_us >= until_us:
        output.fail("--since is not before --until", code=output.USAGE)
    settings = Settings()
    after = _chosen(file, profile or [])
    before = _before(against, after)
    began = time.perf_counter()
    with archive(source, settings, [*after.values(), *before.values()], since_us, until_us) as (
        kind,
        folder,
    ):
        run = _Run(
            folder=folder,
            since_us=since_us,
            until_us=until_us,
            host=None if all_hosts else host or settings.host,
            jobs=jobs,
        )
        try:
            result, changes = run.decide(after, before, compared=against != NONE)
        except BrokenProcessPool:
            output.fail(
                "one of its processes was ended from outside",
                hint="when memory is short: --jobs 1, or a shorter period",
            )
        differences = run.explain(changes, before, after, most=None if everything else SHOWN)
    report = Report(
        source=kind,
        since_us=since_us,
        until_us=until_us,
        host=run.host,
        against=None if against == NONE else against,
        result=result,
        changes=changes,
        differences=differences,
    )
    if as_json:
        output.as_json(backtest_report.as_dict(report))
    else:
        backtest_report.show(report)
        seconds = time.perf_counter() - began
        output.note(f"{result.messages:,} messages in {seconds:.1f} s, from the {kind}")
    if fail_on_diff and any(change.differs for change in changes):
        raise typer.Exit(output.FAILED)


class _Run:
    """The same period of the same archive, for every question about it."""

    def __init__(
        self, *, folder: Path, since_us: int, until_us: int, host: str | None, jobs: int | None
    ) -> None:
        self.host = host
        self._folder = folder
        self._since_us = since_us
        self._until_us = until_us
        self._topics = Path(paths.config_dir(), "topics.yaml")
        if jobs is None:
            size = Source(folder, since_us=since_us, until_us=until_us).size
            jobs = len(os.sched_getaffinity(0)) if size > LITTLE else 1
        self._jobs = jobs

    def decide(
        self, after: Mapping[str, Profile], before: Mapping[str, Profile], *, compared: bool
    ) -> tuple[Result, list[Change]]:
        """Both versions in one go; a version that decides alike is decided once."""
        olds = [old for name, old in before.items() if not same_decisions(old, after[name])]
        with _progress() as (bar, task):
            both = over_archive(
                self._folder,
                [*after.values(), *olds],
                since_us=self._since_us,
                until_us=self._until_us,
                topics=self._topics,
                host=self.host,
                jobs=self._jobs,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        news = both.profiles[: len(after)]
        was = {
            tested.profile: msgspec.structs.replace(tested, hash=before[tested.profile].hash)
            for tested in news
            if tested.profile in before
        }
        was |= {tested.profile: tested for tested in both.profiles[len(after) :]}
        both.profiles = news
        return both, compare(was, news) if compared else []

    def explain(
        self,
        changes: Iterable[Change],
        before: Mapping[str, Profile],
        after: Mapping[str, Profile],
        *,
        most: int | None,
    ) -> dict[str, list[Difference]]:
        """Why firings differ, by profile."""

        def read(wants: backtest_report.Wants, last_us: int) -> Iterator[Stored]:
            until_us = min(self._until_us, last_us + 1)
            return Source(self._folder, since_us=self._since_us, until_us=until_us).read(wants)

        return explain(
            changes,
            before=before,
            after=after,
            read=read,
            host=self.host,
            most=most,
            upcast=load_registry(self._topics).upcast,
        )


def _chosen(file: Path, names: Sequence[str]) -> dict[str, Profile]:
    found = _valid(load_file(profile_lookup.there(file)), f"{file} is refused")
    if not found:
        output.fail(f"{file} has no profiles", code=output.USAGE)
    for name in names:
        if name not in found:
            near = nearest(name, found)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(found)}"
            output.fail(f"no profile {name!r} in {file}", hint=hint, code=output.NOT_FOUND)
    return {name: found[name] for name in found if not names or name in names}


def _before(against: str, after: Mapping[str, Profile]) -> dict[str, Profile]:
    """The versions to compare with, of the profiles that are tested."""
    if against == NONE:
        return {}
    if against == CURRENT:
        found = _valid(
            load_profiles(Path(paths.config_dir())),
            "the profiles in force cannot be read",
            hint="opsmesh profile validate; --against none leaves the comparison out",
        )
    else:
        found = _valid(load_file(Path(against)), f"{against} is refused")
    return {name: found[name] for name in after if name in found}


def _valid(found: ProfileSet, message: str, *, hint: str = "") -> dict[str, Profile]:
    if found.errors:
        errors = "\n".join(str(error) for error in found.errors)
        output.fail(f"{message}:\n{errors}", hint=hint, code=output.USAGE)
    return found.profiles


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Progress, Any]]:
    """A bar on standard error, on a terminal alone."""
    console = Console(stderr=True)
    columns = (TextColumn("deciding"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield bar, bar.add_task("decide", total=None)
