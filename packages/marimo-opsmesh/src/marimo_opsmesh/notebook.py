"""Where a cell stands in the notebook's file, and its name there: marimo's kernel knows neither.

A cell is found by its code, so one that was edited and is not saved yet has no place. Cells of the
same code are told apart by nothing: the first one is meant. For the sender's thread.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Bytes of a notebook that is read.
LONGEST = 4 * 2**20


class Places:
    """Name and first line of each cell of one notebook, read again when its file has changed."""

    def __init__(self) -> None:
        self._known: tuple[object, ...] = ()
        self._cells: dict[str, tuple[str | None, int]] = {}

    def of(self, notebook: str, code: str) -> tuple[str | None, int | None]:
        """Name and first line; None for what is not known."""
        try:
            found = os.stat(notebook)  # noqa: PTH116
            version = (notebook, found.st_mtime_ns, found.st_size)
            if version != self._known:
                with Path(notebook).open(encoding="utf-8") as file:
                    source = file.read(LONGEST)
                self._cells, self._known = {}, version
                for text, name, line in _cells(source):
                    self._cells.setdefault(text, (name, line))
            return self._cells.get(_same(ast.parse(code).body), (None, None))
        except (OSError, SyntaxError, ValueError, RecursionError):
            return None, None  # not saved, or no Python (Markdown)


def _cells(source: str) -> Iterator[tuple[str, str | None, int]]:
    """What each cell is compared by, its name, and its first line."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.With) and "setup" in ast.dump(node.items[0]):
            yield _same(node.body), "setup", _first(lines, node.lineno, node.body)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        elif any(_last_word(one) == "cell" for one in node.decorator_list):
            body = [one for one in node.body if not isinstance(one, ast.Return)] or node.body
            name = None if node.name == "_" else node.name
            yield _same(body), name, _first(lines, node.lineno, body)
        elif node.decorator_list:  # @app.function, @app.class_definition: the cell is the whole
            name, line = node.name, node.lineno
            node.decorator_list = []
            yield _same([node]), name, line


def _same(body: Sequence[ast.stmt]) -> str:
    return "\n".join(ast.dump(one) for one in body)


def _first(lines: Sequence[str], head: int, body: Sequence[ast.stmt]) -> int:
    """The first line of a body: comments above the first statement are of the cell."""
    first = body[0].lineno
    while first - 1 > head and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return first


def _last_word(decorator: ast.expr) -> str:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return target.attr if isinstance(target, ast.Attribute) else ""
