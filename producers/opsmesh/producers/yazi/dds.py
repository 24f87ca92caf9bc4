"""Yazi's data distribution service (DDS): where it listens, and one line of it.

A line is `kind,receiver,sender,JSON` (yazi-dds/src/payload.rs: split at the first three commas).
What is no such line is None, never an error: other versions and plug-ins may send anything.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

#: What is asked for. `bulk` is the name of `bulk-rename` before Yazi 26. Never `hey`: it comes at
#: every start of anything.
KINDS: Final = ("rename", "bulk", "bulk-rename", "move", "trash", "delete", "duplicate", "load")
#: The oldest Yazi that tells copies (`duplicate`; Yazi's CHANGELOG).
OLDEST: Final = (25, 12, 29)
#: How a path that is not UTF-8 begins; the rest is percent-encoded (yazi-shared/src/url/url.rs).
ENCODED: Final = "regular~://"
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Message:
    """One thing that an instance of Yazi told."""

    kind: str
    sender: str
    body: Mapping[str, Any]


def socket_path() -> Path:
    """Where Yazi's instances meet (yazi-fs/src/xdg.rs). The file goes stale when the last quits."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(runtime) if os.path.isabs(runtime) else Path(tempfile.gettempdir())  # noqa: PTH117
    return base / f"yazi+{os.getuid()}" / ".dds.sock"


def parse(line: bytes) -> Message | None:
    """The message of a line; None for anything else."""
    try:
        kind, _, sender, body = line.decode().split(",", 3)
        decoded = json.loads(body)
    except (ValueError, RecursionError):  # cut, not UTF-8, no JSON, or nested without end
        return None
    if kind not in KINDS or not sender.isdecimal() or not isinstance(decoded, dict):
        return None
    return Message(kind, sender, decoded)


def worth(line: bytes) -> bool:
    """Whether a line may say something: a folder that could be read is nothing, and comes with
    every step of the user's."""
    return bool(line) and (not line.startswith(b"load,") or b'"Failed"' in line)


def path_text(url: object) -> str | None:
    """A path as text; bytes that are no UTF-8 as `\\xNN`. None for what is no path."""
    if not isinstance(url, str) or not url:
        return None
    if url.startswith(ENCODED):
        return unquote_to_bytes(url[len(ENCODED) :]).decode("utf-8", "backslashreplace")
    return url.encode("utf-8", "backslashreplace").decode()


def version(text: str) -> tuple[int, int, int] | None:
    """The version in what `ya --version` prints."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
