"""YAML files with the position of every value, so that an error can name line and column.

The safe subset only: no tags that make objects, no key twice in one mapping, a bounded size, and
anchors bounded by what they expand to. Everything wrong is a ConfigError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from opsmesh.handlers.errors import ConfigError

#: Largest file, in bytes.
MAX_SIZE: Final = 1024 * 1024
#: Most values in a file after its anchors are expanded; a small file can expand to billions.
MAX_NODES: Final = 100_000
#: Deepest nesting of mappings and lists.
MAX_DEPTH: Final = 64

#: A place in a document: the keys and list indexes that lead to it.
Where = tuple[str | int, ...]
_PLAIN: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Document:
    """A file's plain data, and where each part of it stands."""

    file: str
    data: Any
    positions: dict[Where, tuple[int, int]]
    keys: dict[Where, tuple[int, int]]

    def position(self, path: Where) -> tuple[int, int]:
        """Line and column, from 1, of the value at `path`, or of the nearest part around it."""
        return self._nearest(self.positions, path)

    def key_position(self, path: Where) -> tuple[int, int]:
        """Line and column of the key that holds the value at `path`."""
        return self.keys.get(path) or self.position(path)

    def error(self, path: Where, message: str, *, hint: str = "", key: bool = False) -> ConfigError:
        """The error that the value at `path` (or its key) is wrong."""
        line, column = self.key_position(path) if key else self.position(path)
        return ConfigError(self.file, line, column, message, hint=hint)

    @staticmethod
    def _nearest(known: dict[Where, tuple[int, int]], path: Where) -> tuple[int, int]:
        while path and path not in known:
            path = path[:-1]
        return known.get(path, (1, 1))


def load(path: Path, *, name: str | None = None) -> Document:
    """The document in the file; ConfigError, which calls the file `name`, or its own name."""
    file = name or path.name
    try:
        with path.open("rb") as opened:
            raw = opened.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(file, 1, 1, f"cannot be read: {error.strerror}") from error
    if len(raw) > MAX_SIZE:
        raise ConfigError(file, 1, 1, f"more than {MAX_SIZE} bytes, the limit for a file")
    return parse(raw, file=file)


def parse(raw: bytes, *, file: str) -> Document:
    """The document in `raw`; an empty one has the data None."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError(file, line, column, "not UTF-8 text") from error
    build = _Build(file)
    try:
        loader = _Loader(text)  # reads the first characters, and may refuse them
        node = loader.get_single_node()
        data = None if node is None else build.value(node, ())
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(file, error) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ConfigError(file, 1, 1, " ".join(str(error).split())) from error
    except RecursionError as error:
        raise ConfigError(file, 1, 1, f"nested deeper than {MAX_DEPTH} levels") from error
    return Document(file, data, build.positions, build.keys)


def _yaml_error(file: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    message = error.problem or error.context or "not YAML"
    if "cannot start any token" in message and "'\\t'" in message:
        message = "a tab indents this line; YAML needs spaces"
    elif "could not find expected ':'" in message:
        # the problem's place is where the reader gave up; the key is where the context began
        mark = error.context_mark or mark
        message = "a key without its ':'"
    elif message == "mapping values are not allowed here":
        message = "a ':' where no key can be; quote the value, or look at the line above"
    elif error.context and error.problem:
        message = f"{error.problem} ({error.context})"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return ConfigError(file, line, column, message)


class _Loader(yaml.SafeLoader):
    """Plain words mean what YAML 1.2's core schema says.

    PyYAML reads YAML 1.1, in which the key `on` is the boolean true and `1:30` is 90.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own form)


for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"{_PLAIN}{_tag}", re.compile(rf"(?:{_form})\Z"), list(_first))

_SCALARS: Final[dict[str, Callable[[str], Any]]] = {
    f"{_PLAIN}str": str,
    f"{_PLAIN}int": int,
    f"{_PLAIN}float": float,
    f"{_PLAIN}bool": lambda text: text.lower() == "true",
    f"{_PLAIN}null": lambda text: None,
}


class _Build:
    """Plain data out of nodes; remembers where each came from."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.positions: dict[Where, tuple[int, int]] = {}
        self.keys: dict[Where, tuple[int, int]] = {}
        self.count = 0

    def value(self, node: yaml.Node, path: Where) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise self.error(node, f"more than {MAX_NODES} values once anchors are expanded")
        if len(path) > MAX_DEPTH:
            raise self.error(node, f"nested deeper than {MAX_DEPTH} levels")
        self.positions[path] = _place(node)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_PLAIN}map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_PLAIN}seq":
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, path: Where) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, (key_node, value_node) in self.pairs(node, 0).items():
            self.keys[(*path, key)] = _place(key_node)
            found[key] = self.value(value_node, (*path, key))
        return found

    def pairs(self, node: yaml.MappingNode, depth: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The mapping's own pairs, then those that `<<` merges into it; its own win."""
        if depth > MAX_DEPTH:
            raise self.error(node, f"merges deeper than {MAX_DEPTH} levels")
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.MappingNode] = []
        for key_node, value_node in node.value:
            if key_node.tag == f"{_PLAIN}merge":
                merged += self.merged(value_node)
                continue
            key = self.key(key_node)
            if key in own:
                line = own[key][0].start_mark.line + 1
                raise self.error(key_node, f"key {key!r} a second time; line {line} has it already")
            own[key] = (key_node, value_node)
        for part in merged:
            own = self.pairs(part, depth + 1) | own
        return own

    def merged(self, node: yaml.Node) -> list[yaml.MappingNode]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise self.error(part, "<< merges a mapping, or a list of mappings")
        self.count += len(parts)
        if self.count > MAX_NODES:
            raise self.error(node, f"more than {MAX_NODES} values once anchors are expanded")
        return list(parts)

    def key(self, node: yaml.Node) -> str:
        """A key is its text, whatever a value of that text would be."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, "a key is plain text, not a list or a mapping")
        self.scalar(node)
        return str(node.value)

    def scalar(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, f"tag {node.tag} is not allowed", hint="write a plain value")
        convert = _SCALARS.get(node.tag)
        if convert is None:
            raise self.error(node, f"tag {node.tag} is not allowed", hint="write a plain value")
        try:
            return convert(node.value)
        except ValueError as error:
            raise self.error(
                node, f"{node.value[:40]!r} is no {node.tag[len(_PLAIN) :]}"
            ) from error

    def error(self, node: yaml.Node, message: str, *, hint: str = "") -> ConfigError:
        line, column = _place(node)
        return ConfigError(self.file, line, column, message, hint=hint)


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
