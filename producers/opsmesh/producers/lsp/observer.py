"""The process that tells what the relay saw: records in, events out.

It may be slow, wait for the mesh, or die: the relay goes on. The one rule: what it does not
understand it leaves alone, and what it could not tell it counts: `opsmesh lsp --list` shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Iterator
from typing import Any, Final

from opsmesh.producers.errors import ProducerError
from opsmesh.producers.host import Host
from opsmesh.producers.lsp import places, relay
from opsmesh.producers.lsp.facts import SAVE, Conversation, Fact
from opsmesh.producers.lsp.framing import Bodies, Broken
from opsmesh.producers.lsp.running import Note
from opsmesh.router import session
from opsmesh.router.client import Client
from opsmesh.schemas import ids

#: The longest message that is read; longer ones are completions, symbols and the like.
LONGEST: Final = 16 << 20
#: Seconds that an event's answer is waited for.
ANSWER: Final = 2.0
#: The process's memory, bytes: what a stranger's messages make of it must end somewhere.
MEMORY: Final = 1 << 30
#: Words of which one is in every message that can tell something, whoever sends it. No slash:
#: some write it `\\/`.
_FROM_EDITOR: Final = (
    *(b"didSave", b"didOpen", b"didChange", b"didClose", b"ormatting", b"diagnostic"),
    *(b'"initialize"', b"cancelRequest"),
)
_FROM_SERVER: Final = (b"publishDiagnostics", b"logMessage", b"showMessage")
#: Sessions that are not the editor's: a terminal's window, the login.
_OUTER: Final = ("kitty:", "wezterm:")


class Observer:
    """One conversation. `editor` and `server` are what the command line says of them, or ""."""

    def __init__(
        self, host: Host, note: Note, *, editor: str, server: str, command: str, parent: int
    ) -> None:
        self._host = host
        self._note = note
        self._editor = editor
        self._server = server
        self._command = command
        self._parent = parent
        self._talk = Conversation()
        self._bodies = (Bodies(LONGEST), Bodies(LONGEST))
        self._reading = True

    def run(self, records: int) -> None:
        """Until the relay has gone."""
        for kind, at_ns, data, size in _records(records, self._talk, self._passed):
            if kind >= relay.GAP_TO_SERVER:
                self._note.lost(size)
                self._bodies[kind - relay.GAP_TO_SERVER].gap()
            elif self._reading:
                self._read(kind, at_ns, data)
        self._passed(float("inf"), time.time_ns())

    def _read(self, kind: int, at_ns: int, data: bytes) -> None:
        now = at_ns / 1e9
        try:
            for body in self._bodies[kind].feed(data):
                message = self._message(kind, body)
                if message is None:
                    continue
                if kind == relay.TO_SERVER:
                    facts = self._talk.from_editor(message, now)
                else:
                    facts = self._talk.from_server(message, now)
                self._tell(facts, at_ns)
                self._note.of(server=self.server, editor=self.editor)
        except Broken as error:
            self._reading = False
            self._note.stop(f"the stream is no LSP: {error}")

    def _message(self, kind: int, body: bytes) -> dict[str, Any] | None:
        """The message, when it may tell something."""
        if kind == relay.TO_SERVER:
            if not any(word in body for word in _FROM_EDITOR):
                return None
        elif not self._talk.asked and not any(word in body for word in _FROM_SERVER):
            return None
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            self._note.unread()
            return None
        return message if isinstance(message, dict) else None

    def _passed(self, now: float, at_ns: int) -> None:
        self._tell(self._talk.passed(now), at_ns)

    @property
    def editor(self) -> str:
        """What events call the editor."""
        return self._editor or places.editor_token(self._talk.editor)

    @property
    def server(self) -> str:
        """What events call the server."""
        return self._server or self._talk.server or places.server_name(self._command)

    def _tell(self, facts: Iterator[Fact], at_ns: int) -> None:
        try:
            for fact in facts:
                self._emit(fact, at_ns)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # a message that no specification knows: the next one may be another
            self._note.unread(f"{type(error).__name__}: {error}")

    def _emit(self, fact: Fact, at_ns: int) -> None:
        payload, id = fact.payload, None
        if fact.topic == SAVE:
            payload, id = _saved(fact.path, payload)
        else:
            payload = {**payload, "server": self.server}
        if editor := self.editor:
            payload = {**payload, "editor": editor}
        try:
            self._host.emit(
                fact.topic,
                payload,
                id=id,
                ts_us=at_ns // 1000,
                component=self.server,
                session=self._session(),
                workspace=session.workspace(fact.path, os.environ),
            )
        except (ProducerError, OSError, ValueError) as error:
            self._note.untold(fact.topic, str(error))
        else:
            self._note.told(fact.topic)

    def _session(self) -> str:
        """The rule of docs/sessions.md: an editor that is in no multiplexer is a session itself."""
        found = session.of_environment(os.environ)
        terminal = not found or found.startswith(_OUTER) or found == session.login(os.environ)
        said = os.environ.get(session.SESSION) or os.environ.get(session.EDITOR_SESSION)
        own = terminal or self.editor == "vscode"
        if said or not own or not self.editor:
            return found
        return f"{self.editor}:{self._talk.editor_pid or self._parent}"


def main(records: int, *, editor: str, server: str, command: str, parent: int) -> None:
    """Observe until the relay has gone; for a process of its own."""
    _be_modest()
    host = Host("lsp", client=Client(timeout=ANSWER), patient=False)
    note = Note(command=command, parent=parent)
    try:
        Observer(host, note, editor=editor, server=server, command=command, parent=parent).run(
            records
        )
    except Exception as error:
        note.stop(f"{type(error).__name__}: {error}")
        raise
    finally:
        note.end()


def _be_modest() -> None:
    """Never with more memory than a bound, and no folder is kept from being unmounted."""
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with contextlib.suppress(OSError):
        os.chdir("/")


def _records(records: int, talk: Conversation, passed: Any) -> Iterator[relay.Record]:
    """What the relay hands over; `passed` is called when something has waited long enough."""
    held = b""
    while True:
        if (until := talk.waits_until) is not None:
            patience = max(0.0, until - time.time())
            if not select.select([records], [], [], patience)[0]:
                passed(time.time(), time.time_ns())
                continue
        data = os.read(records, 1 << 18)
        if not data:
            return
        held += data
        at = 0
        while len(held) - at >= relay.HEAD:
            kind = held[at]
            at_ns = int.from_bytes(held[at + 1 : at + 9], "big")
            size = int.from_bytes(held[at + 9 : at + 17], "big")
            length = 0 if kind >= relay.GAP_TO_SERVER else size
            if len(held) - at - relay.HEAD < length:
                break
            start = at + relay.HEAD
            yield kind, at_ns, held[start : start + length], size
            at = start + length
        held = held[at:]


def _saved(path: str, payload: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A save with the file's size, and an id: two servers of one file see one save."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return payload, None
    parts = (SAVE, os.uname().nodename, path, str(status.st_mtime_ns))
    return {**payload, "bytes": status.st_size}, ids.derived(status.st_mtime_ns // 10**6, *parts)
