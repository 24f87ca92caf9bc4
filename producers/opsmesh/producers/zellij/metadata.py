"""What Zellij writes of a session: tabs and panes, out of `session-metadata.kdl`.

The file is KDL, written by the crate `kdl` in one shape: a node a line, its children between `{`
and `}` lines. This reads that shape, and only the nodes of tabs and panes; a file that is cut, as
while it is being written, is None. (zellij-utils/src/kdl/mod.rs, `SessionInfo::to_string`.)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: A file that is longer is not read: Zellij's has about 700 bytes a pane.
LONGEST: Final = 4 * 1024 * 1024
#: What makes a tab's and a pane's place; not the focus, the cursor, nor any title.
TAB: Final = ("position", "tab_id")
PANE: Final = (
    "tab_position",
    "is_plugin",
    "id",
    "is_floating",
    "is_suppressed",
    "is_fullscreen",
    "pane_x",
    "pane_y",
    "pane_rows",
    "pane_columns",
)
_BLOCKS: Final = {("tabs", "tab"), ("panes", "pane")}
_NODE: Final = re.compile(r"(\w+) (.+)")
_ESCAPE: Final = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|(.))", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}

Node = Mapping[str, str]


@dataclass(frozen=True)
class Ended:
    """A command pane whose command has ended, and is still there to be seen."""

    pane: str
    command: str
    status: int | None


@dataclass(frozen=True)
class Layout:
    """A session as it is written: how many tabs and panes, and a hash of where they are."""

    tabs: int
    panes: int
    hash: str
    ended: tuple[Ended, ...] = ()


def parse(data: bytes) -> Layout | None:
    """The layout; None for what is no whole file of Zellij's."""
    try:
        nodes = _nodes(data.decode())
    except ValueError:  # cut in the middle of a letter, or a number that is none
        return None
    if nodes is None:
        return None
    tabs, panes = nodes["tabs"], nodes["panes"]
    try:
        ended = tuple(_ended(pane) for pane in panes if _is_ended(pane))
    except (KeyError, ValueError):
        return None
    return Layout(
        tabs=len(tabs),
        panes=sum(pane.get("is_plugin") == "false" for pane in panes),
        hash=_hash(tabs, panes),
        ended=ended,
    )


def _nodes(text: str) -> dict[str, list[Node]] | None:
    """The tabs' and panes' nodes with their values as written; None when the file is not whole."""
    found: dict[str, list[Node]] = {}
    way: list[str] = []
    current: dict[str, str] = {}
    for raw in text.split("\n"):
        line = raw.strip()
        if line == "}":
            if not way:
                return None
            if tuple(way) in _BLOCKS:
                found[way[0]].append(current)
            way.pop()
        elif line.endswith("{"):
            way.append(line[:-1].strip())
            current = {}
            if len(way) == 1 and way[0] in ("tabs", "panes"):
                found.setdefault(way[0], [])
        elif tuple(way) in _BLOCKS and (node := _NODE.fullmatch(line)):
            current[node[1]] = node[2]
    return found if not way and found.keys() == {"tabs", "panes"} and found["tabs"] else None


def _is_ended(pane: Node) -> bool:
    return (
        pane.get("exited") == "true"
        and pane.get("is_plugin") == "false"
        and "terminal_command" in pane
    )


def _ended(pane: Node) -> Ended:
    status = pane.get("exit_status")
    command = _string(pane["terminal_command"])
    return Ended(str(int(pane["id"])), command, None if status is None else int(status))


def _string(value: str) -> str:
    """The text of a KDL string (KDL 1.0: `\\n`, `\\"`, `\\u{1F600}`)."""
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        raise ValueError(value)
    return _ESCAPE.sub(
        lambda found: chr(int(found[1], 16)) if found[1] else _ESCAPED.get(found[2], found[2]),
        value[1:-1],
    )


def _hash(tabs: list[Node], panes: list[Node]) -> str:
    parts = [sorted([node.get(key) or "" for key in TAB] for node in tabs)]
    parts.append(sorted([node.get(key) or "" for key in PANE] for node in panes))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
