"""Hooks in an agent's settings: put in, and taken out again, with everything else as it stands.

Claude Code, Codex and Gemini CLI keep them in one form: `{"hooks": {EVENT: [{"matcher": …, "hooks":
[{"type": "command", "command": …, "timeout": …}]}]}}`. Pure: text in, text out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from opsmesh.producers.agents import json_text
from opsmesh.producers.errors import Unusable

#: The key under which they keep hooks, and the one of a group's handlers.
HOOKS: Final = "hooks"

Ours = Callable[[str], bool]


def put(path: str, text: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """The text with one more group for each hook, the last; "" is no file. Unusable."""
    text = text if text.strip() else "{}\n"
    _hooks(path, text)
    for event, group in groups.items():
        held = json_text.at(text, HOOKS)
        listed = json_text.at(text, HOOKS, event)
        if held is None:
            text = json_text.add(
                text, json_text.at(text) or 0, {event: [group]}, depth=1, key=HOOKS
            )
        elif listed is None:
            text = json_text.add(text, held, [group], depth=2, key=event)
        else:
            text = json_text.add(text, listed, group, depth=3)
    return text


def take(path: str, text: str, ours: Ours) -> str:
    """The text without handlers whose command is ours, and without what they leave empty; "" when
    nothing is left. Unusable."""
    if not text.strip():
        return ""
    held = _hooks(path, text)
    emptied = []
    for event, groups in held.items():
        gone = []
        for number, group in enumerate(groups):
            handlers = group.get(HOOKS) if isinstance(group, dict) else None
            found = [i for i, one in enumerate(handlers or ()) if _is_ours(one, ours)]
            if found and handlers is not None and len(found) == len(handlers):
                gone.append(number)
            elif found:
                text = json_text.drop(text, _place(text, HOOKS, event, number, HOOKS), found)
        text = json_text.drop(text, _place(text, HOOKS, event), gone)
        if gone and len(gone) == len(groups):
            emptied.append(event)
    text = _without(text, _place(text, HOOKS), emptied) if held else text
    if emptied and len(emptied) == len(held):
        text = _without(text, _place(text), [HOOKS])
        if not json_text.parts(text, _place(text))[0]:
            return ""
    return text


def _hooks(path: str, text: str) -> dict[str, list[Any]]:
    held = json_text.check(path, text).get(HOOKS, {})
    if not isinstance(held, dict) or not all(isinstance(one, list) for one in held.values()):
        raise Unusable(path, f"has {HOOKS!r} in a form that is not known")
    return held


def _without(text: str, where: int, keys: list[str]) -> str:
    numbers = [i for i, one in enumerate(json_text.parts(text, where)[0]) if one.key in keys]
    return json_text.drop(text, where, numbers)


def _place(text: str, *way: str | int) -> int:
    found = json_text.at(text, *way)
    assert found is not None  # noqa: S101 (it was seen when the text was read)
    return found


def _is_ours(handler: object, ours: Ours) -> bool:
    command = handler.get("command") if isinstance(handler, dict) else None
    return isinstance(command, str) and ours(command)
