"""A case written from a real event: what its profiles decide about it now, as their test.

The text is as short as it can be: an envelope's field is written only when the decision, or what
the steps are given, would be another without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import yaml

from opsmesh.handlers.cases.arguments import templated
from opsmesh.handlers.cases.cases import Case, Given, parse_cases
from opsmesh.handlers.cases.diff import clock, judge
from opsmesh.handlers.cases.judge import Firing, Played, play
from opsmesh.handlers.cases.spec import DefaultsSpec
from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.profile import Profile, ProfileSet
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event
from opsmesh.schemas.errors import PayloadError
from opsmesh.schemas.registry import Registry

#: Fields that tell what happened; others are written only where they make a difference.
_TELLING: Final = ("workspace", "severity", "hops", "exit_code")
_OTHERS: Final = (
    *("source", "component", "session_id", "duration_ms", "evidence_path", "run_id", "attempt"),
    *("id", "correlation_id", "causation_id"),
)
#: A list or a mapping of plain values that is no longer than this stands on one line.
_LINE: Final = 72


def draft(
    profiles: Sequence[Profile],
    event: Event,
    *,
    stored_us: int,
    registry: Registry,
    profiles_path: str | None = None,
) -> str:
    """A file with a case for each profile, which passes as it stands; HandlersError when there is
    none, since a step cannot be run for this event.

    `profiles_path` is written as its `profiles`; None: those of the configuration folder.
    """
    cases = [_case(profile, event, stored_us, registry) for profile in profiles]
    head = {"version": 1, **({"profiles": profiles_path} if profiles_path else {})}
    content = {**head, "defaults": {"host": event.host}, "cases": cases}
    origin = f"# Made from event {event.id}, stored at {times.format_us(stored_us)}.\n"
    return origin + dump(content)


def dump(content: Any) -> str:
    """YAML as a person would write it, which `yamlfile` reads back as it is."""
    text: str = yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, indent=2
    )
    return text


def _case(profile: Profile, event: Event, stored_us: int, registry: Registry) -> dict[str, Any]:
    real = Case(
        name="",
        profile=profile,
        host=event.host,
        start_us=stored_us,
        given=(Given(event=registry.upcast(event), stored_us=stored_us),),
    )
    wanted = play(real)
    for firing in wanted.firings:
        for step, problems in firing.broken.items():
            raise HandlersError(
                f"{profile.name} fires, but its step {step} cannot be run: {'; '.join(problems)}"
            )

    def made(given: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": f"{event.topic} {_told(profile, wanted)}",
            "profile": profile.name,
            "at": times.format_us(stored_us).replace(".000000Z", "Z"),
            "given": [given],
            "expect": _expect(profile, wanted),
        }

    fits = _fits(registry, event)

    def good(given: dict[str, Any]) -> bool:
        case = _parsed(made(given), profile, event.host, registry)
        return case is not None and _essence(play(case)) == _essence(wanted)

    fields = _fields(event, registry)
    given = {**_without(fields, _OTHERS), **fits}
    if not good(given):
        kept = fields
        for name in _OTHERS:
            shorter = _without(kept, (name,))
            kept = shorter if good({**shorter, **fits}) else kept
        given = {**kept, **fits}
    if not good(given):
        whole = {k: v for k, v in event.view().items() if v is not None}
        given = {"event": whole, **fits}
    case = _parsed(made(given), profile, event.host, registry)
    if case is None or not judge(case).passed:
        raise HandlersError(f"no case can be written of event {event.id} for {profile.name}")
    return made(given)


def _parsed(
    content: dict[str, Any], profile: Profile, host: str, registry: Registry
) -> Case | None:
    """The case as it would be read from its file."""
    text = dump({"defaults": {"host": host}, "cases": [content]})
    document = yamlfile.parse(text.encode(errors="replace"), file="draft")
    found = parse_cases(document, ProfileSet(profiles={profile.name: profile}), registry)
    return found.cases[0] if found.cases else None


def _fits(registry: Registry, event: Event) -> dict[str, Any]:
    try:
        registry.check(event.topic, event.payload)
    except PayloadError:
        return {"check": False}
    return {}


def _fields(event: Event, registry: Registry) -> dict[str, Any]:
    """The event's fields that are not what a case gives it anyway."""
    known = registry.get(event.topic)
    usual: dict[str, Any] = DefaultsSpec().model_dump()
    usual |= {"severity": known.severity if known else "info", "hops": 0, "host": event.host}
    view = event.view()
    return {
        "topic": event.topic,
        "payload": event.payload,
        **{n: view[n] for n in (*_TELLING, *_OTHERS) if view[n] not in (None, usual.get(n))},
    }


def _without(fields: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _essence(played: Played) -> Any:
    """What must be the same with fewer fields."""
    return (
        [
            (m.at_us, m.decision.outcome, m.decision.clause, m.decision.reason)
            for m in played.moments
            if m.decision
        ],
        [
            (f.at_us, msgspec.json.encode(f.arguments, order="deterministic"))
            for f in played.firings
        ],
    )


def _told(profile: Profile, played: Played) -> str:
    if played.firings:
        return f"fires {profile.name}"
    decision = played.misses[0].decision if played.misses else None
    if decision is None:
        return f"is not for {profile.name}"
    return f"does not fire {profile.name}, {decision.outcome} by {decision.clause}"


def _expect(profile: Profile, played: Played) -> dict[str, Any]:
    fires = [
        {**_at(firing.at_us), "clause": firing.decision.clause, **_arguments(profile, firing)}
        for firing in played.firings
    ]
    missed = [
        {**_at(m.at_us), "outcome": m.decision.outcome, "clause": m.decision.clause}
        for m in played.misses
        if m.decision
    ]
    return {"fires": fires or 0, **({"suppressed": missed} if missed else {})}


def _at(at_us: int) -> dict[str, str]:
    return {"at": clock(at_us)} if at_us else {}


def _arguments(profile: Profile, firing: Firing) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in profile.steps:
        described = step.action.describe()
        marked = templated(described)
        if marked is None or step.id in firing.problems:
            continue
        value = _only(marked, firing.arguments[step.id])
        field = next(iter(described))
        short = list(marked) == [field] and not isinstance(value[field], dict)
        found[step.id] = value[field] if short else value
    return {"arguments": found} if found else {}


def _only(marked: Any, value: Any) -> Any:
    """The parts of a value whose places are in `marked`."""
    if isinstance(marked, dict) and isinstance(value, dict):
        return {key: _only(inner, value[key]) for key, inner in marked.items()}
    if isinstance(marked, list) and isinstance(value, list):
        return [_only(one, other) for one, other in zip(marked, value, strict=True)]
    return value


class _Dumper(yaml.SafeDumper):
    """Short lists and mappings on one line, text of several lines as it stands."""

    # only what the reader would take for something else is put in quotes
    yaml_implicit_resolvers = yamlfile._Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _mapping(dumper: yaml.SafeDumper, value: dict[str, Any]) -> yaml.Node:
    return dumper.represent_mapping(
        "tag:yaml.org,2002:map", value.items(), flow_style=_short(value, value.values())
    )


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    return dumper.represent_sequence(
        "tag:yaml.org,2002:seq", value, flow_style=_short(value, value)
    )


def _short(value: Any, parts: Iterable[Any]) -> bool:
    if any(isinstance(part, dict | list) and part for part in parts):
        return False
    return len(repr(value)) <= _LINE and "\\n" not in repr(value)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(list, _list)
