"""Hashes of cells, and the seeds that they set: what tells whether a run can be had again.

A seed is seen where it is set by a call that is known for it, with a number or with a global
variable of the notebook that holds one. Nothing is run, and no state of a generator is read: after
the first draw it does not tell what it was seeded with.
"""

from __future__ import annotations

import ast
import hashlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Last words of calls that take a seed as their first argument.
CALLS = frozenset(
    (
        *("seed", "manual_seed", "manual_seed_all", "set_seed", "set_random_seed"),
        *("seed_everything", "default_rng", "RandomState", "PRNGKey", "Random", "Generator"),
    )
)
#: Names of arguments that are seeds, in whatever call.
ARGUMENTS = frozenset(("seed", "random_state", "random_seed"))
#: Characters of a cell that is read for seeds, cells and seeds that are remembered.
LONGEST = 100_000
CELLS = 5000
SEEDS = 50


def sha256(code: str) -> str:
    """The hash of a cell's code, as marimo has it: without the indentation of the file."""
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_of_all(codes: Iterable[str]) -> str:
    """One hash for all cells, in the order of the notebook."""
    return sha256("\n".join(sha256(code) for code in codes))


def listed(ran: Iterable[tuple[str, str, bool]]) -> list[dict[str, object]]:
    """Cells that ran, in the order in which they did: id, code and whether it raised."""
    return [
        {"cell": str(cell), "sha256": sha256(code), **({"failed": True} if failed else {})}
        for cell, code, failed in ran
    ]


class Seeds:
    """The seeds that cells set; each text is read once."""

    def __init__(self) -> None:
        self._known: dict[str, list[tuple[str, int | str]]] = {}

    def of(self, codes: Iterable[str], variables: Mapping[str, object]) -> dict[str, int]:
        """What is set, by its call as it is written: `{"np.random.seed": 42}`. The last one of the
        same call counts."""
        found: dict[str, int] = {}
        for code in codes:
            if code not in self._known:
                if len(self._known) >= CELLS:
                    self._known.clear()
                self._known[code] = list(_seeds(code))
            for call, value in self._known[code]:
                number = variables.get(value) if isinstance(value, str) else value
                if type(number) is int and len(found) < SEEDS:
                    found[call] = number
        return found


def _seeds(code: str) -> Iterable[tuple[str, int | str]]:
    """Calls, and the number or the name of the variable that each is given."""
    if len(code) > LONGEST or not any(word in code for word in (*CALLS, *ARGUMENTS)):
        return
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        call = _dotted(node.func)
        first = node.args[:1] if call.rpartition(".")[2] in CALLS else []
        named = [one.value for one in node.keywords if one.arg in ARGUMENTS]
        for argument in (*first, *named):
            if isinstance(argument, ast.Constant) and type(argument.value) is int:
                yield call, argument.value
            elif isinstance(argument, ast.Name):
                yield call, argument.id


def _dotted(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    names.append(node.id if isinstance(node, ast.Name) else "…")
    return ".".join(reversed(names))
