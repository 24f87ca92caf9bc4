"""Notices beyond the desktop: chat, mail and push services, through apprise.

apprise speaks to a hundred services, and says no more than yes or no; why it was no stands in its
log, which is read here for the call that was made. An address holds secrets: it is never shown.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from typing import Any, Final

from opsmesh.handlers.desktop.board import worded
from opsmesh.handlers.desktop.notice import Notice
from opsmesh.handlers.errors import ExtraMissing, HandlersError
from opsmesh.schemas.redact import Redactor

#: Characters of an error.
MAX_ERROR: Final = 300
#: What apprise calls the urgencies.
_KIND: Final = {"low": "info", "normal": "info", "critical": "failure"}
#: Parts of an address that are long enough to be a secret.
_PART: Final = re.compile(r"[^/:@?&=#\s]{6,}")
_STATUS: Final = re.compile(r"error=(\d{3})\b")
#: HTTP answers that another attempt may change (RFC 9110, RFC 6585): too slow, too many.
_LATER: Final = ("408", "425", "429")

_LOGGER: Final = "apprise"


class TargetFailed(HandlersError):
    """A target did not take a notice."""

    def __init__(self, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.retryable = retryable


async def send(url: str, notice: Notice, *, held: int, redact: Redactor) -> None:
    """Hand it over; TargetFailed when it is not taken, ExtraMissing without apprise."""
    try:
        import apprise
    except ImportError as error:
        raise ExtraMissing("notify", str(error)) from error
    plugin = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if plugin is None:
        raise TargetFailed("apprise does not know this kind of address, or it is not whole")
    title, body = worded(notice, 1, held)
    told, said = await asyncio.to_thread(_notify, plugin, title, body, _KIND[notice.urgency])
    if not told:
        reason = _without(said, url) or "it was not taken, and apprise does not say why"
        reason = redact.text(reason, context=notice.once, path="$.error")[:MAX_ERROR]
        raise TargetFailed(reason, retryable=_retryable(said))


def _notify(plugin: Any, title: str, body: str, kind: str) -> tuple[bool, str]:
    """In a thread of its own: apprise blocks. Whether it was taken, and what it says of it."""
    ours = _Ears()
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(ours)
    try:
        # text alone: apprise reads neither escapes nor files out of it
        taken = plugin.notify(title=title, body=body or title, notify_type=kind)
    except Exception as error:  # noqa: BLE001, RUF100 (a plug-in of apprise may raise anything)
        return False, f"{type(error).__name__}: {error}"
    finally:
        logger.removeHandler(ours)
    return bool(taken), "; ".join(ours.heard)


class _Ears(logging.Handler):
    """Hears warnings and errors of the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.heard.append(" ".join(record.getMessage().split()))


def _without(said: str, url: str) -> str:
    """What was said, without what could be the address's secrets."""
    for part in _PART.findall(url.partition("://")[2]):
        said = said.replace(part, "…")
    return said


def _retryable(said: str) -> bool:
    status = _STATUS.search(said)
    return status is None or status[1] in _LATER or not status[1].startswith("4")
