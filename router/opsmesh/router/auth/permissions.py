"""What each role may publish and subscribe to. Pure: names in, subjects out.

The one rule: a role has what its processes were seen to need (tests/router/test_auth.py runs
them under it), and nothing because it was convenient. docs/security.md says what each can do in a
thief's hands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from opsmesh.router.auth import reads as of_profiles
from opsmesh.router.auth.reads import ASK, SINK, VIEWER, ReadsByConsumer
from opsmesh.router.roles import Role
from opsmesh.router.server_config import MAX_LINE
from opsmesh.schemas.envelope import host_token

#: Inboxes of a user lie under `_INBOX.<its name>`, so that nobody hears another's answers.
INBOX: Final = "_INBOX"
#: Bytes of a token that a server takes: its CONNECT must fit into one line (`server_config`'s
#: MAX_LINE). Hence wildcards where every stream of the account is meant.
MAX_TOKEN: Final = MAX_LINE - 1024

#: The API's questions, and consumers without a name, which cannot be somebody's.
_API: Final = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
    "$JS.API.DIRECT.GET.>",
    "$JS.API.CONSUMER.CREATE.*",
    "$JS.API.CONSUMER.INFO.*.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.MSG.NEXT.*.*",
)
#: Everything of EVENTS through durable consumers.
_ARCHIVE_API: Final = (
    "$JS.API.STREAM.INFO.EVENTS",
    "$JS.API.STREAM.MSG.GET.EVENTS",
    "$JS.API.DIRECT.GET.EVENTS",
    "$JS.API.DIRECT.GET.EVENTS.>",
    "$JS.API.CONSUMER.CREATE.EVENTS",
    "$JS.API.CONSUMER.CREATE.EVENTS.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.*",
    "$JS.API.CONSUMER.INFO.EVENTS.*",
    "$JS.API.CONSUMER.DELETE.EVENTS.*",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.*",
    "$JS.ACK.>",
)
#: Who decides a profile, and whether one can be run: questions that change nothing.
_QUESTIONS: Final = ("own.>", "ctl.profiles.runnable", "ctl.runs.questions")


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """Subjects that are allowed, and those among them that are not."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    not_publish: tuple[str, ...] = ()
    not_subscribe: tuple[str, ...] = ()

    def may_publish(self, subject: str) -> bool:
        """Whether the server lets a message to this subject through."""
        return _any(self.publish, subject) and not _any(self.not_publish, subject)

    def may_subscribe(self, subject: str) -> bool:
        """Whether the server takes a subscription to this subject (or pattern)."""
        return _any(self.subscribe, subject) and not _any(self.not_subscribe, subject)


def covers(pattern: str, subject: str) -> bool:
    """Whether all that `subject` (perhaps a pattern itself) stands for is in `pattern`."""
    wanted, given = pattern.split("."), subject.split(".")
    for n, part in enumerate(wanted):
        if part == ">":
            return len(given) > n
        if n >= len(given) or given[n] == ">" or part not in ("*", given[n]):
            return False
    return len(wanted) == len(given)


def _any(patterns: Iterable[str], subject: str) -> bool:
    return any(covers(pattern, subject) for pattern in patterns)


def permissions(
    role: Role,
    *,
    user: str,
    host: str,
    topics: Iterable[str] = (),
    reads: ReadsByConsumer | None = None,
    asks: bool = False,
) -> Permissions:
    """A role's, for `user` on `host`; `topics` (patterns) narrow what a producer publishes, `reads`
    what a handler reads (none: all). A viewer or sink that `asks` has no road to JetStream's API
    but the agent's gate (`router.gate`)."""
    inbox = f"{INBOX}.{user}.>"
    place, topics = host_token(host), tuple(topics)
    if role == "admin":
        return Permissions(publish=(">",), subscribe=(">",))
    if role == "producer":
        return Permissions(publish=_produces(place, topics), subscribe=(inbox,))
    if role == "viewer":
        api = (f"{ASK}.{VIEWER}.{user}.>",) if asks else _API
        return Permissions(publish=(*api, *_QUESTIONS), subscribe=(inbox, "evt.>"))
    if role == "sink":
        api = (f"{ASK}.{SINK}.{place}.{user}.>",) if asks else _ARCHIVE_API
        return Permissions(publish=(*api, *_tells(place)), subscribe=(inbox,))
    if reads:
        return Permissions(
            publish=of_profiles.publishes(place, user, reads),
            subscribe=(inbox, *of_profiles.hears(place, reads)),
        )
    return Permissions(publish=_handles(place), subscribe=_hears(place, inbox))


def _produces(place: str, topics: tuple[str, ...]) -> tuple[str, ...]:
    """Its own topics under its own host, at the broker and at its agent's door; what its agent says
    of itself and of losses, and letters for lines that are no events."""
    own = dict.fromkeys((*topics, "mesh.>") if topics else (">",))
    return (
        *(f"evt.{place}.{topic}" for topic in own),
        *(f"ingest.{place}.{topic}" for topic in (topics or (">",))),
        f"dlq.ingest.{place}.>",
    )


def _tells(place: str) -> tuple[str, ...]:
    """The events of a sink: losses and seals."""
    return (f"evt.{place}.mesh.>", f"evt.{place}.evidence.>")


def _handles(place: str) -> tuple[str, ...]:
    """Reading, and what profiles do and leave: results under its own host, records, the ledger."""
    return (
        *_API,
        *_QUESTIONS,
        "$JS.API.CONSUMER.CREATE.>",
        "$JS.API.CONSUMER.DURABLE.CREATE.>",
        "$JS.API.CONSUMER.DELETE.>",
        "$JS.ACK.>",
        f"evt.{place}.>",
        "dlq.>",
        f"dec.*.{place}",
        f"fir.*.{place}",
        "ver.*",
        "trg.*",
        "trg.*.*",  # for the host that has to act
        "$KV.opsmesh-runs.>",
        "$KV.opsmesh-windows.>",
        "$KV.opsmesh-a2a.>",
        "$O.opsmesh-evidence.>",
        # a key that is removed takes its past with it
        "$JS.API.STREAM.PURGE.KV_opsmesh-runs",
        "$JS.API.STREAM.PURGE.KV_opsmesh-windows",
        "$JS.API.STREAM.PURGE.KV_opsmesh-a2a",
        "$JS.API.STREAM.PURGE.OBJ_opsmesh-evidence",
        "ctl.>",
        f"{INBOX}.>",  # answers; nobody hears of an inbox that is not its own
    )


def _hears(place: str, inbox: str) -> tuple[str, ...]:
    return (
        inbox,
        "ctl.>",
        "own.>",
        f"evt.{place}.automation.approval.*",
        "$KV.opsmesh-runs.>",
    )
