"""Loops: profiles whose events, or the results of whose runs, fire each other without end.

`hops` ends every loop, after as many events, but not one through `opsmesh emit`. A `where` that can
be seen to refuse the event is no part of a loop; where it cannot be seen, a loop in which every
profile has one is a warning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, get_args

from opsmesh.handlers.lint import cel, expressions, kinds
from opsmesh.handlers.lint.finding import Finding, Severity
from opsmesh.handlers.lint.infer import Walk
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.lint.scenes import Scene
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.yamlfile import Where
from opsmesh.router.topic_patterns import listens, topic_matches
from opsmesh.schemas.payloads.a2a import State
from opsmesh.schemas.registry import Registry

#: What becomes of every run is an event too.
RESULTS: Final = (
    "automation.run.succeeded",
    "automation.run.failed",
    "automation.run.deadlettered",
)


@dataclass(frozen=True, kw_only=True)
class Out:
    """An event that a profile causes; `known` are values of it by their paths. `where` is the step
    that emits it, None for the result of a run. An event of `opsmesh emit` does not count hops. One
    that is handed `to` a profile is that one's alone."""

    topic: str
    known: Mapping[str, Any]
    where: Where | None = None
    counts: bool = True
    to: str = ""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One profile's event that fires another, or itself."""

    source: str
    out: Out
    target: str


def lint(
    profiles: Sequence[Profile], places: Mapping[str, Places], registry: Registry
) -> Iterator[Finding]:
    """Every loop once, at the step that emits into it, or at the `on` that hears a result."""
    named = {profile.name: profile for profile in profiles if profile.state != "disabled"}
    caused = {name: outs(profile) for name, profile in named.items()}
    edges = {
        name: [
            Edge(source=name, out=out, target=other.name)
            for other in named.values()
            for out in [_heard(caused[name], other, registry)]
            if out is not None
        ]
        for name in named
    }
    seen: set[frozenset[str]] = set()
    for name in named:
        loop = _shortest(name, edges)
        members = frozenset(edge.source for edge in loop)
        if loop and members not in seen:
            seen.add(members)
            yield _finding(loop, named, places)


def outs(profile: Profile) -> list[Out]:
    """The events that a run of the profile causes: those of its steps first."""
    from_profile = {"event.source": "opsmesh", "event.component": profile.name}
    found: list[Out] = []
    for number, step in enumerate(profile.steps):
        spec = step.action.describe()
        if step.action.key == "command" and (topic := _sent(spec["argv"])):
            at: Where = ("actions", number, "command")
            found.append(Out(topic=topic, known={}, where=at, counts=False))
        if step.action.key == "a2a":
            found += _answers(spec, number)
        if step.action.key == "trigger":
            at = ("actions", number, "trigger")
            found.append(Out(topic="trigger", known={}, where=at, to=spec["profile"]))
        if step.action.key == "mcp":
            at = ("actions", number, "mcp")
            called = {f"event.payload.{key}": spec[key] for key in ("server", "tool")}
            failed = {**from_profile, "event.severity": "warn", **called}
            found.append(Out(topic="mcp.tool.failed", known=failed, where=at))
            if spec["result"]:
                found.append(Out(topic=spec["result"], known=dict(from_profile), where=at))
        if step.action.key != "emit":
            continue
        payload = spec["payload"] if isinstance(spec["payload"], dict) else {}
        known: dict[str, Any] = {
            **from_profile,
            "event.severity": spec["severity"],
            **({"event.component": spec["component"]} if spec["component"] else {}),
            **{f"event.payload.{key}": value for key, value in payload.items()},
        }
        found.append(
            Out(
                topic=spec["topic"],
                known={path: value for path, value in known.items() if _constant(value)},
                where=("actions", number, "emit", "topic"),
            )
        )
    about = {**from_profile, "event.payload.profile": profile.name}
    if len(profile.on) == 1 and not {"*", ">"} & set(profile.on[0].split(".")):
        about["event.payload.trigger_topic"] = profile.on[0]
    return [*found, *(Out(topic=topic, known=about) for topic in RESULTS)]


