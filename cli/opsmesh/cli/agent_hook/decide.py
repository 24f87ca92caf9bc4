"""A person's answer to an agent's request for permission, by way of a profile that asks.

The agent's hook waits, follows what becomes of the question on the ingest socket (ADR 0018), and
prints the answer. The one rule: when anything is doubtful there is no decision, and the agent asks
its user as ever.
"""

from __future__ import annotations

import time

from opsmesh.cli import light
from opsmesh.cli.light import quote
from opsmesh.router import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket
    from typing import Any

#: Seconds within which a profile has to ask: where none does, the agent is not kept waiting.
ASKED_WITHIN = 5.0
#: What is followed.
TOPICS = "automation.approval.*"
_ASKED = "automation.approval.requested"
#: How a question ends, and what the agent is told.
_ENDS = {"granted": "allow", "denied": "deny", "expired": "", "withdrawn": ""}


def ask(line: bytes, event_id: str, limit: float, *, delivery: float) -> str:
    """Send the event, wait for the answer: what the agent shall read, or nothing.

    An event that the broker does not have yet is kept, and nobody is asked in time.
    """
    mesh = client.Client(timeout=delivery)
    following = _follow(mesh)
    try:
        told = mesh.deliver(line, event_id)
        if following is None or not told.startswith(b'{"ok":true') or b'"spooled":true' in told:
            return ""
        return _answer(following, event_id, limit)
    finally:
        mesh.close()
        if following is not None:
            following.close()


def _follow(mesh: client.Client) -> _Following | None:
    """Follow the answers, on a connection of its own; None when nobody is there, or says no."""
    try:
        following = _Following(mesh.connect())
    except OSError:
        return None
    if following.begins():
        return following
    following.close()
    return None


def _answer(following: _Following, event_id: str, limit: float) -> str:
    now = time.monotonic()
    end, asked_by = now + limit, now + min(ASKED_WITHIN, limit)
    asked = False
    while (left := (end if asked else asked_by) - time.monotonic()) > 0:
        event = following.next(left)
        if event is None:
            continue
        payload = event.get("payload")
        if not isinstance(payload, dict) or payload.get("trigger_id") != event_id:
            continue
        topic = str(event.get("topic"))
        asked = asked or topic == _ASKED
        behaviour = _ENDS.get(topic.rpartition(".")[2])
        if behaviour is not None:
            return _decision(behaviour, payload)
    return ""


def _decision(behaviour: str, payload: dict[str, Any]) -> str:
    """The decision in the form that Claude Code has documented, and Codex reads."""
    if not behaviour:
        return ""
    message = ""
    if behaviour == "deny":
        said = str(payload.get("comment") or "")
        text = f"{payload.get('by') or 'somebody'} denied it" + (f": {said}" if said else "")
        message = f',"message":{quote(text)}'
    decision = f'{{"behavior":{quote(behaviour)}{message}}}'
    name = quote("PermissionRequest")
    return f'{{"hookSpecificOutput":{{"hookEventName":{name},"decision":{decision}}}}}\n'


class _Following:
    """What the mesh's agent sends to one who follows."""

    def __init__(self, connection: Socket) -> None:
        self._connection = connection
        self._held = b""

    def begins(self) -> bool:
        """Ask for it; whether the agent will."""
        try:
            self._connection.sendall(b'{"_follow":["' + TOPICS.encode() + b'"]}\n')
            return self._line().startswith(b'{"ok":true')
        except OSError:
            return False

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next event; None when none came in time. OSError when the agent has gone."""
        self._connection.settimeout(timeout)
        try:
            line = self._line()
        except TimeoutError:
            return None
        found = light.read_json(line.decode("utf-8", "replace"), "an event")
        return found if isinstance(found, dict) else None

    def _line(self) -> bytes:
        """One line; what has come of one is kept when the time is over."""
        while b"\n" not in self._held:
            part = self._connection.recv(65536)
            if not part:
                raise ConnectionResetError("the mesh's agent has ended")
            self._held += part
        line, _, self._held = self._held.partition(b"\n")
        return line

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
