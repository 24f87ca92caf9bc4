"""Logging of components: one JSON object a line, or a readable line on a terminal.

A message is a stable dotted event name; everything variable is a field.
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure(component: str, *, level: str = "info") -> None:
    """Set up structlog for this process; every line names the component."""
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
