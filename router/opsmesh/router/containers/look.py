"""The mesh in containers as it is seen from the host, where nobody has to be able to ask Docker."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from opsmesh.router import paths, ports, spool_state
from opsmesh.router.containers import health
from opsmesh.router.supervisor_state import State, Status

#: The folder that `make compose-up` writes, in that of the state.
FOLDER: Final = "compose"
#: What shows a component's log.
LOGS: Final = "make compose-logs"


def folder() -> Path:
    """What the containers are told lies here."""
    return Path(paths.state_dir(), FOLDER)


def components() -> list[Status] | None:
    """How each is, by what the broker and the agent say; None when no mesh runs in containers.

    Ask only when no supervisor runs. With somebody else's broker (`nats.url`) the agent alone can
    be seen.
    """
    if not folder().is_dir():
        return None
    try:
        agent = spool_state.ask_agent() is not None
    except TimeoutError:  # it hangs, but it is there
        agent = True
    broker = ports.read(Path(paths.state_dir()))
    since: dict[str, str] = {}
    if broker is not None:
        with contextlib.suppress(OSError, ValueError):
            since = health.since(broker)
    if not agent and not since:
        return None
    found = [_status("agent", agent, since.get("agent", ""))]
    if broker is not None:
        found.insert(0, _status("broker", bool(since), since.get("broker", "")))
    if since:
        found += [_status(one, one in since, since.get(one, "")) for one in ("handlers", "sink")]
    return found


def broker_runs() -> bool:
    """Whether a broker answers where one in a container would: it may outlive the others, and with
    them the lock. Ask only where none of this machine's own runs."""
    where = ports.read(Path(paths.state_dir())) if folder().is_dir() else None
    if where is None:
        return False
    try:
        return bool(health.since(where))
    except (OSError, ValueError):
        return False


def mesh() -> State | None:
    """All of it; None when no mesh runs in containers."""
    found = components()
    if found is None:
        return None
    broker = ports.read(Path(paths.state_dir()))
    url = f"nats://{broker.address}:{broker.client}" if broker is not None else ""
    started = min((one.since for one in found if one.since), default="")
    return State(
        pid=0, birth=None, started=started, nats_url=url, components=found, containers=True
    )


def _status(name: str, runs: bool, since: str = "") -> Status:
    state = "running" if runs else "stopped"
    return Status(name=name, log="", shown_by=LOGS, state=state, since=since)
