"""The `save` capability: an editor sends didSave only to a server that asks for it.

Ruff, for one, does not, so a save would not be seen. The answer to `initialize` is then given a
`"save":true`, the only bytes that are ever added to a stream; and didSave, which such a server does
not know, is kept from it. Both stop at the first thing that is not understood.
Builtins only at first: the relay imports this module, and `json` when it has to change something.
"""

from __future__ import annotations

from opsmesh.producers.lsp.framing import header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The longest answer to `initialize` that is waited for, bytes; real ones have 2,000 to 20,000.
LONGEST_ANSWER = 1 << 20
#: The longest didSave that is kept from a server: without the text, which we do not ask for.
LONGEST_SAVE = 1 << 14
_SYNC = b'"textDocumentSync"'


class FromServer:
    """Changes the answer to `initialize`; everything else goes on as it came.

    `done` says that nothing more is to be changed. `given`: the server was said to want didSave.
    """

    def __init__(self) -> None:
        self.done = False
        self.given = False
        #: Why it gave up, where it did.
        self.broken = ""
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What goes on to the editor, now."""
        data, at = self._held + data, 0
        self._held = b""
        try:
            while at < len(data):
                found = header(data, at)
                if found is None:
                    break
                body, length = found
                if length > LONGEST_ANSWER:
                    return self._given_up(f"{length} bytes come before the first answer", data)
                if body + length > len(data):
                    break
                end = body + length
                if b'"capabilities"' in data[body:end]:
                    changed = with_save(data[body:end])
                    self.done = True
                    if changed is not None:
                        self.given = True
                        head = _with_length(data[at:body], length, len(changed))
                        return data[:at] + head + changed + data[end:]
                    return data
                at = end
        except Exception as error:  # whatever a server sends, it goes on
            return self._given_up(str(error), data)
        self._held = data[at:]
        return data[:at]

    def _given_up(self, why: str, data: bytes) -> bytes:
        self.done, self.broken = True, why
        return data

    def rest(self) -> bytes:
        """What was held when the stream ended."""
        held, self._held = self._held, b""
        return held


class ToServer:
    """Keeps didSave from a server that did not ask for it; `done` once it must not, any more."""

    def __init__(self) -> None:
        self.done = False
        self._held = b""
        self._through = 0

    def feed(self, data: bytes) -> bytes:
        """What goes on to the server, now."""
        data, at = self._held + data, 0
        self._held = b""
        if self._through:  # the rest of a long message
            at = min(self._through, len(data))
            self._through -= at
        gone: list[bytes] = []
        since = 0
        try:
            while at < len(data):
                found = header(data, at)
                if found is None:
                    break
                body, length = found
                if length <= LONGEST_SAVE and body + length > len(data):
                    break
                end = body + length
                if length <= LONGEST_SAVE and is_save(data[body:end]):
                    gone.append(data[since:at])
                    since = end
                self._through = max(0, end - len(data))
                at = min(end, len(data))
        except Exception:  # no frame: everything goes on as it comes
            self.done, at = True, len(data)
        self._held = data[at:]
        return b"".join((*gone, data[since:at])) if gone else data[:at]

    def stop(self) -> None:
        """The server wants didSave by now."""
        self.done = True

    def rest(self) -> bytes:
        """What was held; to be sent on once it is `done`, and when the stream ended."""
        held, self._held = self._held, b""
        return held


def with_save(body: bytes) -> bytes | None:
    """The answer to `initialize` with the capability added to it as text; None when it is no such
    answer, or the server asks for saves itself, or has to do with no documents at all."""
    import json  # not before it is needed: the relay starts without it

    message = json.loads(body)
    sync = _sync(message)
    # As a bare number it promises didSave to clients already (LSP 3.17, "TextDocumentSyncKind":
    # Neovim, Helix and VS Code send it then).
    if not isinstance(sync, dict) or sync.get("save") not in (None, False):
        return None
    there = "save" in sync
    sync["save"] = True
    at = body.find(_SYNC)
    while at >= 0 and (brace := body.find(b"{", at)) >= 0:
        for made in _replaced(body, brace) if there else [_added(body, brace + 1)]:
            if _reads(made) == message:  # the key may stand in a string, or deeper: try the next
                return made
        at = body.find(_SYNC, at + 1)
    return None


def is_save(body: bytes) -> bool:
    """Whether the message is a didSave; the word alone may stand in a user's text."""
    if b"didSave" not in body:
        return False
    import json

    message = json.loads(body)
    return isinstance(message, dict) and message.get("method") == "textDocument/didSave"


def asks_for_saves(data: bytes) -> bool:
    """Whether a server registers for didSave while it runs, as it may in these bytes."""
    # A false alarm costs a server one notification that it does not know. Some escape the slash.
    return b"registerCapability" in data and b"didSave" in data


def _added(body: bytes, place: int) -> bytes:
    comma = b"" if body[place:].lstrip().startswith(b"}") else b","
    return body[:place] + b'"save":true' + comma + body[place:]


def _replaced(body: bytes, start: int) -> list[bytes]:
    place = body.find(b'"save"', start)
    return [body[:place] + body[place:].replace(no, b"true", 1) for no in (b"false", b"null")]


def _sync(message: Any) -> Any:
    if not isinstance(message, dict) or not isinstance(result := message.get("result"), dict):
        return None
    capabilities = result.get("capabilities")
    return capabilities.get("textDocumentSync") if isinstance(capabilities, dict) else None


def _reads(body: bytes) -> Any:
    import json

    try:
        return json.loads(body)
    except ValueError:
        return None


def _with_length(head: bytes, old: int, new: int) -> bytes:
    """The header with another length; the rest of it as it was."""
    lines = head.split(b"\r\n")
    for number, line in enumerate(lines):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() == b"content-length":
            lines[number] = name + colon + value.replace(b"%d" % old, b"%d" % new)
    return b"\r\n".join(lines)
