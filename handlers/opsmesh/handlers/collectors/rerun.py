"""`test_rerun`: the tests that failed, once more and alone, with more detail.

A test that passes now depends on what ran before it, on time, or on luck; that is worth more than
any detail. The project's own interpreter is used, and its cache is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors import failing_tests
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable, said
from opsmesh.handlers.errors import Unstartable

#: Where a project keeps its interpreter.
VENVS: Final = (".venv", "venv", "env")
#: pytest's options: every value, no short cuts, and nothing written into the project.
OPTIONS: Final = (
    *("-vv", "--showlocals", "--tb=long", "-rA", "--durations=5", "--color=no"),
    *("-p", "no:cacheprovider", "-p", "no:randomly"),
)
#: Exit codes of pytest (pytest.ExitCode).
_ENDS: Final = {0: "passed", 1: "failed", 2: "interrupted", 3: "internal error", 4: "no such test"}
_ENDED = re.compile(r"(?P<count>\d+) (?P<what>passed|failed|error|errors)")


class TestRerunSpec(Spec):
    """Where projects may lie, and how their tests are run."""

    below: Annotated[Text, Field(description="Folders, with : between them.")]
    options: Annotated[list[Text], Field(max_length=50)] = Field(default_factory=list)


class TestRerun:
    """What pytest says; the facts say whether the failure was reproduced."""

    key: ClassVar[str] = "test_rerun"
    spec: ClassVar[type[TestRerunSpec]] = TestRerunSpec
    __test__: ClassVar[bool] = False

    def __init__(self, spec: TestRerunSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        below = request.render(self._spec.below).split(":")
        folder = failing_tests.project(request, below)
        tests = failing_tests.node_ids(request, folder)
        if not tests:
            raise Unavailable("the event names no test whose file is in the project")
        argv = [interpreter(folder), "-m", "pytest", *OPTIONS]
        argv += [request.render(one) for one in self._spec.options]
        argv += [f"--rootdir={folder}", *tests]
        env = {**request.env, "OPSMESH_PYTEST": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            ended = await request.run(argv, env=env, cwd=folder)
        except Unstartable as missing:
            raise Unavailable(missing.reason) from None
        text = said(ended)
        how = "stopped" if ended.timed_out else _ENDS.get(ended.exit_code or 0, "not run")
        facts: dict[str, Any] = {
            "tests": tests,
            "outcome": how,
            "reproduced": how == "failed",
            **_counts(text.decode(errors="replace")),
        }
        error = None if how in ("passed", "failed") else f"pytest: {how}"
        return [
            request.piece(
                text,
                command=tuple(argv),
                exit_code=ended.exit_code,
                truncated=ended.truncated,
                path=str(folder),
                error=error,
                facts=facts,
            )
        ]


def interpreter(folder: Path) -> str:
    """The project's own Python, else that of the session."""
    for name in VENVS:
        python = folder / name / "bin" / "python"
        if python.exists():
            return str(python)
    return "python3"


def _counts(text: str) -> dict[str, int]:
    counts = {"passed": 0, "failed": 0, "errors": 0}
    lines = text.strip().splitlines()
    for found in _ENDED.finditer(lines[-1] if lines else ""):
        what = "errors" if found["what"].startswith("error") else found["what"]
        counts[what] = int(found["count"])
    return counts
