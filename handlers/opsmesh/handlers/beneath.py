"""Paths in which an event has a part.

The one rule: what a profile wrote before the first placeholder is a folder that the path stays in,
whatever `..` and symbolic links there are. A path that is all the event's is where the profile
meant it to be; but nobody gets what opsmesh keeps secret.
"""

from __future__ import annotations

import os
from pathlib import Path

from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.template import OUTSIDE, Template
from opsmesh.router import paths, redaction


class OutOfBounds(HandlersError, ValueError):
    """The path leads to where its profile did not mean it to."""


def checked(path: Path, template: Template) -> Path:
    """The path that the template gave; OutOfBounds when it left its folder, or is a secret's."""
    real = Path(os.path.realpath(path))
    for own in (Path(paths.config_dir(), "secrets"), Path(paths.keys_dir()), redaction.key_file()):
        if real.is_relative_to(os.path.realpath(own)):
            raise OutOfBounds("what opsmesh keeps secret is given to nobody")
    if not template.names & OUTSIDE:
        return path
    written = os.path.expanduser(template.lead)  # noqa: PTH111 (a part of a path)
    folder, slash, _ = written.rpartition("/")
    if slash and not real.is_relative_to(os.path.realpath(folder or "/")):
        raise OutOfBounds(f"it leads out of {folder or '/'}, which the profile names")
    return path
