"""What the steps of a firing are given: their values with every placeholder answered.

A placeholder that reads the result of an earlier step has no answer in a case: it is shown as
`<its expression>`. One that has no answer although nothing is missing is a problem of the profile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from opsmesh.handlers.errors import TemplateError
from opsmesh.handlers.profiles.steps import Step
from opsmesh.handlers.template import PLACEHOLDER, Template

#: Actions whose placeholders become text, also where one stands alone.
_TEXT: Final = frozenset({"command", "collect", "notify"})


class Absent:
    """Stands for a value that is not there."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = Absent()


def arguments(step: Step, variables: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The step's value for these variables, and the placeholders without an answer."""
    problems: list[str] = []
    value = _rendered(step.action.describe(), variables, step.action.key in _TEXT, problems)
    return value, problems


def templated(value: Any) -> Any:
    """The part of a step's value that has placeholders; None when it has none.

    A list keeps its length, so that what is left of it can be compared.
    """
    if isinstance(value, str):
        return value if PLACEHOLDER.search(value) else None
    if isinstance(value, list):
        if all(templated(item) is None for item in value):
            return None
        return [(templated(item) or {}) if isinstance(item, dict) else item for item in value]
    if isinstance(value, dict):
        found = {key: templated(inner) for key, inner in value.items()}
        return {key: inner for key, inner in found.items() if inner is not None} or None
    return None


def differences(step: Step, expected: Any, actual: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where what is expected of a step's value is not so: (path, expected, actual).

    Of a mapping only the expected keys are compared. A list or a text stands for the first field
    of the action's value: `argv` of a command, `topic` of an emit, `items` of a collect.
    """
    path = step.id
    if not isinstance(expected, dict) and isinstance(actual, dict) and actual:
        field = next(iter(actual))
        path, actual = f"{path}.{field}", actual[field]
    yield from _differences(path, expected, actual, step.action.key in _TEXT)


def _differences(
    path: str, expected: Any, actual: Any, text: bool
) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            yield from _differences(f"{path}.{key}", value, actual.get(key, ABSENT), text)
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for n, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(f"{path}[{n}]", one, other, text)
    elif not _same(expected, actual, text):
        yield path, expected, actual


def _same(expected: Any, actual: Any, text: bool) -> bool:
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if text and isinstance(actual, str) and isinstance(expected, int | float):
        return str(expected) == actual  # as a profile's text may be written as a number
    return bool(expected == actual)


def _rendered(value: Any, variables: Mapping[str, Any], text: bool, problems: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _rendered(inner, variables, text, problems) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rendered(item, variables, text, problems) for item in value]
    if not isinstance(value, str) or "${{" not in value:
        return value
    try:
        template = Template(PLACEHOLDER.sub(_unknown, value))
    except TemplateError:  # another's action may mean something else by it
        return value
    try:
        return template.render_text(variables) if text else template.render(variables)
    except TemplateError as error:
        problems.append(str(error))
        return f"<{error}>"


def _unknown(found: re.Match[str]) -> str:
    if "steps" not in Template(found[0]).names:
        return found[0]
    return f"<{found['inside'].strip()}>".replace("${{", "$${{")
