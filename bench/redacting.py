"""Redaction alone, in memory: what it costs each event, with and without something to find."""

from __future__ import annotations

import time
from statistics import median

import msgspec

from figure import Figure, Target
from lab import Lab
from opsmesh.router.redaction import KEY_SIZE
from opsmesh.schemas.redact import Redactor
from samples import messages

#: Events are filled up to this many bytes.
SIZE = 500
TARGET = Target(of="value", at="most", limit=20.0)


async def redact(lab: Lab) -> list[Figure]:
    """Microseconds an event, the median of many: clean ones, as nearly all are; ones in which a
    hint stands and no secret; and ones with a token in them."""
    amount = lab.amount(20_000)
    redactor = Redactor(key=bytes(KEY_SIZE))
    clean = _events(amount, "nothing of note ")
    hinted = _events(amount, "expected a token ")
    token = "ghp_" + "a1B2c3D4e5F6" * 3  # put together here, so that no scanner sees one
    found = _events(amount, f"pushed with {token} ")
    sides = {
        "redact": ("a clean event of 500 bytes", clean, TARGET),
        "redact_hint": ("an event with a word that secrets stand by", hinted, None),
        "redact_found": ("an event with a token, and its commitment", found, None),
    }
    return [
        Figure(
            name=name,
            what=what,
            unit="µs",
            ours=[_median_us(redactor, events) for _ in range(lab.rounds)],
            target=target,
            details={"events_a_round": amount, "bytes": len(events[0])},
        )
        for name, (what, events, target) in sides.items()
    ]


def _events(amount: int, message: str) -> list[bytes]:
    """Realistic events, each with this in its message, all of about one size."""
    made = []
    for ready in messages(amount):
        fields = msgspec.json.decode(ready.data)
        room = SIZE - len(ready.data)
        fields["payload"]["message"] += (" " + message + "x" * room)[: max(room, len(message) + 1)]
        made.append(msgspec.json.encode(fields))
    return made


def _median_us(redactor: Redactor, events: list[bytes]) -> float:
    spent = []
    for data in events:
        began = time.perf_counter_ns()
        redactor.event(data)
        spent.append(time.perf_counter_ns() - began)
    return median(spent) / 1000
