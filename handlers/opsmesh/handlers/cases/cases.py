"""Test cases of profiles, as their files say: given these events, expect these firings.

A file is read to its end: every error has its file, line and column. A file with an error has no
cases. Events are completed and checked as the agent does it, so that a case cannot give what the
mesh would refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from opsmesh.handlers.actions.spec import Spec
from opsmesh.handlers.cases.spec import (
    CaseSpec,
    CountsSpec,
    DefaultsSpec,
    FileSpec,
    FiringSpec,
    GivenSpec,
    MissSpec,
)
from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, load_file, load_profiles
from opsmesh.handlers.profiles.reporter import Reporter
from opsmesh.handlers.profiles.yamlfile import Document, Where
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, complete
from opsmesh.schemas.errors import EnvelopeError, PayloadError, TopicError
from opsmesh.schemas.nearest import did_you_mean
from opsmesh.schemas.registry import Registry, load_registry

#: The folder of case files in the configuration folder.
FOLDER: Final = "tests"

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, kw_only=True)
class Given:
    """An event, and when the broker stores it."""

    event: Event
    stored_us: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case. `given` is in the order of time; without `until_us` the clock goes on for as long
    as anything waits. None in `fires` or `suppressed`: not asked."""

    name: str
    profile: Profile
    host: str
    start_us: int
    given: tuple[Given, ...]
    until_us: int | None = None
    fires: int | tuple[FiringSpec, ...] | None = None
    suppressed: int | Mapping[str, int] | tuple[MissSpec, ...] | None = None
    file: str = ""
    line: int = 0


@dataclass(frozen=True)
class CaseFile:
    """The cases of a file; what is wrong with it, and with plug-ins and topics around it."""

    cases: list[Case] = field(default_factory=list)
    errors: list[ConfigError] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load_cases(
    path: Path, *, config_dir: Path, profiles: Path | None = None, name: str | None = None
) -> CaseFile:
    """The cases of the file for the profiles that it names, for `profiles` where that is given,
    and else for those of the configuration folder. Errors call the file `name`.

    Never raises for what a person wrote.
    """
    try:
        document = yamlfile.load(path, name=name)
    except ConfigError as error:
        return CaseFile(errors=[error])
    reporter = Reporter(document)
    named = document.data.get("profiles") if isinstance(document.data, dict) else None
    source = profiles or config_dir
    if profiles is None and isinstance(named, str):
        source = path.parent / Path(named).expanduser()
        if not source.exists():
            reporter.add(("profiles",), f"there is no {named!r} beside this file")
            return CaseFile(errors=reporter.errors)
    found = load_file(source) if source.is_file() else load_profiles(source)
    if found.errors:
        return CaseFile(errors=found.errors, problems=found.problems)
    return parse_cases(document, found, topics(source, config_dir))


def topics(profiles: Path, config_dir: Path) -> Registry:
    """The topics that go with these profiles: those beside them, or those of the configuration."""
    beside = (profiles if profiles.is_dir() else profiles.parent) / "topics.yaml"
    return load_registry(beside if beside.exists() else config_dir / "topics.yaml")


def parse_cases(document: Document, profiles: ProfileSet, registry: Registry) -> CaseFile:
    """The cases of one document."""
    reporter = Reporter(document)
    result = CaseFile(problems=[*profiles.problems, *registry.problems], errors=reporter.errors)
    data = document.data
    if not isinstance(data, dict):
        reporter.add((), "a file of cases is a mapping with the key 'cases'")
        return result
    own = {key: value for key, value in data.items() if not key.startswith("x-")}
    spec = _read(reporter, (), own, FileSpec)
    if spec is None:
        return result
    reader = _Reader(document, profiles, registry, spec.defaults)
    found = [reader.case(n, value, reporter) for n, value in enumerate(spec.cases)]
    if not reporter.errors:
        result.cases.extend(case for case in found if case is not None)
    reporter.errors.sort(key=lambda error: (error.line, error.column))
    return result


