"""The kinds of events that an expression may be read with, one for each topic, and what is said
when something is wrong with all of them, or with some.

With several topics a field must be there in each that reaches it: in none is an error, in some only
is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsmesh.handlers.lint import cel, kinds
from opsmesh.handlers.lint.infer import Walk
from opsmesh.handlers.lint.kinds import Type
from opsmesh.handlers.lint.world import UNKNOWN, Problem, World
from opsmesh.router.topic_patterns import listens, topic_matches
from opsmesh.schemas.nearest import nearest
from opsmesh.schemas.registry import Registry
from opsmesh.schemas.topics import VERSION_KEY

#: Topics that a message names before it counts the rest.
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Events of one topic; of topics that nobody has registered where `topic` is None."""

    topic: str | None
    payload: Type
    patterns: tuple[str, ...]

    def world(self, names: Mapping[str, Type], registry: Registry, **known: Any) -> World:
        """What an expression is read with here. `known` values are paths of the event."""
        event = kinds.event(self.payload)
        topic = {} if self.topic is None else {"event.topic": self.topic}
        return World(
            names={**names, "event": event, "events": Type(kinds=kinds.LIST.kinds, item=event)},
            last=lambda topic: kinds.event(kinds.payload(registry.get(topic))),
            known={**topic, **known},
            covers=lambda topic: listens(self.patterns, topic),
        )


@dataclass(frozen=True, kw_only=True)
class Said:
    """Something to say of an expression, at a place of its text."""

    at: int
    error: bool
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What came of reading an expression in every scene: what is to be said, and its value by
    topic where that is certain."""

    said: tuple[Said, ...]
    values: tuple[tuple[str | None, Any], ...]
    types: tuple[Type, ...]


def scenes(patterns: Sequence[str], registry: Registry) -> tuple[Scene, ...]:
    """A scene for every topic that the patterns cover, and one for topics yet unknown."""
    found: dict[str | None, Scene] = {}
    for pattern in patterns:
        if wild(pattern):
            for topic in registry:
                if topic_matches(pattern, topic.name):
                    found[topic.name] = _scene(topic.name, patterns, registry)
        else:
            found[pattern] = _scene(pattern, patterns, registry)
    if any(map(wild, patterns)):
        found[None] = Scene(topic=None, payload=kinds.MAP, patterns=tuple(patterns))
    return tuple(found.values())


def wild(pattern: str) -> bool:
    """Whether it is a pattern, and not a topic."""
    return "*" in pattern or ">" in pattern


def read(
    tree: cel.Node, over: Sequence[Scene], names: Mapping[str, Type], registry: Registry
) -> Read:
    """Read the expression in every scene."""
    walks: list[tuple[Scene, Walk]] = []
    values: list[tuple[str | None, Any]] = []
    types: list[Type] = []
    for scene in over:
        walk = Walk(scene.world(names, registry))
        seen = walk.see(tree)
        values.append((scene.topic, seen.value))
        types.append(seen.type)
        walks.append((scene, walk))
    known = [pair for pair in walks if pair[0].topic is not None] or walks
    places: dict[tuple[int, str], None] = {}
    for _, walk in known:
        places.update(((problem.at, problem.code), None) for problem in walk.problems)
    return Read(
        said=tuple(
            said for at, code in sorted(places) if (said := _say(at, code, known)) is not None
        ),
        values=tuple(values),
        types=tuple(types),
    )


def always(read: Read) -> Any:
    """The value that the expression has in every scene; UNKNOWN when it has not."""
    values = {repr(value): value for _, value in read.values}
    return next(iter(values.values())) if len(values) == 1 else UNKNOWN


def told(names: Iterable[str]) -> str:
    """Names for a message: the first few, and how many more."""
    found = list(dict.fromkeys(names))
    rest = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + rest


def _scene(topic: str, patterns: Sequence[str], registry: Registry) -> Scene:
    return Scene(topic=topic, payload=kinds.payload(registry.get(topic)), patterns=tuple(patterns))


def _say(at: int, code: str, walks: list[tuple[Scene, Walk]]) -> Said | None:
    holding: list[tuple[str, Problem]] = []
    right: list[str] = []
    for scene, walk in walks:
        problem = next((p for p in walk.problems if (p.at, p.code) == (at, code)), None)
        if problem is not None:
            holding.append((scene.topic or "", problem))
        elif at in walk.reached:
            right.append(scene.topic or "")
    first = holding[0][1]
    if code == "asked" and right:
        return None  # has() is there to tell such topics apart
    if code in ("missing", "asked"):
        return _missing(at, [problem for _, problem in holding], right)
    message = first.message
    if right:
        message += f", in {told(topic for topic, _ in holding)}"
    return Said(at=at, error=first.sure and not right, code=code, message=message, hint=first.hint)


def _missing(at: int, problems: list[Problem], right: list[str]) -> Said:
    first = problems[0]
    owners = list(dict.fromkeys(problem.owner for problem in problems))
    known = sorted({name for problem in problems for name in problem.known} - {VERSION_KEY})
    near = nearest(first.field, known)
    hint = f"did you mean {near!r}?" if near else ""
    if len(owners) == 1:
        message = first.message
    else:
        message = first.message.replace(f"{owners[0]} has no", f"none of {told(owners)} has a", 1)
    if right:
        plural = "has" if len(right) == 1 else "have"
        message = f"{first.message}, which {told(right)} {plural}"
        if len(owners) > 1:
            message = message.replace(f"{owners[0]} has", f"{told(owners)} have", 1)
        hint = f"ask first: has(…), or event.topic == {right[0]!r}".replace("'", '"')
    elif not known:
        hint = "there are none"
    elif not hint and first.sure:
        hint = f"there are {', '.join(known[:12])}{', …' if len(known) > 12 else ''}"
    return Said(at=at, error=first.sure and not right, code="missing", message=message, hint=hint)
