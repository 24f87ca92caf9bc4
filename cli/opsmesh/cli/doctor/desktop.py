"""What `doctor` says of the desktop: whether a person can be told there, and can press buttons.

No daemon is started for asking.
"""

from __future__ import annotations

import asyncio

from opsmesh.cli.doctor.checks import Check

NAME = "notifications"


def desktop() -> Check:
    """The notification daemon of this session; none is nothing wrong."""
    from opsmesh.handlers.desktop.daemon import Daemon
    from opsmesh.handlers.errors import DesktopAway

    async def ask() -> Check:
        daemon = Daemon(lambda _: None)
        try:
            await daemon.join()
            if not daemon.owner:
                return Check(check=NAME, ok=None, detail="no notification daemon runs")
            about = await daemon.about()
            buttons = "with" if "actions" in about.capabilities else "without"
            quiet = ", told not to disturb" if await daemon.inhibited() else ""
            detail = f"{about.name} {about.version}, {buttons} buttons{quiet}"
            return Check(check=NAME, ok=True, detail=detail)
        except DesktopAway as away:
            # that no desktop is there is a fact, that one does not answer a fault
            return Check(
                check=NAME,
                ok=False if away.retryable else None,
                detail=str(away),
                fix="restart the notification daemon" if away.retryable else "",
            )
        finally:
            await daemon.aclose()

    return asyncio.run(ask())
