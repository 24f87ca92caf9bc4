"""A handler of its profiles: what it may read, and the subjects that follow from it.

Such a handler has no road to JetStream's API of its own. nats-server publishes an answer to
whatever reply subject a request names, and asks no permission for that: who may ask for a message
that is not there can have the empty answer sent to `$JS.API.STREAM.DELETE.EVENTS`. So its requests
go to the agent of the broker (`router.gate`), which knows this list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from opsmesh.router.errands import CANCEL, HAS, TAKE
from opsmesh.router.topology import EVENTS, QUESTIONS, RUNS, VERSIONS, WINDOWS

#: The first token of what is asked of the agent; the second is the user who asks.
ASK: Final = "ask"
#: In place of the user where the role says all: `ask.=viewer.<user>`, `ask.=sink.<host>.<user>`. No
#: user is called so, and nobody else may publish there: each agent of a cluster can believe it,
#: also one that has never heard of the user.
VIEWER: Final = "=viewer"
SINK: Final = "=sink"
#: The header of an answer that is none: what may not be read.
REFUSED: Final = "Opsmesh-Refused"


class Reads(msgspec.Struct, frozen=True, kw_only=True):
    """One profile's consumer: whose it is, and what it is shown of EVENTS."""

    profile: str
    subjects: list[str]


#: By the name of the consumer.
ReadsByConsumer = Mapping[str, Reads]


def rights(place: str, reads: ReadsByConsumer) -> dict[str, tuple[str, ...]]:
    """What may be read of each stream: events that the profiles listen to and results of their
    host, the runs of the profiles, their memory, and their texts."""
    profiles = _profiles(reads)
    events = dict.fromkeys(subject for one in reads.values() for subject in one.subjects)
    return {
        EVENTS: (*events, f"evt.{place}.automation.>"),
        f"KV_{RUNS}": tuple(f"$KV.{RUNS}.{profile}.>" for profile in profiles),
        f"KV_{WINDOWS}": tuple(f"$KV.{WINDOWS}.{name}.>" for name in (*reads, *QUESTIONS)),
        VERSIONS: tuple(f"ver.{consumer}" for consumer in reads),
    }


def publishes(place: str, user: str, reads: ReadsByConsumer) -> tuple[str, ...]:
    """Results under its own host, and the records of its own profiles."""
    profiles = _profiles(reads)
    return (
        f"{ASK}.{user}.>",
        f"evt.{place}.>",
        f"dec.*.{place}",
        f"fir.*.{place}",
        "own.*",
        f"{HAS}.*",
        "_INBOX.>",  # answers; nobody hears of an inbox that is not its own
        *(f"$KV.{RUNS}.{profile}.>" for profile in profiles),
        *(f"$KV.{WINDOWS}.{name}.>" for name in (*reads, *QUESTIONS)),
        *(f"dlq.{profile}.>" for profile in profiles),
        *(f"trg.{profile}.*" for profile in profiles),  # handed on to the host that has to act
        *(f"{TAKE}.{profile}.*" for profile in profiles),
        *(f"ver.{consumer}" for consumer in reads),
    )


def hears(place: str, reads: ReadsByConsumer) -> tuple[str, ...]:
    """That a run is not wanted any more, its host's questions, and who asks for its profiles."""
    profiles = _profiles(reads)
    return (
        CANCEL,
        f"evt.{place}.automation.approval.*",
        *(f"own.{consumer}" for consumer in reads),
        *(f"$KV.{RUNS}.{profile}.>" for profile in profiles),
        *(f"{HAS}.{profile}" for profile in profiles),
        *(f"{TAKE}.{profile}.{place}" for profile in profiles),
    )


def _profiles(reads: ReadsByConsumer) -> Iterable[str]:
    return tuple(dict.fromkeys(one.profile for one in reads.values()))
