"""Errors of the router layer. Each keeps its facts as attributes, and its text names the next step.

RouterError
├── BrokerUnavailable    no broker answers, or none is known
├── BrokerMisconfigured  it answers, but does not keep our promises
├── StreamVanished       a stream that held messages is not there
├── NotAcknowledged      the broker did not confirm a publish
├── SpoolDropped         the spool is full, and the user lets go of new events
├── AlreadyRunning       another process holds what only one may hold
└── BadFile              a configuration file that a program writes is broken
"""

from __future__ import annotations


class RouterError(Exception):
    """Something about moving an event; `hint` is what a person can do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BrokerUnavailable(RouterError):
    """No broker answers at `url`, or no mesh has been started here (`url` is empty)."""

    def __init__(self, url: str, reason: str) -> None:
        where = f"no NATS server answers at {url}" if url else "no mesh has been started here"
        super().__init__(f"{where}: {reason}" if reason else where, hint="start it: opsmesh up")
        self.url = url
        self.reason = reason


class BrokerMisconfigured(RouterError):
    """The broker runs with a setting that would break a promise of the mesh."""


class StreamVanished(RouterError):
    """A stream that held `last_seq` messages is not there. It is never created anew in silence."""

    def __init__(self, stream: str, last_seq: int) -> None:
        super().__init__(
            f"stream {stream} held messages up to sequence {last_seq}, and is gone",
            hint="restore the JetStream store, or accept the loss: opsmesh doctor --accept-loss",
        )
        self.stream = stream
        self.last_seq = last_seq


class NotAcknowledged(RouterError):
    """The broker did not confirm that it stored a message; it may have stored it all the same."""


class SpoolDropped(RouterError):
    """Event `id` was let go of, and counted: the spool is full, with `when_full: drop_newest`."""

    def __init__(self, id: str) -> None:
        super().__init__("dropped, and counted: the spool is full (spool.when_full: drop_newest)")
        self.id = id


class AlreadyRunning(RouterError):
    """Another process holds the lock; `pid` is its process id, where known."""

    def __init__(self, what: str, pid: int | None) -> None:
        who = f" (pid {pid})" if pid else ""
        super().__init__(f"{what} is already running{who}", hint="opsmesh status")
        self.pid = pid


class BadFile(RouterError):
    """A file of the configuration that a program writes is not what it should be."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}", hint="mend the file, or move it away")
        self.path = path
        self.reason = reason
