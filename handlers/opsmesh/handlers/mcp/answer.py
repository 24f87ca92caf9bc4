"""What a tool answered, as data of ours. It is a stranger's text: nothing in it is followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

#: Bytes of JSON of structured content: it lies in the run's ledger entry, and in an event.
MAX_STRUCTURED: Final = 128 * 1024
#: Characters kept of the texts of an answer.
MAX_TEXT: Final = 8 * 1024
#: Parts of an answer that are no text, of which it is kept what they were.
MAX_PARTS: Final = 32


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. `parts` says what else there was: kind, type and size of an image or a file."""

    is_error: bool
    structured: Any = None
    text: str = ""
    truncated: bool = False
    parts: tuple[str, ...] = ()
    #: What the server asked of us meanwhile, and was refused: sampling, elicitation, roots.
    refused: tuple[str, ...] = ()
    duration_ms: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of its structured content as JSON."""
        return 0 if self.structured is None else len(msgspec.json.encode(self.structured))

    def output(self) -> dict[str, Any]:
        """What later steps see of it."""
        return {
            "structured": self.structured,
            "text": self.text,
            "truncated": self.truncated,
            "is_error": self.is_error,
            "parts": list(self.parts),
            "refused": list(self.refused),
            "duration_ms": self.duration_ms,
        }


def of(result: Any, *, duration_ms: float, refused: tuple[str, ...]) -> Answer:
    """The answer in the SDK's CallToolResult."""
    texts: list[str] = []
    parts: list[str] = []
    room = MAX_TEXT
    for block in result.content:
        if block.type != "text":
            if len(parts) < MAX_PARTS:
                parts.append(_part(block))
            continue
        if room >= 0:
            texts.append(block.text[: room + 1])
            room -= len(texts[-1]) + 1
    text = "\n".join(texts)
    return Answer(
        is_error=bool(result.is_error),
        structured=result.structured_content,
        text=text[:MAX_TEXT],
        truncated=len(text) > MAX_TEXT,
        parts=tuple(parts),
        refused=refused,
        duration_ms=duration_ms,
    )


def _part(block: Any) -> str:
    mime = str(getattr(block, "mime_type", None) or "")[:80]
    data = getattr(block, "data", None)
    size = f", {len(data)} characters of base64" if isinstance(data, str) else ""
    return f"{block.type} {mime}{size}".strip()