def _answers(spec: Mapping[str, Any], number: int) -> Iterator[Out]:
    """What an agent's answer becomes."""
    where: Where = ("actions", number, "a2a")
    from_agent = {"event.component": spec["agent"]}
    for state in get_args(State):
        known = {"event.payload.agent": spec["agent"], "event.payload.state": state}
        yield Out(topic=f"a2a.task.{state}", known={**from_agent, **known}, where=where)
    if spec["topic"]:
        yield Out(topic=spec["topic"], known=from_agent, where=(*where, "topic"))


def _sent(argv: Sequence[str]) -> str | None:
    """The topic of a step that starts `opsmesh emit TOPIC`."""
    sends = len(argv) > 2 and PurePath(argv[0]).name == "opsmesh" and argv[1] == "emit"
    return argv[2] if sends and _constant(argv[2]) else None


def _constant(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and "${{" not in value)


def _heard(found: Sequence[Out], by: Profile, registry: Registry) -> Out | None:
    """The first of these events that may fire the profile."""
    return next((out for out in found if _fires(out, by, registry)), None)


def _fires(out: Out, by: Profile, registry: Registry) -> bool:
    if out.to:
        return out.to == by.name and by.rule.max_hops > 0
    if not listens(by.on, out.topic) or (out.counts and by.rule.max_hops < 1):
        return False
    tree = cel.parse(by.rule.where.text) if by.rule.where else None
    if tree is None:
        return True
    payload = kinds.payload(registry.get(out.topic))
    scene = Scene(topic=out.topic, payload=payload, patterns=by.on)
    constants = {f"vars.{key}": v for key, v in by.vars.items() if isinstance(v, str | int | float)}
    world = scene.world(expressions.names_of(by), registry, **out.known, **constants)
    return Walk(world).see(tree).value is not False


def _shortest(name: str, edges: Mapping[str, Sequence[Edge]]) -> list[Edge]:
    """The shortest way from a profile back to itself; none where there is none."""
    ways: deque[list[Edge]] = deque([edge] for edge in edges[name])
    found = {edge.target for edge in edges[name]}
    while ways:
        way = ways.popleft()
        if way[-1].target == name:
            return way
        for edge in edges[way[-1].target]:
            if edge.target == name or edge.target not in found:
                found.add(edge.target)
                ways.append([*way, edge])
    return []


def _finding(
    loop: Sequence[Edge], named: Mapping[str, Profile], places: Mapping[str, Places]
) -> Finding:
    members = [named[edge.source] for edge in loop]
    way = " → ".join([part for e in loop for part in (e.source, e.out.topic)] + [loop[0].source])
    # a `where` is not asked about what is handed to its profile
    guarded = all(profile.rule.where is not None for profile in members) and not all(
        edge.out.to for edge in loop
    )
    live = all(profile.state == "enabled" for profile in members)
    severity: Severity = "warning" if guarded or not live else "error"
    limit = min(profile.rule.max_hops for profile in members)
    hint = f"'hops' stops it after {limit} {'event' if limit == 1 else 'events'}; "
    if not all(edge.out.counts for edge in loop):
        hint = "nothing stops it: opsmesh emit begins to count hops anew; use the action emit"
    elif guarded:
        hint += "see that a 'where' on its way refuses such an event"
    elif all(edge.out.to for edge in loop):
        hint += "take one of the triggers away"
    elif all(edge.out.where is None for edge in loop):
        hint += f'leave its own runs out: where: event.payload.profile != "{loop[0].source}"'
    else:
        hint += "a 'where' that refuses such an event breaks it"
    emitting = next((edge for edge in loop if edge.out.where is not None), None)
    if emitting is not None and emitting.out.where is not None:
        at = emitting.out.where
        return places[emitting.source].finding(severity, at, f"loop: {way}", hint=hint)
    target = named[loop[0].target]
    heard = next(n for n, p in enumerate(target.on) if topic_matches(p, loop[0].out.topic))
    where = places[target.name].listed(("on",), heard)
    return places[target.name].finding(severity, where, f"loop: {way}", hint=hint)
