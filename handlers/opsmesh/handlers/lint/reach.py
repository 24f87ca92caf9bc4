"""What can never come to pass: conditions that are decided by their text, and clauses that another
clause leaves nothing to do. Only what is certain is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opsmesh.handlers.lint import cel, contradictions, expressions, scenes
from opsmesh.handlers.lint.finding import Finding, Severity
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.lint.scenes import Read
from opsmesh.handlers.lint.world import UNKNOWN
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.yamlfile import Where
from opsmesh.router.conditions import ConditionError, Expression
from opsmesh.schemas import durations
from opsmesh.schemas.envelope import host_token
from opsmesh.schemas.nearest import did_you_mean
from opsmesh.schemas.registry import Registry


def lint(profile: Profile, places: Places, registry: Registry, *, host: str) -> Iterator[Finding]:
    """Unreachable clauses of the profile; a note when it is for another host than this one."""
    for where, text, on in expressions.conditions(profile):
        yield from _condition(profile, places, registry, where, text, on)
    yield from _windows(profile, places)
    yield from _limits(profile, places)
    run_on = profile.run_on
    if run_on not in ("origin", "any") and host_token(run_on) != host_token(host):
        yield places.finding(
            "note",
            ("run_on",),
            f"runs on {run_on}, and this is {host}",
            hint="on this host it decides nothing",
        )


def _condition(
    profile: Profile,
    places: Places,
    registry: Registry,
    where: Where,
    text: str,
    on: tuple[str, ...],
) -> Iterator[Finding]:
    name = ".".join(map(str, where))
    tree = cel.parse(text)
    found = expressions.read(profile, text, on, registry)
    expression = Expression(text)
    if not expression.names and not expression.last:
        if found is None or not found.said:
            yield from _constant(places, where, name, expression)
        return
    if tree is None or found is None:
        return
    odd = list(contradictions.find(tree))
    for one in odd:
        severity: Severity = "error" if one.whole else "warning"
        yield places.finding(severity, where, one.message, hint=one.hint, text=text, at=one.at)
    value = scenes.always(found)
    topics = [said for said in found.said if said.code == "topic"]
    for said in topics:
        severity = "error" if value is False else "warning"
        near = did_you_mean(said.message.rpartition(" ")[2], on).removeprefix("; ")
        hint = near or f"it has {scenes.told(on)}"
        if name == "unless.where":
            said_of = said.message.replace("'on'", "'unless.on'")
        else:
            said_of = said.message
        yield places.finding(severity, where, said_of, hint=hint, text=text, at=said.at)
    if odd or topics or any(said.error for said in found.said):
        return
    if value is False:
        yield places.finding("error", where, f"{name!r} is never true", hint=_meaning(name))
    elif value is True:
        yield places.finding("warning", where, f"{name!r} is always true", hint="leave it out")
    else:
        yield from _never_for(profile, places, where, name, on, found)


def _constant(places: Places, where: Where, name: str, expression: Expression) -> Iterator[Finding]:
    try:
        value = expression.evaluate({})
    except ConditionError as error:
        yield places.finding("error", where, f"{name!r} has no answer: {error.reason}")
        return
    if value is True:
        yield places.finding("warning", where, f"{name!r} is always true", hint="leave it out")
    elif value is False:
        yield places.finding("error", where, f"{name!r} is never true", hint=_meaning(name))


def _meaning(name: str) -> str:
    if name == "where":
        return "the profile never fires; state: disabled says so"
    return "no event ever ends the wait"


def _never_for(
    profile: Profile, places: Places, where: Where, name: str, on: tuple[str, ...], found: Read
) -> Iterator[Finding]:
    """Topics that are asked for by name, and that the condition always refuses."""
    values: dict[str | None, Any] = dict(found.values)
    never = [topic for topic in on if values.get(topic, UNKNOWN) is False]
    if not never:
        return
    message = f"{name!r} is never true for {scenes.told(never)}"
    if profile.rule.correlate is not None and name == "where":
        hint = "correlate waits for an event of every topic, and never fires"
        yield places.finding("error", where, message, hint=hint)
    else:
        yield places.finding("warning", where, message, hint="take it out of 'on', or ask for it")


def _windows(profile: Profile, places: Places) -> Iterator[Finding]:
    """Windows that end before another one lets a second event through."""
    rule = profile.rule
    debounce, collect, throttle = rule.debounce, rule.collect, rule.throttle
    if debounce is None:
        return
    window = debounce.window_us
    if debounce.max_wait_us == window:
        yield places.finding(
            "warning",
            ("debounce", "max_wait"),
            "max_wait is no longer than window: no event ever prolongs a burst",
            hint="make it longer, or leave it out to wait until it is quiet",
        )
    # debounce lets one event of its key pass in a window's time: a clause after it that tells
    # apart at least as much never sees a second one in a shorter time
    if collect is not None:
        if set(debounce.key) <= set(collect.key) and window >= collect.window_us:
            yield places.finding(
                "warning",
                ("collect", "window"),
                f"collect never holds a second event: debounce lets one pass in {_text(window)}",
                hint="make its window longer than debounce's, or leave debounce out",
            )
    elif (
        throttle is not None
        and set(debounce.key) <= set(throttle.key)
        and window >= throttle.per_us
    ):
        yield places.finding(
            "warning",
            ("throttle", "per"),
            f"throttle never drops anything: debounce lets one pass in {_text(window)}",
            hint="make 'per' longer than debounce's window, or leave throttle out",
        )


def _limits(profile: Profile, places: Places) -> Iterator[Finding]:
    rule = profile.rule
    throttle, limits = rule.throttle, rule.limits
    if (
        throttle is not None
        and limits is not None
        and not throttle.key
        and limits.at_most >= throttle.at_most
        and limits.per_us <= throttle.per_us
    ):
        yield places.finding(
            "warning",
            ("limits", "runs"),
            f"limits never stops anything: throttle lets {throttle.at_most} pass "
            f"in {_text(throttle.per_us)}",
            hint="leave one of the two out",
        )
    for number, step in enumerate(profile.steps):
        if step.timeout is not None and step.timeout > profile.timeout:
            yield places.finding(
                "warning",
                ("actions", number, "timeout"),
                f"the step's timeout is never reached: the profile's is "
                f"{durations.text(profile.timeout)}",
                hint="timeout of the profile is for all of its steps together",
            )


def _text(us: int) -> str:
    return durations.text(us / 1e6)
