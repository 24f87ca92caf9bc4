"""Templates: types, text, escapes, and errors that name the placeholder."""

from __future__ import annotations

from typing import Any

import pytest

from opsmesh.handlers.errors import TemplateError
from opsmesh.handlers.template import Template, compile_value

VARIABLES = {
    "event": {
        "ts_utc": "2026-11-23T09:12:00Z",
        "payload": {"n": 3, "list": [1, 2], "evil": "${{ host }} $(x); 'y'", "none": None},
    },
    "host": "dev",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${{ event.payload.n }}", 3),
        ("${{event.payload.list}}", [1, 2]),
        ("n is ${{ event.payload.n }}, on ${{ host }}", "n is 3, on dev"),
        ("list ${{ event.payload.list }}", "list [1,2]"),
        ("nothing: ${{ event.payload.none }}", "nothing: "),
        ("${{ event.payload.n == 3 }}!", "true!"),
        ("$${{ host }}", "${{ host }}"),
        ("$$${{ host }}", "$${{ host }}"),
        ('${{ "a}}b" }}', "a}}b"),
        ("${{ timestamp(event.ts_utc) }}", "2026-11-23T09:12:00Z"),
        ('${{ duration("90s") }}', "1m30s"),
        ("${{ event.payload.evil }}", "${{ host }} $(x); 'y'"),
        ("x ${{ event.payload.evil }}", "x ${{ host }} $(x); 'y'"),
    ],
)
def test_render(text: str, value: Any) -> None:
    """One placeholder keeps its type, text around it makes it text, and nothing is read twice."""
    assert Template(text).render(VARIABLES) == value


def test_nested_values() -> None:
    """Mappings and lists are rendered within; other values stay as they are."""
    compiled = compile_value({"a": ["${{ event.payload.n }}", 1, None], "b": {"c": "${{ host }}"}})
    assert compiled.render(VARIABLES) == {"a": [3, 1, None], "b": {"c": "dev"}}
    assert compiled.names == {"event", "host"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${{ event.x", "${{ event.x }}: the placeholder has no closing }}"),
        ("${{ event. }}", "${{ event. }}: "),
        ("${{ evnt.x }}", "${{ evnt.x }}: unknown name 'evnt'; did you mean 'event'?"),
        ("${{ }}", "${{  }}: the expression ends too early"),
    ],
)
def test_errors_when_compiled(text: str, said: str) -> None:
    """A placeholder that cannot be read is named when the profile is loaded."""
    with pytest.raises(TemplateError) as caught:
        Template(text)
    assert str(caught.value).startswith(said)


def test_error_when_rendered() -> None:
    """A placeholder without an answer is named with the reason."""
    with pytest.raises(TemplateError, match=r"\$\{\{ event.nope \}\}: no field event.nope"):
        Template("a ${{ event.nope }} b").render(VARIABLES)
