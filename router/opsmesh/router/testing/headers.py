"""What the broker reads in a message's headers, and the errors with which it refuses one.

The one rule: an error is the very exception that nats-py raises for the server's answer, code for
code, so that a caller under test sees no difference. Measured with nats-server 2.15.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from nats.js.errors import APIError, BadRequestError, NotFoundError, ServerError

from opsmesh.router.testing.clock import nanoseconds
from opsmesh.schemas import times

MSG_ID: Final = "Nats-Msg-Id"
TTL: Final = "Nats-TTL"
ROLLUP: Final = "Nats-Rollup"
SCHEDULE: Final = "Nats-Schedule"
TARGET: Final = "Nats-Schedule-Target"
SCHEDULE_TTL: Final = "Nats-Schedule-TTL"
EXPECTED_STREAM: Final = "Nats-Expected-Stream"
EXPECTED_SEQ: Final = "Nats-Expected-Last-Sequence"
EXPECTED_MSG_ID: Final = "Nats-Expected-Last-Msg-Id"
EXPECTED_SUBJECT_SEQ: Final = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"

#: A message that outlives the stream's max_age.
NEVER: Final = "never"

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)"
#: What a schedule may say, and MemoryMesh does not carry out.
NOT_MODELLED: Final = (
    "Nats-Schedule-Source",
    "Nats-Schedule-Rollup",
    "Nats-Schedule-Time-Zone",
)
_REPEATING: Final = frozenset(
    {"@every", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
)
_NOT_PASSED_ON: Final = (SCHEDULE, MSG_ID, TTL, ROLLUP)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def refused(err_code: int, description: str, *, code: int = 400) -> APIError:
    """The exception that nats-py makes of this answer."""
    kind = {400: BadRequestError, 404: NotFoundError, 500: ServerError}[code]
    return kind(code=code, err_code=err_code, description=description)


def wrong_last(seq: int) -> APIError:
    """A compare-and-set that came too late."""
    return refused(10071, f"wrong last sequence: {seq}")


def expected(headers: Mapping[str, str], name: str) -> int | None:
    """The sequence that a header expects; -1, which is none, for text that is no number."""
    text = headers.get(name)
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdigit() else -1


def ttl_ns(text: str) -> int | None:
    """The lifetime of a message in nanoseconds: whole seconds or a Go duration, at least 1 s.

    None for `never`; ValueError for what the server refuses (ADR-43).
    """
    if text == NEVER:
        return None
    if text.isascii() and text.isdigit():
        seconds = float(text)
    elif re.fullmatch(f"(?:{_PART})+", text):
        seconds = math.fsum(float(n) * _UNITS[unit] for n, unit in re.findall(_PART, text))
    else:
        raise ValueError(f"{text!r} is no lifetime")
    if seconds < 1:
        raise ValueError(f"a lifetime of {text} is less than a second")
    return nanoseconds(seconds)


def schedule_ns(pattern: str) -> int:
    """When a schedule fires (`@at <RFC 3339>`), in nanoseconds since the epoch.

    ValueError for what the server refuses; NotImplementedError for what it takes and this does not.
    """
    kind, _, moment = pattern.partition(" ")
    if kind == "@at" and _RFC3339.fullmatch(moment):
        return times.parse_us(moment) * 1000
    if kind in _REPEATING or len(pattern.split()) == 6:
        raise NotImplementedError(f"MemoryMesh knows the schedule `@at <time>` alone: {pattern!r}")
    raise ValueError(f"{pattern!r} is no schedule")


def fired(headers: Mapping[str, str], schedule: str) -> dict[str, str]:
    """The headers of the message that a schedule (its subject) produces (ADR-51)."""
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _NOT_PASSED_ON and not name.startswith(("Nats-Schedule-", "Nats-Expected-"))
    }
    own = {"Nats-Scheduler": schedule, "Nats-Schedule-Next": "purge"}
    lifetime = {TTL: headers[SCHEDULE_TTL]} if SCHEDULE_TTL in headers else {}
    return {**kept, **own, **lifetime}
