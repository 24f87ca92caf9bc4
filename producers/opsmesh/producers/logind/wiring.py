"""hypridle's half: its `on_lock_cmd` and `on_unlock_cmd` leave a word for the logind producer.

hypridle sees what LockedHint does not: a hyprlock that was started by hand, and by any other road.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opsmesh.producers.logind import conf, inbox
from opsmesh.producers.logind.producer import LOCKED
from opsmesh.producers.wiring import OwnFile, Piece, SourceLine

#: What hyprlang would read as something else than a part of a path.
SPECIAL: Final = ("$", "{", "\\", "\n")

_TEXT: Final = """\
# Tells opsmesh that the session was locked or unlocked. Written by `opsmesh install hypridle`, and
# written anew by the next one. Commands of your own in hypridle.conf are run as well: {own}.
general {{
    on_lock_cmd = {on_lock_cmd}
    on_unlock_cmd = {on_unlock_cmd}
}}
"""


class Hypridle:
    """See `wiring.Wiring`."""

    name = "hypridle"
    description = "hypridle: every lock and unlock of the compositor"
    topics: Sequence[str] = (LOCKED,)
    producer: str | None = "logind"

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if shutil.which("hypridle") is None:
            return "hypridle is not on PATH"
        if not self._config().is_file():
            return f"there is no {self._config()}: hypridle needs one with a listener first"
        for path in (inbox.folder(), self._own()):
            if any(special in str(path) for special in SPECIAL):
                return f"hypridle.conf cannot name {str(path)!r}"
        return None

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`. What the user's own configuration says is part of ours."""
        users = conf.commands(self._config(), without=self._own())
        ours = {
            "on_lock_cmd": inbox.command(inbox.folder(), locked=True),
            "on_unlock_cmd": inbox.command(inbox.folder(), locked=False),
        }
        values = {
            key: "; ".join([_written(command), *([users[key]] if users.get(key) else [])])
            for key, command in ours.items()
        }
        own = ", ".join(key for key in ours if users.get(key)) or "there are none"
        return (
            OwnFile(path=self._own(), text=_TEXT.format(own=own, **values)),
            SourceLine(path=self._config(), line=f"source = {_written(str(self._own()))}"),
        )

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return (
            "restart hypridle, which reads its configuration only when it starts: "
            "systemctl --user restart hypridle.service, or as you start it"
        )

    def _config(self) -> Path:
        return conf.config_home() / "hypridle.conf"

    def _own(self) -> Path:
        return conf.config_home() / "opsmesh-hypridle.conf"


def _written(text: str) -> str:
    """As hyprlang reads it back: a single `#` would begin a comment."""
    return text.replace("#", "##")
