"""A leaf's server and its hub's: the names of what crosses between them; nothing else does.

The hub's streams source those of each leaf through a durable consumer that the leaf makes
(nats-architecture-and-design ADR-60): the leaf knows by it what the hub has stored, and the hub may
ask nothing of the leaf but to begin again after that. The one rule: a subject crosses because it
is named here. `evt.>` is not: both servers have a stream for it, and would store it twice.
"""

from __future__ import annotations

from typing import Any, Final

from nats.js.api import ExternalStream, StreamConsumerSource, StreamSource, SubjectTransform

from opsmesh.router.auth.permissions import Permissions
from opsmesh.router.topology import DECISIONS, EVENTS, FIRINGS, VERSIONS
from opsmesh.schemas.envelope import host_token

#: What the hub has of each leaf: what happened there, and why profiles fired there or did not.
SOURCED: Final = (EVENTS, DECISIONS, FIRINGS, VERSIONS)

#: Messages on their way to the hub at most; so many are sent again after a cut, and passed over.
MAX_PENDING: Final = 4096
#: Nanoseconds between heartbeats: the server takes this one only.
HEARTBEAT: Final = 1_000_000_000

#: Whatever subject a leaf's message has, at the hub it is that of the leaf's own host: so no host
#: can put words into another one's mouth. A version's subject has no place for a host.
_PINNED: Final = {
    EVENTS: ("evt.*.>", "evt.{host}.>"),
    DECISIONS: ("dec.*.*", "dec.{{{{wildcard(1)}}}}.{host}"),
    FIRINGS: ("fir.*.*", "fir.{{{{wildcard(1)}}}}.{host}"),
}

#: What the hub's server may not send to a leaf's. It would not; one that was broken into might.
#: `src.>` is not among them: the hub's interest in it would be refused by the same rule (2.15.1).
_REFUSED: Final = (
    *("evt.>", "dec.>", "fir.>", "ver.>", "dlq.>", "trg.>", "rpl.>", "ctl.>"),
    *("$KV.>", "$O.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>", "_INBOX.>"),
)
#: What it may not ask of the leaf's consumers: all but to begin again, and how they are.
_UNASKED: Final = ("CREATE", "DURABLE", "DELETE", "MSG", "PAUSE", "UNPIN", "NAMES", "LIST")


def domain(host: str) -> str:
    """The JetStream domain of a leaf host."""
    return host_token(host)


def consumer(host: str) -> str:
    """The leaf's consumer from which the hub is fed, in each of the streams."""
    return f"to-hub-{host_token(host)}"


def delivery(host: str, stream: str) -> str:
    """The subject on which that consumer delivers."""
    return f"src.{host_token(host)}.{stream}"


def consumer_config(host: str, stream: str) -> dict[str, Any]:
    """The consumer as the server's API takes it: nats-py 2.16 knows no `flow_control` policy."""
    return {
        "durable_name": consumer(host),
        "description": "what the hub has taken",
        "deliver_policy": "all",
        "deliver_subject": delivery(host, stream),
        "ack_policy": "flow_control",
        "flow_control": True,
        "idle_heartbeat": HEARTBEAT,
        "max_ack_pending": MAX_PENDING,
        "max_deliver": -1,
        "replay_policy": "instant",
    }


def source(host: str, stream: str) -> StreamSource:
    """How the hub's stream of this name sources the leaf's."""
    pinned = _PINNED.get(stream)
    transforms = None
    if pinned is not None:
        src, dest = pinned
        transforms = [SubjectTransform(src=src, dest=dest.format(host=host_token(host)))]
    return StreamSource(
        name=stream,
        # no prefix for deliveries: they come on the consumer's own subject
        external=ExternalStream(api=f"$JS.{domain(host)}.API", deliver=""),
        subject_transforms=transforms,
        consumer=StreamConsumerSource(name=consumer(host), deliver_subject=delivery(host, stream)),
    )


def permissions(host: str) -> Permissions:
    """What the leaf's server may send to the hub's (`publish`) and hear from it (`subscribe`).

    Replies go to `$JSC.R.*`. The server announces its API with wildcards, so a narrower right to
    hear would be none; what the hub may ask is the leaf's to refuse (`refused`).
    """
    return Permissions(
        publish=(f"src.{host_token(host)}.*", "$JSC.R.*"),
        subscribe=(
            f"$JS.{domain(host)}.API.CONSUMER.>",
            # flow control answers: what the hub has stored (2.15 uses the first form)
            f"$JS.FC.*.{consumer(host)}.*",
            f"$JS.FC.{domain(host)}.>",
        ),
    )


def refused(host: str) -> list[str]:
    """What the leaf's server takes from the hub's in no case (`deny_imports`)."""
    api = f"$JS.{domain(host)}.API"
    groups = ("STREAM", "DIRECT", "META", "SERVER", "ACCOUNT", "$KV", "$OBJ")
    return [
        *_REFUSED,
        *(f"{api}.{group}.>" for group in groups),
        f"{api}.INFO",
        *(f"{api}.CONSUMER.{word}.>" for word in _UNASKED),
    ]
