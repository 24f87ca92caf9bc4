"""What a stage made of an event, in words: the window that it saw, and what comes of it.

The stage itself is asked again (`arrive` is pure), so that the words cannot differ from what was
decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opsmesh.handlers.explain.wording import count, span, value
from opsmesh.router.clauses import field
from opsmesh.router.stages import (
    Collect,
    Correlate,
    Debounce,
    Item,
    Limits,
    Stage,
    Step,
    Throttle,
    Unless,
    Window,
)
from opsmesh.schemas.times import clock


def arrived(stage: Stage, window: Window | None, item: Item) -> str:
    """What the stage made of `item`, with `window` as it was before."""
    step = stage.arrive(window, (item,), item.stored_us)
    return _ARRIVED[type(stage)](stage, window, step, item.stored_us)


def over(stage: Stage, window: Window) -> str:
    """Why a window passed on by itself at its time."""
    began = clock(window.opened_us)
    if isinstance(stage, Unless):
        return f"no {_or(stage.on)} came within {span(stage.within_us)} of {began}"
    if isinstance(stage, Debounce):
        events = count(window.count + 1, "event")
        quiet = span((window.due_us or 0) - window.last_us)
        return f"the burst of {events} since {began} ended: none for {quiet}"
    return f"{count(window.count, 'event')} since {began}: its {_span_of(stage)} is over"


def key(stage: Stage, view: Mapping[str, Any]) -> str:
    """The values that tell this event's window from others; empty where there is one for all."""
    return ", ".join(f"{path}={value(field(view, path))}" for path in stage.key)


def _unless(stage: Unless, window: Window | None, step: Step, now_us: int) -> str:
    due_us = step.window.due_us if step.window else None
    fires = f"fires at {clock(due_us or 0)} unless {_or(stage.on)} comes"
    if window is None:
        return fires
    return f"the wait that began at {clock(window.opened_us)} goes on: {fires}"


def _correlate(stage: Correlate, window: Window | None, step: Step, now_us: int) -> str:
    if step.passed is not None:
        return f"complete: {step.reason}"
    if stage.ordered or step.window is None:
        return f"{step.reason} (in this order, within {span(stage.within_us)})"
    items = step.window.items
    here = ", ".join(f"{item.topic} ({clock(item.stored_us)})" for item in items)
    until = clock(min(item.stored_us for item in items) + stage.within_us)
    return f"has {here}; {step.reason} until {until}"


def _debounce(stage: Debounce, window: Window | None, step: Step, now_us: int) -> str:
    wide = span(stage.window_us)
    if stage.edge == "trailing" and step.window is not None:
        since = f"{count(step.window.count + 1, 'event')} since {clock(step.window.opened_us)}"
        return f"{since}, fires at {clock(step.window.due_us or 0)} unless another comes"
    if window is None:
        return f"the first of its burst: none in the {wide} before it"
    quiet = span(now_us - window.last_us)
    if step.passed is not None:
        if now_us - window.last_us >= stage.window_us:
            return f"the first of its burst: the last was {quiet} before, the window is {wide}"
        lasted = span(now_us - window.opened_us)
        return (
            f"a new burst: the last one had lasted {lasted}, at most {span(stage.max_wait_us or 0)}"
        )
    held = f"{window.count} held back before it, " if window.count else ""
    return (
        f"in a burst since {clock(window.opened_us)}: {held}the last {quiet} before it; "
        f"the window is {wide}"
    )


def _collect(stage: Collect, window: Window | None, step: Step, now_us: int) -> str:
    if step.passed is not None:
        began = clock(window.opened_us) if window else clock(now_us)
        return f"{count(stage.max, 'event')} since {began}: as many as one run takes"
    after = step.window
    if after is None:
        return step.reason
    since = f"{count(after.count, 'event')} since {clock(after.opened_us)}"
    return f"{since}, fires at {clock(after.due_us or 0)} or with {stage.max}"


def _throttle(stage: Throttle, window: Window | None, step: Step, now_us: int) -> str:
    passed = window.passed_us if window else ()
    recent = [at for at in passed if now_us - at < stage.per_us]
    if step.passed is not None:
        return f"number {len(recent) + 1} of at most {stage.at_most} in {span(stage.per_us)}"
    free = clock(recent[-stage.at_most] + stage.per_us)
    return (
        f"{len(recent)} in the last {span(stage.per_us)}, at most {stage.at_most} pass; "
        f"the next from {free} on"
    )


def _or(topics: Sequence[str]) -> str:
    return " or ".join(topics)


def _span_of(stage: Stage) -> str:
    return span(stage.window_us) if isinstance(stage, Collect) else "time"


_ARRIVED: dict[type[Any], Callable[[Any, Window | None, Step, int], str]] = {
    Unless: _unless,
    Correlate: _correlate,
    Debounce: _debounce,
    Collect: _collect,
    Throttle: _throttle,
    Limits: _throttle,
}
