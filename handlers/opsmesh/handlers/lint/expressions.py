"""The expressions of a profile: its conditions, the placeholders of its actions, and its keys, each
read with the payloads of the topics that it can meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from opsmesh.handlers.bundles import report
from opsmesh.handlers.lint import cel, kinds, scenes
from opsmesh.handlers.lint.finding import Finding
from opsmesh.handlers.lint.kinds import Type
from opsmesh.handlers.lint.places import Places, texts
from opsmesh.handlers.lint.scenes import Read, Said, Scene
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.steps import Step
from opsmesh.handlers.profiles.yamlfile import Where
from opsmesh.handlers.secrets import reference
from opsmesh.handlers.template import PLACEHOLDER
from opsmesh.schemas.registry import Registry

#: Clauses with a key of the event's fields.
KEYED: Final = ("debounce", "collect", "throttle", "concurrency", "correlate", "unless")

#: What steps of our own actions give, beside what every step gives.
_OUTPUTS: Final[dict[str, dict[str, Type]]] = {
    "a2a": {
        "task_id": kinds.of(str | None),
        "state": kinds.TEXT,
        "status_message": kinds.TEXT,
        "text": kinds.TEXT,
        "data": kinds.ANY,
        "artifacts": replace(kinds.LIST, item=kinds.MAP),
        "truncated": kinds.BOOL,
        "updates": kinds.INT,
        "duration_ms": kinds.FLOAT,
    },
    "collect": {
        "path": kinds.TEXT,
        "files": replace(kinds.LIST, item=kinds.TEXT),
        "errors": replace(kinds.LIST, item=kinds.TEXT),
        "bundle": kinds.TEXT,
        "report": kinds.TEXT,
        "facts": kinds.MAP,
    },
    "command": {
        "stdout": kinds.TEXT,
        "stderr": kinds.TEXT,
        "truncated": kinds.BOOL,
        "signal": kinds.of(str | None),
        "duration_ms": kinds.FLOAT,
    },
    "emit": {"id": kinds.TEXT, "topic": kinds.TEXT},
    "mcp": {
        "structured": kinds.ANY,
        "text": kinds.TEXT,
        "truncated": kinds.BOOL,
        "is_error": kinds.BOOL,
        "parts": replace(kinds.LIST, item=kinds.TEXT),
        "refused": replace(kinds.LIST, item=kinds.TEXT),
        "duration_ms": kinds.FLOAT,
        "event": kinds.of(str | None),
        "kind": kinds.TEXT,
    },
    "trigger": {"profile": kinds.TEXT, "event_id": kinds.TEXT, "trigger_id": kinds.TEXT},
}
#: What is said of the functions that a report has beside CEL's own.
_OF_REPORTS: Final = frozenset(f"CEL has no function {name}()" for name in report.FUNCTIONS)
_EVERY_STEP: Final = {
    "ok": kinds.BOOL,
    "exit_code": kinds.of(int | None),
    "evidence_path": kinds.of(str | None),
}
#: What a step that asks has beside its output.
_APPROVAL: Final = replace(
    kinds.MAP,
    fields={
        "verdict": replace(kinds.TEXT, values=("granted", "denied", "expired")),
        "by": kinds.TEXT,
        "answer": kinds.Type(),
    },
    lacks="an approval has no {}",
)


def gives(step: Step) -> bool:
    """Whether everything that the step gives is known: what is read beside it is an error here."""
    return step.action.key in _OUTPUTS


def conditions(profile: Profile) -> Iterator[tuple[Where, str, tuple[str, ...]]]:
    """The profile's conditions: where each stands, its text, and the topics it is asked about."""
    rule = profile.rule
    if rule.where is not None:
        yield ("where",), rule.where.text, rule.on
    if rule.unless is not None and rule.unless_where is not None:
        yield ("unless", "where"), rule.unless_where.text, rule.unless.on


def read(profile: Profile, text: str, on: Sequence[str], registry: Registry) -> Read | None:
    """A condition, read for every topic; None when it is not understood."""
    tree = cel.parse(text)
    if tree is None:
        return None
    return scenes.read(tree, scenes.scenes(on, registry), names_of(profile), registry)


def names_of(profile: Profile) -> dict[str, Type]:
    """What a condition may name, beside the event."""
    of_vars = replace(kinds.of_value(dict(profile.vars)), lacks="'vars' has no {}")
    return {"host": kinds.TEXT, "now": kinds.TIME, "vars": of_vars}


