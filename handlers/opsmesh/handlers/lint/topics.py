"""Topics that nobody knows, in `on`, `unless`, `last(…)`, `emit` and `wait`.

As with `emit`, a topic that is not registered is no error in itself: anybody may send one. One
that is almost a registered one is misspelt.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from opsmesh.handlers.lint import cel, expressions
from opsmesh.handlers.lint.finding import Finding, Severity
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.lint.scenes import wild
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.yamlfile import Where
from opsmesh.router.topic_patterns import topic_matches
from opsmesh.schemas.nearest import nearest
from opsmesh.schemas.registry import Registry

#: Likeness (0 to 1) from which a topic is a misspelt one, and not one of the user's own.
MISSPELT: Final = 0.88
#: Likeness from which the other topic is worth a word.
LIKE: Final = 0.8

_ADD: Final = "add it to topics.yaml, and its fields are checked too"


def emitted(profiles: Iterable[Profile]) -> frozenset[str]:
    """The topics that the profiles' steps emit."""
    return frozenset(topic for profile in profiles for _, topic in _emits(profile))


def lint(
    profile: Profile,
    places: Places,
    registry: Registry,
    *,
    emitted: frozenset[str],
    strict: bool = False,
) -> Iterator[Finding]:
    """Topics of the profile that are not registered; errors where `strict` refuses their events."""
    unknown: Severity = "error" if strict else "warning"

    def named(topic: str) -> tuple[Severity, str, str] | None:
        if registry.is_registered(topic):
            return None
        near = registry.nearest(topic)
        like = difflib.SequenceMatcher(None, topic, near).ratio() if near else 0.0
        said = f"topic {topic!r} is not registered"
        if near and like >= MISSPELT:
            return "error", said, f"did you mean {near!r}?"
        return unknown, said, f"did you mean {near!r}? else {_ADD}" if like >= LIKE else _ADD

    for where, pattern in _listened(profile, places):
        if wild(pattern):
            known = [topic.name for topic in registry]
            if not any(topic_matches(pattern, topic) for topic in (*known, *emitted)):
                yield places.finding(
                    "warning",
                    where,
                    f"{pattern!r} matches no known topic",
                    hint=_near(pattern, known),
                )
        elif pattern not in emitted and (found := named(pattern)) is not None:
            yield places.finding(found[0], where, found[1], hint=found[2])
    for where, topic in _emits(profile):
        if (found := named(topic)) is not None:
            yield places.finding(found[0], where, found[1], hint=found[2])
    for where, text, _ in expressions.conditions(profile):
        for node in _nodes(cel.parse(text)):
            if isinstance(node, cel.Call) and node.name == "last" and node.args:
                first = node.args[0]
                asked = first.value if isinstance(first, cel.Literal) else None
                if not isinstance(asked, str) or asked in emitted:
                    continue
                if (found := named(asked)) is not None:
                    yield places.finding(
                        found[0], where, found[1], hint=found[2], text=text, at=first.at
                    )


def _listened(profile: Profile, places: Places) -> Iterator[tuple[Where, str]]:
    for number, pattern in enumerate(profile.on):
        yield places.listed(("on",), number), pattern
    if profile.rule.unless is not None:
        for number, pattern in enumerate(profile.rule.unless.on):
            yield places.listed(("unless", "on"), number), pattern
    for number, step in enumerate(profile.steps):
        if step.action.key == "wait":
            at: Where = ("actions", number, "wait")
            at = (*at, "on") if places.exists((*at, "on")) else at
            for index, pattern in enumerate(step.action.describe()["on"]):
                yield places.listed(at, index), pattern


def _emits(profile: Profile) -> Iterator[tuple[Where, str]]:
    for number, step in enumerate(profile.steps):
        if step.action.key == "emit":
            where: Where = ("actions", number, "emit", "topic")
            yield where, step.action.describe()["topic"]
        elif step.action.key == "mcp" and (topic := step.action.describe()["result"]):
            yield ("actions", number, "mcp", "result"), topic


def _nodes(node: cel.Node | None) -> Iterator[cel.Node]:
    if node is not None:
        yield node
        yield from itertools.chain.from_iterable(map(_nodes, cel.children(node)))


def _near(pattern: str, known: Iterable[str]) -> str:
    first, _, rest = pattern.partition(".")
    topics = list(known)
    near = nearest(first, {topic.partition(".")[0] for topic in topics})
    if near and any(topic_matches(f"{near}.{rest}", topic) for topic in topics):
        return f"did you mean '{near}.{rest}'?"
    return "opsmesh topics ls shows them; add yours to topics.yaml"
