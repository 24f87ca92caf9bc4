"""`notify-send`, for a desktop that we cannot reach ourselves: text alone, no buttons."""

from __future__ import annotations

import shutil
from typing import Final

from opsmesh.handlers import process
from opsmesh.handlers.desktop import text
from opsmesh.handlers.desktop.daemon import APP
from opsmesh.handlers.desktop.notice import Notice
from opsmesh.handlers.errors import DesktopAway, Unstartable

PROGRAM: Final = "notify-send"
#: Seconds that it has.
TIMEOUT_S: Final = 10.0


def found() -> bool:
    """Whether it is installed."""
    return shutil.which(PROGRAM) is not None


def argv(notice: Notice, title: str, body: str) -> list[str]:
    """Its arguments: what an event says comes after `--`, and is never an option."""
    options = [f"--app-name={APP}", f"--urgency={notice.urgency}"]
    if notice.icon:
        options.append(f"--icon={notice.icon}")
    if notice.timeout_ms >= 0:
        options.append(f"--expire-time={notice.timeout_ms}")
    # it reads escapes in the body (g_strcompress), and the daemon may read markup
    return [PROGRAM, *options, "--", title, text.escaped(body).replace("\\", "\\\\")]


async def show(notice: Notice, title: str, body: str) -> None:
    """Show it; DesktopAway when that fails."""
    try:
        ended = await process.run(
            argv(notice, title, body), env=process.minimal_environment(), timeout=TIMEOUT_S
        )
    except Unstartable as error:
        raise DesktopAway(f"{PROGRAM}: {error}") from error
    if not ended.ok:
        how = "no answer" if ended.timed_out else ended.stderr_tail.strip() or "failed"
        raise DesktopAway(f"{PROGRAM}: {how[:200]}")
