"""Logging of components: one JSON object a line, or a readable line on a terminal.

A message is a stable dotted event name; everything variable is a field. Each line of a run has its
`run_id` and `correlation_id`, from the context that `of_run` makes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import Any, Final, Literal, TextIO

import structlog

from opsmesh.schemas.redact import Redactor, built_in

#: How a line looks. `auto`: pretty on a terminal, JSON elsewhere.
Style = Literal["auto", "json", "pretty"]
#: The variable that says so; in config.yaml it is the setting `log`.
VARIABLE: Final = "OPSMESH_LOG"
#: What systemd tells a service whose standard error is the journal: `device:inode`.
JOURNAL: Final = "JOURNAL_STREAM"
#: What sd-daemon(3) has before a line of which the journal is to know how grave it is.
_PRIORITIES: Final = {
    **{"critical": "<2>", "exception": "<3>", "error": "<3>", "warning": "<4>"},
    **{"info": "<6>", "debug": "<7>"},
}

#: The same thing is said at most once in this many seconds.
QUIET = 60.0


class Throttle:
    """Keeps a process from saying the same thing over and over while something is away."""

    def __init__(self, seconds: float = QUIET) -> None:
        self._seconds = seconds
        self._said: dict[str, float] = {}

    def allows(self, what: str) -> bool:
        """Whether `what` may be said now; it then counts as said."""
        now = time.monotonic()
        if now - self._said.get(what, -self._seconds) < self._seconds:
            return False
        if len(self._said) > 100:  # texts may hold changing numbers
            self._said.clear()
        self._said[what] = now
        return True


#: A broker that is away is noticed in many places of a process. It is said once a minute, by
#: whoever notices it first: `away.allows(BROKER)`.
away = Throttle()
BROKER = "broker"


#: What asyncio warns of at the end of each connection by TLS: the protocol that nats-py (2.16)
#: makes for it takes itself for one without (`asyncio.streams`, `_over_ssl`). We tell the end.
_NO_EFFECT: Final = "returning true from eof_received() has no effect when using ssl"


def without_tls_ends(record: logging.LogRecord) -> bool:
    """A filter of asyncio's logger: whether a record is anything else."""
    return record.msg != _NO_EFFECT


def of_run(run_id: str, correlation_id: str) -> contextlib.AbstractContextManager[object]:
    """While it lasts, every line of this task and of those that it begins says whose it is."""
    return structlog.contextvars.bound_contextvars(run_id=run_id, correlation_id=correlation_id)


def to_journal(stream: TextIO) -> bool:
    """Whether what is written there is the journal's, as systemd.exec(5) says it is known."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get(JOURNAL, "") == f"{found.st_dev}:{found.st_ino}"


def _style(wanted: str) -> str:
    chosen = wanted or os.environ.get(VARIABLE, "auto")
    if chosen in ("json", "pretty"):
        return chosen
    return "pretty" if sys.stderr.isatty() else "json"


def _with_priority(_: object, method: str, line: Any) -> str:
    """Each line of the text: the journal takes each for a message of its own."""
    text = str(line)
    mark = _PRIORITIES.get(method, "<6>")
    return "\n".join(mark + part for part in text.split("\n"))


class Lines:
    """Writes lines to a stream, as the logger at the end of structlog's chain. One that cannot be
    written (a full disk, a terminal that has gone) is lost, and that is all: whoever said it goes
    on with his work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


def configure(
    component: str,
    *,
    level: str = "info",
    style: Style | Literal[""] = "",
    redactor: Redactor | None = None,
) -> None:
    """Set up structlog for this process; every line names the component, and holds no secret.
    `style`: as OPSMESH_LOG says unless it is given."""
    rules = redactor or built_in()
    looks = _style(style)

    def without_secrets(
        _: object, __: str, facts: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return rules.redact(facts)[0]

    lines = Lines(sys.stderr)
    renderers: list[structlog.typing.Processor] = [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if looks == "pretty"
        else structlog.processors.JSONRenderer()
    ]
    if to_journal(sys.stderr):
        renderers.append(_with_priority)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            without_secrets,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lambda *_: lines,
    )
    structlog.contextvars.bind_contextvars(component=component)
    # nats-py reports through error_cb; its own logger would say everything twice
    logging.getLogger("nats").setLevel(logging.CRITICAL)
