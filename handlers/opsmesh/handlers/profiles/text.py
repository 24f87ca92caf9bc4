"""One profile's lines in a file that a person wrote: cut out, and put in place of other lines.

Everything outside the profile's own lines stays as it is, byte for byte: other profiles, and
comments that do not stand within it. What the result means is for the caller to check.
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from opsmesh.handlers.errors import ConfigError

_BOM = "\ufeff"


@dataclass(frozen=True)
class Block:
    """A profile's lines, `first` up to but without `end`, counted from 0; its key's column."""

    first: int
    end: int
    column: int


def exchange(text: str, other: str, name: str, *, file: str, other_file: str) -> str:
    """`text` with the lines of its profile `name` replaced by those of `other`.

    Raises ConfigError for a form that has no lines of its own, like a mapping in braces.
    """
    lines = text.splitlines(keepends=True)
    old = find(text, name, file=file)
    source = other.splitlines()
    new = find(other, name, file=other_file)
    ending = "\r\n" if lines[old.first].endswith("\r\n") else "\n"
    moved = _moved(source[new.first : new.end], old.column - new.column)
    put = [line + ending for line in moved]
    return "".join([*lines[: old.first], *put, *lines[old.end :]])


def find(text: str, name: str, *, file: str) -> Block:
    """Where the profile's lines are."""
    marks = _marks(text, name, file)
    lines = text.splitlines()
    key, last, bound = marks
    first, column = key.line, key.column
    end = min(bound, len(lines))
    # what stands between the value and the next key belongs to the profile as long as it is
    # indented deeper
    while end > last + 1 and not _within(lines[end - 1], column):
        end -= 1
    if lines[first].removeprefix(_BOM)[:column].strip():
        raise ConfigError(file, first + 1, column + 1, _braces(name))
    return Block(first, max(end, first + 1), column)


def _marks(text: str, name: str, file: str) -> tuple[yaml.Mark, int, int]:
    """Where the key stands, the last line of its value, and the line where what follows begins."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(file, 1, 1, " ".join(str(error).split())) from error
    after_root = len(text.splitlines())
    top = _pairs(root)
    for index, (key, profiles) in enumerate(top):
        if key.value != "profiles":
            continue
        bound = top[index + 1][0].start_mark.line if index + 1 < len(top) else after_root
        if not isinstance(profiles, yaml.MappingNode) or profiles.flow_style:
            break
        inner = _pairs(profiles)
        for n, (one, value) in enumerate(inner):
            if one.value != name:
                continue
            end = inner[n + 1][0].start_mark.line if n + 1 < len(inner) else bound
            return one.start_mark, _last_line(value), end
    raise ConfigError(file, 1, 1, _braces(name))


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return []
    return [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]


def _last_line(node: yaml.Node) -> int:
    """The last line that a value certainly stands on."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max((_last_line(value) for _, value in node.value), default=node.start_mark.line)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max((_last_line(value) for value in node.value), default=node.start_mark.line)
    end = node.end_mark
    # a literal text ends at the beginning of the line after it
    return end.line - 1 if end.column == 0 and end.line > node.start_mark.line else end.line


def _within(line: str, column: int) -> bool:
    text = line.lstrip(" ")
    return bool(text.strip()) and len(line) - len(text) > column


def _moved(lines: list[str], by: int) -> list[str]:
    if by >= 0:
        return [" " * by + line if line.strip() else line for line in lines]
    return [line[min(-by, len(line) - len(line.lstrip(" "))) :] for line in lines]


def _braces(name: str) -> str:
    return f"the profile {name!r} has no lines of its own here; exchange its text by hand"
