"""A question that a tool has for a person (elicitation), as a question of ours.

The one rule: the text is a stranger's. It is shown as what the server asks, cut off, and its
schema is written anew from what the protocol allows a form to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from opsmesh.handlers.actions.contract import Question, Reply

#: Characters of a question, and of any text in its form.
MAX_PROMPT: Final = 1000
MAX_WORD: Final = 200
#: Fields of a form, and choices of a field.
MAX_FIELDS: Final = 20
MAX_CHOICES: Final = 100
#: Questions of one answer.
MAX_QUESTIONS: Final = 10

#: Bytes that are kept of it all in the ledger.
MAX_KEPT: Final = 48 * 1024

#: https://modelcontextprotocol.io/specification/2025-11-25/client/elicitation: a flat object of
#: these. A pattern is not taken over: a stranger's pattern may never end.
_TYPES: Final = ("string", "number", "integer", "boolean")
_NUMBERS: Final = ("minimum", "maximum", "minLength", "maxLength")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a tool wants to know before it goes on. `state` is the server's own, and goes back."""

    state: str | None
    #: The server's key of each question, its text and its form.
    questions: tuple[tuple[str, str, dict[str, Any]], ...]

    def saved(self) -> dict[str, Any]:
        """What is kept of it in the ledger."""
        return {"state": self.state, "questions": [list(one) for one in self.questions]}

    def redacted(self, redact: Callable[[str], str]) -> Wanted:
        """The same, without secrets in its texts."""
        questions = tuple((key, redact(text), schema) for key, text, schema in self.questions)
        return replace(self, questions=questions)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Wanted:
        """What was kept."""
        questions = tuple((str(k), str(text), dict(form)) for k, text, form in saved["questions"])
        return cls(state=saved["state"], questions=questions)


def wanted(result: Any) -> Wanted | None:
    """The questions of the SDK's InputRequiredResult; None when a person cannot answer them all."""
    requests = result.input_requests or {}
    if not requests or len(requests) > MAX_QUESTIONS:
        return None
    found = []
    for key, request in requests.items():
        params = request.params
        if request.method != "elicitation/create" or getattr(params, "mode", "") != "form":
            return None
        found.append((str(key), _text(params.message, MAX_PROMPT), form(params.requested_schema)))
    asked = Wanted(state=result.request_state, questions=tuple(found))
    return asked if len(msgspec.json.encode(asked.saved())) <= MAX_KEPT else None


def question(
    which: str,
    text: str,
    schema: Mapping[str, Any],
    *,
    name: str,
    expires_s: float | None,
    by: Sequence[str],
) -> Question:
    """A tool's question to people; `which` is the tool. Without fields, yes or no is all."""
    return Question(
        name=name,
        prompt=f"{which} asks: {text}",
        schema=schema if schema.get("properties") else None,
        expires_s=expires_s,
        by=tuple(by),
    )


def response(reply: Reply) -> dict[str, Any]:
    """A person's reply as the protocol has it."""
    if reply.verdict == "granted":
        content = reply.answer if isinstance(reply.answer, dict) else {}
        return {"action": "accept", "content": content}
    return {"action": "decline" if reply.verdict == "denied" else "cancel"}


def form(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a form, of what a form may hold alone."""
    given = schema.get("properties")
    properties = {}
    for name, value in list(given.items())[:MAX_FIELDS] if isinstance(given, dict) else []:
        properties[_text(name, MAX_WORD)] = _field(value if isinstance(value, dict) else {})
    required = schema.get("required")
    must = [one for one in required if one in properties] if isinstance(required, list) else []
    return {
        "type": "object",
        "properties": properties,
        "required": must,
        "additionalProperties": False,
    }


def _field(value: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if value.get("type") in _TYPES:
        found["type"] = value["type"]
    elif value.get("type") == "array":
        found |= {"type": "array", "items": {"type": "string"}}
    for key in ("title", "description"):
        if isinstance(value.get(key), str):
            found[key] = _text(value[key], MAX_WORD)
    for key in _NUMBERS:
        number = value.get(key)
        if isinstance(number, int | float) and not isinstance(number, bool):
            found[key] = number
    if isinstance(value.get("enum"), list):
        found["enum"] = [_text(one, MAX_WORD) for one in value["enum"][:MAX_CHOICES]]
    return found


def _text(value: Any, most: int) -> str:
    text = "".join(one if one.isprintable() else " " for one in str(value)[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"
