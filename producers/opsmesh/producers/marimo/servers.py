"""marimo's servers on this machine, and what each has open: over HTTP, as its own page asks.

A server that was started with `--no-token` is in marimo's registry, one file each; any other has to
be named, with its token. A token is a secret: it stands in no text of ours.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Seconds for an answer of a server.
PATIENCE: Final = 5.0
#: Bytes of an answer that are read.
LONGEST: Final = 16 * 2**20
#: Where the page has the token by which a server knows its own pages.
_TOKEN: Final = re.compile(r'serverToken":\s*"([^"]*)"')


@dataclass(frozen=True)
class Session:
    """A notebook that is open. `file` is what the server calls it."""

    identity: str
    file: str


class Server:
    """One server, at an address like `http://127.0.0.1:2718?access_token=…`."""

    def __init__(self, url: str, *, pid: int | None = None, token: str = "") -> None:
        parts = urllib.parse.urlsplit(url)
        self.pid = pid
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        token = dict(urllib.parse.parse_qsl(parts.query)).get("access_token", token)
        #: What lets us in, for HTTP and the websocket: in an address it would stand in logs.
        self.authorization = {"Authorization": f"Bearer {token}"} if token else {}
        self._known = ""

    def sessions(self) -> list[Session]:
        """What is open; OSError when the server is not there, ValueError for no answer of one."""
        if not self._known:
            found = _TOKEN.search(self._ask("/", None).decode("utf-8", "replace"))
            if found is None:
                raise ValueError("no page of marimo, or it wants its token: ?access_token=…")
            self._known = found[1]
        try:
            answer = json.loads(self._ask("/api/home/running_notebooks", b"{}"))
        except urllib.error.HTTPError:
            self._known = ""  # another server has taken the port
            raise
        return [
            Session(str(one["sessionId"]), str(one.get("initializationId") or one["path"]))
            for one in answer["files"]
            if one.get("sessionId")
        ]

    def socket(self, session: Session, ours: str) -> str:
        """The address of a page that only looks on (a kiosk)."""
        query = {"session_id": ours, "kiosk": "true", "file": session.file}
        base = self.name.replace("http", "ws", 1)
        return f"{base}/ws?{urllib.parse.urlencode(query)}"

    def _ask(self, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json", "Marimo-Server-Token": self._known}
        headers |= self.authorization
        request = urllib.request.Request(f"{self.name}{path}", data=body, headers=headers)  # noqa: S310 (checked by `checked`)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return bytes(answer.read(LONGEST))


def checked(url: str) -> str:
    """The address, when it is one of a web server; ValueError."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url.partition('?')[0]!r} is no address like http://127.0.0.1:2718")
    return url


def folder(env: Mapping[str, str] = os.environ) -> Path:
    """marimo's registry of servers without a token (marimo/_server/server_registry.py)."""
    state = env.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local/state"
    return base / "marimo/servers"


def registered() -> list[Server]:
    """The servers of the registry whose process is there."""
    found = []
    for path in sorted(folder().glob("*.json")):
        try:
            told = json.loads(path.read_bytes())
            host = str(told["host"]) if told["host"] not in ("0.0.0.0", "::", "") else "127.0.0.1"  # noqa: S104
            pid, port, base = int(told["pid"]), int(told["port"]), str(told.get("base_url", ""))
        except (OSError, ValueError, TypeError, KeyError):
            continue  # being written, or of another marimo
        if Path(f"/proc/{pid}").exists():
            host = f"[{host}]" if ":" in host else host
            found.append(Server(f"http://{host}:{port}{base}", pid=pid))
    return found
