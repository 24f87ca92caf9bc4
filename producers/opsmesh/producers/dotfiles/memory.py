"""What the dotfiles producer knows of each source from before."""

from __future__ import annotations

from typing import Any

from opsmesh.producers.dotfiles.snapshot import Snapshot
from opsmesh.producers.remembered import Remembered as AnyRemembered


class Remembered(AnyRemembered):
    """See `remembered.Remembered`."""

    def files(self, key: str) -> Snapshot | None:
        """What lay in the source; None when it has never been seen."""
        files = self.facts(key).get("files")
        if not isinstance(files, dict):
            return None
        return {path: seen for path, seen in files.items() if _is_entry(seen)}

    def drift(self, key: str) -> dict[str, str] | None:
        """The drift that was told last; None when it has never been asked for."""
        drift = self.facts(key).get("drift")
        return drift if isinstance(drift, dict) else None

    def packages(self, key: str) -> set[str]:
        """stow's packages that were linked at some time."""
        packages = self.facts(key).get("packages")
        return {str(name) for name in packages} if isinstance(packages, list) else set()


def _is_entry(seen: Any) -> bool:
    return isinstance(seen, list) and len(seen) == 2 and isinstance(seen[1], str)
