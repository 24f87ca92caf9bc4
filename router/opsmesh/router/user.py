"""Who the user of this process is: by the uid, which nobody can claim, not by $USER or $LOGNAME."""

from __future__ import annotations

import os
import pwd


def name() -> str:
    """The user's name; the uid of one that has none, as in containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
