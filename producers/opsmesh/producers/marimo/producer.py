"""The observer from outside: a page that only looks on, beside the user's own, for notebooks whose
marimo has no plug-in of ours, or one that it does not fit.

Off unless asked for. It looks every LOOK seconds what is open, for marimo tells nobody; what a
notebook does comes by itself, over its websocket. Each has a thread that reads; all events are
emitted by the main one.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError
from opsmesh.producers.feed import Feed
from opsmesh.producers.host import say
from opsmesh.producers.marimo import health, servers
from opsmesh.producers.marimo.observed import COMPLETED, FAILED, Fact, Notebook
from opsmesh.producers.marimo.servers import Server, Session
from opsmesh.router import session as sessions

RESTARTED: Final = "notebook.kernel.restarted"
#: The option's word for the servers of marimo's registry.
FOUND: Final = "found"
#: Seconds between two looks at what is open, and within which a notebook that was closed and is
#: open again was restarted.
LOOK: Final = 2.0
RESTART: Final = 20.0
#: Facts that wait for a slow mesh, at most; then the oldest go.
QUEUE: Final = 10_000
#: Bytes of one message, at most: outputs may be large.
LONGEST: Final = 64 * 2**20
#: The reason with which marimo closes a page whose session has ended.
SHUTDOWN: Final = "MARIMO_SHUTDOWN"


class Marimo:
    """Notebooks of marimo that have no plug-in, watched from outside."""

    name = "marimo"
    description = "marimo without its plug-in: cells that fail, runs, kernels that die"
    topics: Sequence[str] = (FAILED, COMPLETED, RESTARTED)

    def __init__(self, *, servers: str = "", token_file: str = "") -> None:
        """Options as text. `servers`: `found` for those that marimo lists (started with
        --no-token), or addresses, a blank between; `token_file`: holds the token of the servers
        with an address, for the address itself is to be seen in the list of processes."""
        self._servers = servers.split()
        token = _token(token_file) if token_file else ""
        named = [_checked(one) for one in self._servers if one != FOUND]
        self._named = [Server(one, token=token) for one in named]
        self._feed: Feed[Fact] = Feed(QUEUE)
        self._open: dict[tuple[str, str], threading.Thread] = {}
        self._closed: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if not self._servers:
            return "off: its plug-in tells more (opsmesh install marimo); else -o servers=found"
        if find_spec("websockets") is None:
            return "needs websockets: pip install 'opsmesh[marimo]'"
        return None

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        looked = -LOOK
        while True:
            if (wait := looked + LOOK - time.monotonic()) <= 0:
                self._look()
                looked, wait = time.monotonic(), LOOK
            if (fact := self._feed.get(wait)) is not None:
                notebook = str(fact.payload["notebook"])
                emit(fact.topic, fact.payload, workspace=sessions.workspace(notebook))
            if lost := self._feed.lost():
                say(f"{self.name}: the mesh is too slow, {lost} events are lost")

    def _look(self) -> None:
        """Watch what is open and not watched yet."""
        told = {one.server_pid for one in health.live() if not one.wrong}
        listed = servers.registered() if FOUND in self._servers else []
        for server in [*self._named, *(one for one in listed if one.pid not in told)]:
            try:
                found = server.sessions()
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._say(server, f"{type(error).__name__}: {error}")
                continue
            self._say(server, "")
            for session in found:
                if (key := (server.name, session.identity)) not in self._open:
                    self._open[key] = threading.Thread(
                        target=self._watch, args=(server, session), daemon=True
                    )
                    self._open[key].start()
        for key, thread in list(self._open.items()):
            if not thread.is_alive():
                del self._open[key]

    def _say(self, server: Server, text: str) -> None:
        """Once, not at every look."""
        if text != self._said.get(server.name, ""):
            say(f"{self.name}: {server.name}: {text or 'answers'}")
        self._said[server.name] = text

    def _watch(self, server: Server, session: Session) -> None:
        """One notebook, until its session ends; on a thread of its own."""
        from websockets.exceptions import ConnectionClosed, InvalidHandshake
        from websockets.sync.client import connect

        closed = self._closed.pop(session.file, None)
        if closed is not None and time.monotonic() - closed < RESTART:
            self._restarted(session, "user")
        notebook = Notebook(session.file)
        try:
            ours = f"opsmesh_{uuid.uuid4().hex[:8]}"
            address, headers = server.socket(session, ours), server.authorization
            with connect(address, additional_headers=headers, max_size=LONGEST) as page:
                say(f"{self.name}: {server.name}: watching {session.file}")
                try:
                    while True:
                        for fact in _heard(notebook, page.recv()):
                            self._feed.put(fact)
                except ConnectionClosed:
                    if notebook.died:
                        self._restarted(session, "died")
                    elif page.close_reason == SHUTDOWN:
                        self._closed[session.file] = time.monotonic()
        except (OSError, InvalidHandshake, TimeoutError) as error:
            say(f"{self.name}: {server.name}: cannot watch: {type(error).__name__}")

    def _restarted(self, session: Session, cause: str) -> None:
        payload = {"notebook": session.file, "cause": cause, "session": session.identity}
        self._feed.put(Fact(RESTARTED, payload))


def _heard(notebook: Notebook, line: str | bytes) -> list[Fact]:
    try:
        message = json.loads(line)
        return notebook.hear(message) if isinstance(message, dict) else []
    except (ValueError, TypeError, KeyError, RecursionError):
        return []  # a message of another shape says nothing


def _token(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise OptionError("token_file", f"{file} cannot be read: {error}") from error


def _checked(url: str) -> str:
    try:
        return servers.checked(url)
    except ValueError as error:
        raise OptionError("servers", f"{error}; or write: {FOUND}") from error
