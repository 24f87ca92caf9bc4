"""What a caller answers to a run's question, where the question names it. Pure.

A caller is nobody in particular: `approve: {by: ["a2a:planner"]}` is what lets the one with the
token of `planner` answer, and nothing else does.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from a2a.types import Message
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict

from opsmesh.handlers.a2a import words
from opsmesh.handlers.runs.ledger import Asked

#: The surface, in the record of the answer.
VIA: Final = "a2a"
#: Who a caller without a token is.
LOCAL: Final = "local"
#: What is a yes, and a no.
YES: Final = frozenset({"yes", "y", "ok", "approve", "approved", "grant", "granted"})
NO: Final = frozenset({"no", "n", "deny", "denied", "refuse", "refused"})

Verdict = Literal["granted", "denied"]


def name_of(caller: str) -> str:
    """How a question names the caller."""
    return f"{VIA}:{caller or LOCAL}"


def read(message: Message, asked: Asked) -> tuple[Verdict, Any, str]:
    """The verdict, the value where one is asked for, and a comment; InvalidParamsError for neither
    a yes nor a no. `verdict` in the message's metadata says no to a question for a value."""
    texts = [part.text for part in message.parts if part.HasField("text")]
    data = next((MessageToDict(p.data) for p in message.parts if p.HasField("data")), None)
    said = str(MessageToDict(message.metadata).get("verdict") or "").lower()
    if said in NO:
        return "denied", None, words.text("\n".join(texts), 1000)[0]
    if asked.schema is None:
        word, _, comment = "\n".join(texts).strip().partition("\n")
        verdict = said or word.strip(" .!").lower()
        if verdict in NO:
            return "denied", None, words.text(comment, 1000)[0]
        if verdict not in YES:
            raise InvalidParamsError("answer yes or no")
        return "granted", None, words.text(comment, 1000)[0]
    if data is not None:
        value, cut = words.data(data)
        comment = "\n".join(texts)
    else:
        value, cut = words.text("\n".join(texts))
        comment = ""
    if cut:
        raise InvalidParamsError("the answer is too long")
    return "granted", value, words.text(comment, 1000)[0]
