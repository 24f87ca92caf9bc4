"""What `status` and `doctor` say of the spool and the agent: the facts, and what mends them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from opsmesh.cli import sizes
from opsmesh.router.spool_state import State
from opsmesh.schemas import durations

#: Share of the limit from which a filling spool is a problem.
NEARLY_FULL: Final = 0.8

_WHEN_FULL = {
    "refuse": "then new events are refused, and their callers have to keep them",
    "drop_oldest": "then the oldest events are dropped",
    "drop_newest": "then new events are dropped",
}


def problems(state: State) -> Iterator[tuple[str, str]]:
    """What is wrong, and what mends it."""
    if state.bytes >= NEARLY_FULL * state.max_bytes:
        share = f"{sizes.text(state.bytes)} of spool.max_bytes {sizes.text(state.max_bytes)}"
        what = f"the spool is full or nearly so, {share}: {_WHEN_FULL[state.when_full]}"
        yield what, "bring the broker back (opsmesh doctor), or raise spool.max_bytes"
    if state.files:
        age = f", the oldest for {_age(state.oldest_s)}" if state.oldest_s is not None else ""
        what = f"{state.files} files wait in the spool{age}: the broker has not stored them yet"
        yield what, "none needed: the agent sends them once the broker answers"
    if state.damaged:
        what = f"{state.damaged} files of the spool hold damaged records, which were set aside"
        fix = "opsmesh spool ls --damaged, then opsmesh spool retry or opsmesh spool drop"
        yield what, fix
    if state.untold:
        what = f"{state.untold} events were dropped from the spool, and are not reported yet"
        yield what, "none needed: the agent reports them once the broker has the rest"


def summary(spool: Mapping[str, Any]) -> str:
    """The spool in one line."""
    limit = f"{sizes.text(spool['bytes'])} of {sizes.text(spool['max_bytes'])}"
    text = f"{spool['files']} files, {limit}, when full: {spool['when_full']}"
    if spool["oldest_s"] is not None:
        text += f", oldest {_age(spool['oldest_s'])}"
    if spool["damaged"]:
        text += f", {spool['damaged']} damaged"
    return text


def lines(spool: Mapping[str, Any], agent: Mapping[str, Any]) -> Iterator[str]:
    """For `status`: where events are, and which were lost here since ever."""
    yield f"spool  {summary(spool)}"
    for loss in spool["dropped"]:
        yield (
            f"       {loss['source']} lost {loss['events']} events here, "
            f"{loss['from_time'] or '?'} to {loss['to_time'] or '?'}"
        )
    if agent:
        size = sizes.text(agent["under_way_bytes"])
        limit = sizes.text(agent["under_way_limit"])
        yield (
            f"agent  broker {agent['broker']}, {agent['connections']} connections, "
            f"{agent['paused']} held up ({agent['pauses']} times so far), "
            f"{size} of {limit} under way, {agent['in_flight']} events at the broker, "
            f"{agent['waiting']} on the way to the spool"
        )


def _age(seconds: float | None) -> str:
    return durations.text(max(1, round(seconds or 0)))