class _Reader:
    """Makes cases of one document's parts."""

    def __init__(
        self,
        document: Document,
        profiles: ProfileSet,
        registry: Registry,
        defaults: DefaultsSpec,
    ) -> None:
        self._document = document
        self._profiles = profiles.profiles
        self._registry = registry
        self._defaults = defaults
        self._lines: dict[str, int] = {}

    def case(self, number: int, value: dict[str, Any], reporter: Reporter) -> Case | None:
        where: Where = ("cases", number)
        name = str(value.get("name", number + 1))
        reporter = reporter.within(f" in case {name!r}")
        spec = _read(reporter, where, value, CaseSpec)
        if spec is None:
            return None
        line = self._document.position(where)[0]
        if (other := self._lines.setdefault(spec.name, line)) != line:
            reporter.add((*where, "name"), f"line {other} has a case of this name")
        profile = self._profiles.get(spec.profile)
        if profile is None:
            near = did_you_mean(spec.profile, self._profiles)
            known = near or f"; there are {', '.join(self._profiles) or 'none'}"
            reporter.add((*where, "profile"), f"no profile {spec.profile!r}{known}")
            return None
        start_us = times.parse_us(spec.at)
        until_us = None if spec.until is None else start_us + us(spec.until)
        return Case(
            name=spec.name,
            profile=profile,
            host=spec.host or self._defaults.host,
            start_us=start_us,
            given=self._given(where, spec, start_us, until_us, reporter),
            until_us=until_us,
            fires=self._fires(where, spec, profile, reporter),
            suppressed=_suppressed(where, spec.expect.suppressed, reporter),
            file=self._document.file,
            line=line,
        )

    def _given(
        self,
        where: Where,
        spec: CaseSpec,
        start_us: int,
        until_us: int | None,
        reporter: Reporter,
    ) -> tuple[Given, ...]:
        found: list[Given] = []
        host = {"host": spec.host} if spec.host else {}
        defaults = {**self._defaults.model_dump(exclude={"severity"}), **host}
        for n, item in enumerate(spec.given):
            at: Where = (*where, "given", n)
            inside = ("event",) if item.event is not None else ()
            try:
                found += [
                    self._event(item, spec.name, (n, again), start_us, defaults)
                    for again in range(item.repeat)
                ]
            except PayloadError as error:
                hint = "; 'check: false' takes it as it is"
                reporter.add((*at, *inside, "payload"), f"{error}".replace("; ", ", ") + hint)
            except EnvelopeError as error:
                reporter.add((*at, *inside, error.field or ""), str(error))
            except TopicError as error:
                reporter.add((*at, *inside, "topic"), str(error))
            except ValueError as error:
                reporter.add((*at, *inside), f"no JSON can hold this event: {error}")
            if until_us is not None and found and found[-1].stored_us > until_us:
                reporter.add((*at, "at"), "this event comes after 'until', the end of the case")
        return tuple(sorted(found, key=lambda given: given.stored_us))

    def _event(
        self,
        item: GivenSpec,
        name: str,
        number: tuple[int, int],
        start_us: int,
        defaults: dict[str, Any],
    ) -> Given:
        stored_us = start_us + us(item.at) + number[1] * us(item.every)
        raw = item.fields()
        known = self._registry.get(str(raw.get("topic")))
        severity = self._defaults.severity or (known.severity if known else "info")
        raw.setdefault("id", ids.derived(stored_us // 1000, name, *map(str, number)))
        _, event = complete(raw, defaults={**defaults, "severity": severity}, now_us=stored_us)
        if item.check:
            self._registry.check(event.topic, event.payload)
        return Given(event=self._registry.upcast(event), stored_us=stored_us)

    def _fires(
        self, where: Where, spec: CaseSpec, profile: Profile, reporter: Reporter
    ) -> int | tuple[FiringSpec, ...] | None:
        value = spec.expect.fires
        if not isinstance(value, list):
            return None if value is None else int(value)
        where = (*where, "expect", "fires")
        found = [_read(reporter, (*where, n), item, FiringSpec) for n, item in enumerate(value)]
        steps = [step.id for step in profile.steps]
        for n, firing in enumerate(found):
            for step in firing.arguments if firing else ():
                if step not in steps:
                    near = did_you_mean(step, steps) or f"; there are {', '.join(steps)}"
                    message = f"{profile.name} has no step {step!r}{near}"
                    reporter.add((*where, n, "arguments", step), message, key=True)
        return tuple(firing for firing in found if firing is not None)


def us(seconds: float) -> int:
    """Microseconds."""
    return round(seconds * 1e6)


def _suppressed(
    where: Where, value: Any, reporter: Reporter
) -> int | Mapping[str, int] | tuple[MissSpec, ...] | None:
    where = (*where, "expect", "suppressed")
    if isinstance(value, dict):
        counts = _read(reporter, where, value, CountsSpec)
        return counts.model_dump(exclude_none=True) if counts else None
    if isinstance(value, list):
        found = [_read(reporter, (*where, n), item, MissSpec) for n, item in enumerate(value)]
        return tuple(miss for miss in found if miss is not None)
    return None if value is None else int(value)


def _read(reporter: Reporter, where: Where, value: Any, model: type[S]) -> S | None:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        reporter.add_validation(where, error, model=model)
        return None
