"""`opsmesh install helix`: Helix's language servers behind the proxy.

A program of ours stands between: where opsmesh is gone it starts the server itself, so that Helix
never misses one.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from opsmesh.producers.errors import OptionError, Unusable
from opsmesh.producers.helix import languages
from opsmesh.producers.helix.servers import DEFAULTS
from opsmesh.producers.install import plan
from opsmesh.producers.lsp.facts import CLEARED, ERROR, FORMAT_FAILED, SAVE
from opsmesh.producers.wiring import EditedFile, OwnFile, Piece
from opsmesh.schemas.nearest import nearest

#: The program between Helix and the servers.
_PROXY: Final = """\
#!/bin/sh
# Helix starts its language servers by this: opsmesh install helix. Without opsmesh they run alone.
if [ -x {opsmesh} ]; then exec {opsmesh} lsp --editor helix "$@"; fi
while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


class Helix:
    """See `wiring.Wiring`. `server`: the names of servers as Helix has them, with commas; otherwise
    all that languages.toml starts, and those of Helix's own that are on PATH."""

    name = "helix"
    description = "helix: saves, errors and formatting, by its language servers"
    topics: Sequence[str] = (SAVE, ERROR, CLEARED, FORMAT_FAILED)
    producer: str | None = None

    def __init__(self, *, server: str = "") -> None:
        self._chosen = [name.strip() for name in server.split(",") if name.strip()]

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        found = _config().is_dir() or shutil.which("hx") or shutil.which("helix")
        if not found:
            return f"neither hx nor helix is on PATH, and there is no {_config()}"
        if not self._wanted():
            return f"no language server is on PATH, and {_languages()} names none"
        return None

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        path = _languages()
        return (
            OwnFile(path=_proxy(), text=_PROXY.format(opsmesh=_opsmesh()), mode=0o755),
            EditedFile(
                path=path,
                put=partial(self._put, path=str(path), proxy=str(_proxy())),
                take=partial(languages.take, path=str(path)),
            ),
        )

    def after(self) -> str:
        """See `wiring.Wiring`."""
        text = _read(_languages())
        found = languages.behind(text, path=str(_languages()))
        return (
            f"behind the proxy: {', '.join(found)}; a Helix that runs starts them so after "
            ":lsp-restart. Other ones: opsmesh install helix -o server=NAME,NAME"
        )

    def _put(self, text: str, *, path: str, proxy: str) -> str:
        users = languages.servers(languages.parse(text, path), path)
        for name in self._chosen:
            if not languages.command_of(users, name):
                raise _unknown(name, [*users, *DEFAULTS])
        wanted = self._chosen or languages.names(users, _runs)
        return languages.put(text, path=path, proxy=proxy, wanted=wanted)

    def _wanted(self) -> Sequence[str]:
        path = _languages()
        try:
            users = languages.servers(languages.parse(_read(path), str(path)), str(path))
        except Unusable:  # who installs is told
            return ["?"]
        return self._chosen or languages.names(users, _runs)


def _unknown(name: str, known: Sequence[str]) -> OptionError:
    like = nearest(name, known)
    hint = f"; did you mean {like}?" if like else f"; give it a command in {_languages()}"
    return OptionError("server", f"nobody says how {name} is started{hint}")


def _runs(command: str) -> bool:
    return shutil.which(command) is not None


def _read(path: Path) -> str:
    return (plan.read(path) or b"").decode(errors="replace")


def _base(variable: str, fallback: str) -> Path:
    base = os.environ.get(variable, "")
    return Path(base) if base.startswith("/") else Path.home() / fallback


def _config() -> Path:
    return _base("XDG_CONFIG_HOME", ".config") / "helix"


def _languages() -> Path:
    return _config() / "languages.toml"


def _proxy() -> Path:
    return Path(f"{_base('XDG_DATA_HOME', '.local/share')}{languages.PROXY}")


def _opsmesh() -> str:
    beside = Path(sys.executable).with_name("opsmesh")
    found = str(beside) if beside.exists() else shutil.which("opsmesh") or str(beside)
    return shlex.quote(found)
