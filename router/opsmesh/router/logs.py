"""Logging of components: one JSON object a line, or a readable line on a terminal.

A message is a stable dotted event name; everything variable is a field.
"""

from __future__ import annotations

import logging
import sys
import time

import structlog

from opsmesh.schemas.redact import Redactor, built_in

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


def configure(component: str, *, level: str = "info", redactor: Redactor | None = None) -> None:
    """Set up structlog for this process; every line names the component, and holds no secret."""
    rules = redactor or built_in()

    def without_secrets(
        _: object, __: str, facts: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return rules.redact(facts)[0]

    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            without_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(component=component)
    # nats-py reports through error_cb; its own logger would say everything twice
    logging.getLogger("nats").setLevel(logging.CRITICAL)
