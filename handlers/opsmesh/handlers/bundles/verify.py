"""Whether a bundle's folder is what its manifest says, file by file."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path

from opsmesh.handlers.bundles import archive
from opsmesh.handlers.bundles.archive import BadBundle
from opsmesh.handlers.bundles.folders import MANIFEST


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found: the bundle's id as its manifest has it now, and each thing that is wrong."""

    bundle_id: str
    files: int
    problems: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(folder: Path) -> Verdict:
    """Compare every file with the manifest, and look for what it does not name."""
    try:
        raw = (folder / MANIFEST).read_bytes()
        bundle_id = hashlib.sha256(raw).hexdigest()
    except OSError as error:
        return Verdict(bundle_id="", files=0, problems=(f"{MANIFEST}: {error.strerror}",))
    try:
        files = archive.listed(json.loads(raw))
    except (ValueError, RecursionError) as error:
        text = str(error) if isinstance(error, BadBundle) else f"{MANIFEST}: {error}"
        return Verdict(bundle_id=bundle_id, files=0, problems=(text,))
    problems = []
    for file in files.values():
        path = folder / file.name
        try:
            facts = path.lstat()
            if not stat.S_ISREG(facts.st_mode):
                problems.append(f"{file.name}: is no regular file")
            elif facts.st_size != file.size:
                problems.append(f"{file.name}: {facts.st_size} bytes, and not {file.size}")
            elif _hash(path) != file.sha256:
                problems.append(f"{file.name}: has another hash than in the manifest")
        except OSError as error:
            problems.append(f"{file.name}: {error.strerror}")
    known = {*files, MANIFEST}
    problems += [
        f"{path.name}: is not in the manifest"
        for path in sorted(folder.iterdir())
        if path.name not in known
    ]
    return Verdict(bundle_id=bundle_id, files=len(files), problems=tuple(problems))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
