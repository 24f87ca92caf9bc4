"""The steps of a profile: what one is, what is wrong with it, and what its hash is made of.

A step that has an error is left out, and its error names its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from opsmesh.handlers.actions import registry
from opsmesh.handlers.actions.contract import ON_UNKNOWN, Action, OnUnknown
from opsmesh.handlers.actions.nothing import Nothing
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.reporter import Reporter
from opsmesh.handlers.profiles.spec import ApproveSpec, ProfileSpec, StepSpec
from opsmesh.schemas import durations
from opsmesh.schemas.nearest import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Step:
    """One action of a profile, and how its failures are taken."""

    id: str
    action: Action
    timeout: float | None = None
    on_unknown: OnUnknown = "retry"
    continue_on_error: bool = False
    approve: ApproveSpec | None = None
    when: str | None = None


def load_steps(
    base: yamlfile.Where, value: Any, found: registry.Found, reporter: Reporter
) -> list[Step]:
    """Those of its steps that are right; what is wrong with the others is told."""
    if not isinstance(value, list):
        return []  # the profile's own validation says so
    steps: list[Step] = []
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            continue
        step = _load_step((*base, "actions", index), item, found, reporter)
        if step is None:
            continue
        if any(step.id == other.id for other in steps):
            reporter.add((*base, "actions", index, "id"), f"two steps have the id {step.id!r}")
        steps.append(step)
    return steps


def _load_step(
    where: yamlfile.Where, item: dict[Any, Any], found: registry.Found, reporter: Reporter
) -> Step | None:
    index = where[-1]
    keys = [key for key in item if key in found.actions]
    common = {key: value for key, value in item.items() if key in StepSpec.model_fields}
    known = [*found.actions, *StepSpec.model_fields]
    unknown = [key for key in item if key not in known]
    for key in unknown:
        reporter.add((*where, key), _unknown_step_key(str(key), known, found), key=True)
    kinds: Mapping[str, type[Action]] = found.actions
    if not keys and Nothing.key in item:
        keys, kinds = [Nothing.key], {Nothing.key: Nothing}
    if len(keys) != 1:
        if len(keys) > 1:
            reporter.add(where, f"a step has one action; this has {' and '.join(map(repr, keys))}")
        elif not unknown:
            kinds_there = ", ".join(sorted([*found.actions, Nothing.key]))
            reporter.add(where, f"a step needs an action: one of {kinds_there}")
        return None
    key = keys[0]
    before = len(reporter.errors)
    spec, action = StepSpec(), None
    try:
        spec = StepSpec.model_validate(common)
    except ValidationError as error:
        reporter.add_validation(where, error, model=StepSpec)
    kind = kinds[key]
    try:
        action = kind.parse(item[key])
        json.dumps(action.describe())  # what cannot be hashed is this plug-in's error, not ours
    except ValidationError as error:
        reporter.add_validation((*where, key), error, model=getattr(kind, "spec", None))
    except Exception as error:  # noqa: BLE001, RUF100 (a stranger's parse may raise anything)
        reporter.add((*where, key), f"{key}: {error}")
    by_kind: OnUnknown = getattr(kind, "on_unknown", "retry")
    on_unknown = spec.on_unknown or by_kind
    if on_unknown not in ON_UNKNOWN:  # a plug-in's mistake
        reporter.add((*where, key), f"{key}: its on_unknown is {on_unknown!r}, which is no choice")
    if on_unknown == "resume" != by_kind:
        reporter.add((*where, "on_unknown"), f"{key} cannot resume: it keeps nothing to go on from")
    if action is not None and spec.timeout is not None and spec.timeout < _takes_s(action):
        limit, waited = durations.text(spec.timeout), durations.text(_takes_s(action))
        reporter.add((*where, "timeout"), f"{limit} is no time for the {waited} that it may wait")
    if action is None or len(reporter.errors) > before:
        return None
    return Step(
        id=spec.id or f"{key}_{index}",
        action=action,
        timeout=spec.timeout,
        on_unknown=on_unknown,
        continue_on_error=spec.continue_on_error,
        approve=spec.approve,
        when=spec.when,
    )


def _unknown_step_key(key: str, known: list[str], found: registry.Found) -> str:
    if key in found.problems:
        return f"the plug-in for {key!r} is broken: {found.problems[key]}"
    return f"unknown key {key!r} in step{did_you_mean(key, known)}"


def describe_step(step: Step) -> dict[str, Any]:
    """What the hash of its profile is made of, as far as it is the step's."""
    asks: dict[str, Any] = {} if step.when is None else {"when": step.when}
    if step.approve is not None:
        asks["approve"] = step.approve.model_dump(mode="json")
    return {
        "id": step.id,
        "timeout": step.timeout,
        "on_unknown": step.on_unknown,
        "continue_on_error": step.continue_on_error,
        step.action.key: step.action.describe(),
        **asks,
    }


def check_tools(
    base: yamlfile.Where, tools: list[str], steps: list[Step], reporter: Reporter
) -> None:
    """The profile's own list of what it may call, against what its steps do call."""
    for index, step in enumerate(steps):
        called: str | None = getattr(step.action, "calls", None)
        if called is None or any(fnmatchcase(called, pattern) for pattern in tools):
            continue
        where = (*base, "actions", index, step.action.key, "tool")
        hint = did_you_mean(called, tools) or f"; add it to 'tools': {called}"
        reporter.add(where, f"{called} is not among the 'tools' of the profile{hint}")


def with_time(
    spec: ProfileSpec, steps: Sequence[Step], base: yamlfile.Where, reporter: Reporter
) -> ProfileSpec:
    """The profile with time for what its steps wait (`takes_s` of an action): its own `timeout` has
    to be longer, and the default grows by it."""
    waits = sum(_takes_s(step.action) for step in steps)
    if not waits:
        return spec
    if "timeout" not in spec.model_fields_set:
        return spec.model_copy(update={"timeout": spec.timeout + waits})
    if spec.timeout <= waits:
        limit, waited = durations.text(spec.timeout), durations.text(waits)
        why = f"a run of {limit} has no time for the {waited} that its steps may wait"
        reporter.add((*base, "timeout"), why)
    return spec


def _takes_s(action: Action) -> float:
    return float(getattr(action, "takes_s", 0.0))
