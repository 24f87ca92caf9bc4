"""Errors of the router layer. Each keeps its facts as attributes, and its text names the next step.

RouterError
├── BrokerUnavailable    no broker answers, or none is known
│   ├── BrokerSilent        it takes the connection, or not even that, and says nothing
│   └── CredentialsRefused  it answers, and does not let these credentials in
├── BrokerMisconfigured  it answers, but does not keep our promises
├── StreamVanished       a stream that held messages is not there
├── NotAcknowledged      the broker did not confirm a publish
├── SpoolDropped         the spool is full, and the user lets go of new events
├── AlreadyRunning       another process holds what only one may hold
├── PermissionDenied     the credentials do not allow this subject
│   └── Unreadable       nor does the agent, for a handler that reads for its profiles alone
├── AuthError            keys, users and certificates: what was asked cannot be done
├── StateTooNew          a newer opsmesh has written what is here
├── NeedsUpgrade         an older one has, and `opsmesh upgrade` was not run
├── RestoreUnfinished    a backup was being put back, and is not there as a whole
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


class BrokerSilent(BrokerUnavailable):
    """Nothing came from a broker in time: it hangs, or the way to it does."""

    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(url, f"no answer within {seconds:g} s")
        self.hint = "it hangs, or its machine has too much to do; on its machine: opsmesh status"


class CredentialsRefused(BrokerUnavailable):
    """A broker answers at `url`, and lets nobody in with these credentials."""

    def __init__(self, url: str, reason: str, *, user: str = "") -> None:
        super().__init__(url, reason)
        who = f"the credentials of {user}" if user else "these credentials"
        self.args = (f"the NATS server at {url} does not take {who}: {reason}",)
        self.hint = (
            "revoked, expired, or another server's: opsmesh auth ls there. For a host that has "
            "joined: opsmesh hub token there, and opsmesh join here"
        )
        self.user = user


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

    def __init__(self, what: str, pid: int | None, *, hint: str = "opsmesh status") -> None:
        who = f" (pid {pid})" if pid else ""
        super().__init__(f"{what} is already running{who}", hint=hint)
        self.pid = pid


class PermissionDenied(RouterError):
    """The broker does not let these credentials publish or subscribe to `subject`."""

    def __init__(
        self, subject: str, *, user: str = "", doing: str = "publish to", hint: str = ""
    ) -> None:
        who = f"the credentials of {user}" if user else "these credentials"
        super().__init__(
            f"{who} may not {doing} {subject}",
            hint=hint or "who may what: opsmesh auth ls, on the machine of the broker",
        )
        self.subject = subject
        self.user = user


class Unreadable(PermissionDenied):
    """A handler of its profiles asked for what none of them listens to."""

    def __init__(self, what: str, *, user: str, stored: str = "") -> None:
        #: When it was stored, where it is one event.
        self.stored = stored
        super().__init__(
            what,
            user=user,
            doing="read",
            hint=f"profiles that have changed: opsmesh auth rotate {user} --profiles FILE, on the "
            "machine of the broker",
        )


class AuthError(RouterError):
    """Keys, users or certificates: what was asked for cannot be done, and why."""


class BadFile(RouterError):
    """A file of the configuration that a program writes is not what it should be."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}", hint="mend the file, or move it away")
        self.path = path
        self.reason = reason


class StateTooNew(RouterError):
    """What lies at `where` has a form that this version does not know: it is left alone."""

    def __init__(self, where: str, format: int, by: str, *, reads: int, version: str) -> None:
        who = f"opsmesh {by}" if by else "a newer opsmesh"
        super().__init__(
            f"{where} was written by {who}, in form {format}; this is opsmesh {version}, which "
            f"reads form {reads}: nothing was touched",
            hint=f"install {who} again, or put back a backup that was made before: opsmesh restore",
        )
        self.where = where
        self.format = format
        self.by = by


class NeedsUpgrade(RouterError):
    """What lies at `where` has an older form: events wait in the spool until it is brought up."""

    def __init__(self, where: str, format: int, *, wants: int) -> None:
        super().__init__(
            f"{where} has form {format}, and this version works on form {wants}",
            hint="opsmesh upgrade --check says what changes; then: opsmesh upgrade",
        )
        self.where = where
        self.format = format


class RestoreUnfinished(RouterError):
    """`opsmesh restore` was interrupted: what is here is neither the old state nor the backup."""

    def __init__(self, backup: str) -> None:
        super().__init__(
            f"{backup} was being put back, and is not here as a whole",
            hint=f"finish it: opsmesh restore --replace {backup}",
        )
        self.backup = backup
