"""`opsmesh install profiles-schema`: editors complete and check profile files as they are written.

yaml-language-server, which stands behind VS Code's YAML extension, Neovim and Helix, reads the
schema that a comment at a file's start names, relative to the file. So the files can be carried to
another machine, and no editor's own configuration is touched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opsmesh.handlers.profiles.profile import json_schema
from opsmesh.producers.wiring import OwnFile, Piece, SourceLine
from opsmesh.router import paths

#: Where the schema lies, in the configuration folder.
SCHEMA: Final = "profiles.schema.json"


class ProfilesSchema:
    """See `wiring.Wiring`."""

    name = "profiles-schema"
    description = "completion and checks for profiles.yaml in any editor with yaml-language-server"
    topics: Sequence[str] = ()
    producer: str | None = None

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if not self._files():
            return f"there is no {self._folder() / 'profiles.yaml'} yet: opsmesh up writes one"
        return None

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`. A file that is made later gets its line from the next `install`."""
        folder = self._folder()
        text = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
        lines = [
            SourceLine(
                path=path,
                line=f"# yaml-language-server: $schema={'../' * (path.parent != folder)}{SCHEMA}",
                at="start",
            )
            for path in self._files()
        ]
        return (OwnFile(path=folder / SCHEMA, text=text), *lines)

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return "open the file anew; a plug-in with actions of its own: opsmesh install it again"

    def _files(self) -> list[Path]:
        folder = self._folder()
        found = [folder / "profiles.yaml", *sorted((folder / "profiles.d").glob("*.yaml"))]
        return [path for path in found if path.is_file()]

    def _folder(self) -> Path:
        return Path(paths.config_dir())
