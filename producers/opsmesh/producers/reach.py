"""The wiring of a plug-in for other people's environments: our files once, and a line in each.

`opsmesh-TOOL.pth` in an environment's site-packages names the folder of the plug-in (site(5) of
Python). Nothing is installed there that a lock file would know, and uninstalling takes the one file
away. An environment that has the package by itself needs nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from opsmesh.producers import plugins
from opsmesh.producers.environments import environment
from opsmesh.producers.install import record
from opsmesh.producers.wiring import OwnFile, Piece


class InReach:
    """See `wiring.Wiring`; what differs from tool to tool is said by its subclass."""

    #: The tool, which is also the name of its package and of its program.
    name: str
    description: str
    topics: Sequence[str]
    producer: str | None = None
    #: The distribution of the plug-in.
    plugin: str
    #: The other way in, for where there is no environment of the tool.
    otherwise: str
    #: What is left to do.
    then: str

    @property
    def pointer(self) -> str:
        """The file that brings the plug-in into an environment."""
        return f"opsmesh-{self.name}.pth"

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if self.environments(os.environ, Path.cwd()):
            return None
        return (
            f"no environment with {self.name}: looked at $VIRTUAL_ENV, $CONDA_PREFIX, the project "
            f"and the {self.name} on PATH; activate one, or {self.otherwise}"
        )

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        home = self._home(os.environ)
        pointers: list[Piece] = [
            OwnFile(path=site / self.pointer, text=f"{home}\n")
            for site in self.environments(os.environ, Path.cwd())
            if not self._has_it(site)
        ]
        if not pointers:
            return []
        files = sorted(plugins.files(self.plugin).items())
        ours: list[Piece] = [OwnFile(path=home / path, text=data.decode()) for path, data in files]
        return [*pointers, *ours]

    def after(self) -> str:
        """See `wiring.Wiring`."""
        sites = self.environments(os.environ, Path.cwd())
        by_itself = [str(site) for site in sites if self._has_it(site)]
        told = [f"{self.plugin} is installed by itself in {site}" for site in by_itself]
        return "\n".join([*told, self.then])

    def reload(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        return []

    def switch_on(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        return []

    def switch_off(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`: what Pythons compiled there would keep our folders."""
        home = str(self._home(os.environ))
        if not Path(home).is_dir():
            return []
        return [["find", home, "-name", "__pycache__", "-prune", "-exec", "rm", "-r", "{}", "+"]]

    def environments(self, env: Mapping[str, str], cwd: Path) -> list[Path]:
        """The site-packages with the tool in them: of the environments that are at hand here, and
        of those that were wired before."""
        found: dict[Path, None] = {}
        for prefix in self._prefixes(env, cwd):
            for site in sorted(prefix.glob("lib/python3.*/site-packages")):
                found.setdefault(site.resolve())
        known = record.load(self.name)
        for entry in known.entries if known is not None else ():
            if entry.path.endswith(f"/{self.pointer}"):
                found.setdefault(Path(entry.path).parent)
        return [site for site in found if (site / self.name).is_dir()]

    def _prefixes(self, env: Mapping[str, str], cwd: Path) -> Iterator[Path]:
        """Environments of a user's own: the system's Python is not ours to change."""
        named = [env.get("VIRTUAL_ENV"), env.get("CONDA_PREFIX")]
        if own := environment(cwd):
            named.append(str(own))
        if program := shutil.which(self.name, path=env.get("PATH")):
            named.append(str(Path(program).resolve().parent.parent))
        for name in named:
            path = Path(name or "/")
            if (path / "pyvenv.cfg").is_file() or (path / "conda-meta").is_dir():
                yield path

    def _has_it(self, site: Path) -> bool:
        """Whether the package is installed there, as pip does it, editable or not."""
        return any(site.glob(f"{self.plugin.replace('-', '_')}-*.dist-info"))

    def _home(self, env: Mapping[str, str]) -> Path:
        """Where the plug-in's files are."""
        base = env.get("XDG_DATA_HOME", "")
        data = Path(base) if base.startswith("/") else Path.home() / ".local/share"
        return data / "opsmesh" / self.name