def lint(profile: Profile, places: Places, registry: Registry) -> list[Finding]:
    """What is wrong with the profile's expressions."""
    return [
        *_conditions(profile, places, registry),
        *_placeholders(profile, places, registry),
        *_keys(profile, places, registry),
    ]


def _conditions(profile: Profile, places: Places, registry: Registry) -> Iterator[Finding]:
    for where, text, on in conditions(profile):
        found = read(profile, text, on, registry)
        if found is None:
            continue
        for said in found.said:
            if said.code != "topic":  # `reach` knows whether anything is left beside it
                yield _finding(places, where, said, text=text, at=said.at)
        odd = next((one for one in found.types if one.never("bool")), None)
        if odd is not None:
            yield places.finding(
                "error", where, f"a condition is true or false, and this is {odd.spoken}"
            )


def _placeholders(profile: Profile, places: Places, registry: Registry) -> Iterator[Finding]:
    over = scenes.scenes(profile.on, registry)
    for number, (step, source) in enumerate(
        zip(profile.steps, profile.source["actions"], strict=True)
    ):
        names = {**names_of(profile), "steps": _steps(profile.steps[:number])}
        if step.when is not None and (tree := cel.parse(step.when)) is not None:
            for said in scenes.read(tree, over, names, registry).said:
                where: Where = ("actions", number, "when")
                yield _finding(places, where, said, text=step.when, at=said.at)
        written = [*texts(source.get(step.action.key), ("actions", number, step.action.key))]
        if step.approve is not None:
            written.append((_prompt(source, number), step.approve.prompt))
        for where, text in written:
            for at, inside in placeholders(text):
                if reference.mentioned(inside):  # no CEL; where it stands was looked at already
                    continue
                tree = cel.parse(inside)
                if tree is None:
                    continue
                for said in scenes.read(tree, over, names, registry).said:
                    if not (said.message in _OF_REPORTS and where[-2:] == ("collect", "report")):
                        yield _finding(places, where, said, text=text, at=at + said.at)


def _prompt(source: Mapping[str, Any], number: int) -> Where:
    where: Where = ("actions", number, "approve")
    return (*where, "prompt") if isinstance(source.get("approve"), Mapping) else where


def placeholders(text: str) -> Iterator[tuple[int, str]]:
    """The expressions of the placeholders in a text, and where each begins."""
    for found in PLACEHOLDER.finditer(text):
        yield found.start("inside"), found["inside"]


def _steps(before: Sequence[Step]) -> Type:
    fields = {step.id: _output(step) for step in before}
    return replace(kinds.MAP, fields=fields, lacks="no step {} runs before this one")


def _output(step: Step) -> Type:
    own = _OUTPUTS.get(step.action.key)
    if own is None:
        return kinds.MAP
    if step.approve is not None:
        own = {**own, "approval": _APPROVAL}
    lacks = f"step {step.id!r} ({step.action.key}) gives no {{}}"
    return replace(kinds.MAP, fields={**own, **_EVERY_STEP}, lacks=lacks)


def _keys(profile: Profile, places: Places, registry: Registry) -> Iterator[Finding]:
    for clause in KEYED:
        spec = profile.source.get(clause)
        key = spec.get("key") if isinstance(spec, Mapping) else None
        for number, path in enumerate([key] if isinstance(key, str) else key or ()):
            tree = cel.parse(f"event.{str(path).removeprefix('event.')}")
            said = None if tree is None else _lacking(profile, clause, tree, registry)
            if said is not None:
                where = places.listed((clause, "key"), number)
                yield _finding(places, where, replace(said, message=f"key: {said.message}"))


def _lacking(profile: Profile, clause: str, tree: cel.Node, registry: Registry) -> Said | None:
    """What makes a key meaningless. A field that some topics lack is null there, which may be
    meant; but what is to meet by its key must have it on every side."""
    rule = profile.rule
    sides: list[tuple[str, ...]] = [rule.on]
    if clause == "correlate":
        sides = [(pattern,) for pattern in rule.on]
    elif clause == "unless" and rule.unless is not None:
        sides.append(rule.unless.on)
    for side in sides:
        over: tuple[Scene, ...] = scenes.scenes(side, registry)
        said = scenes.read(tree, over, {}, registry).said
        wrong = next((one for one in said if one.error), None)
        if wrong is not None:
            return wrong
    return None


def _finding(places: Places, where: Where, said: Said, **spot: Any) -> Finding:
    severity: Any = "error" if said.error else "warning"
    return places.finding(severity, where, said.message, hint=said.hint, **spot)
