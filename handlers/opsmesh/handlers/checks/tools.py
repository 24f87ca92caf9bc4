"""The checks as tools. What a client gives is looked up in the allow-list (`allowed`), and what is
started is made here of fixed words and of what came out of it.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import BaseModel, Field

from opsmesh.handlers import jsonschemas
from opsmesh.handlers.checks import allowed, junit, program
from opsmesh.handlers.checks.outcome import Ended, facts, started, text, told
from opsmesh.handlers.mcp_serve.answers import Marked, Refused
from opsmesh.handlers.process import ProcessResult
from opsmesh.handlers.profiles import yamlfile
from opsmesh.router.settings import Settings
from opsmesh.schemas.redact import Redactor

#: Findings of one answer.
FINDINGS: Final = 200
#: Tests that one call names.
NODEIDS: Final = 100
#: Bytes of a file that is checked against a schema.
MAX_DOCUMENT: Final = 8 * 1024 * 1024

Folder = Annotated[
    str, Field(max_length=4096, description="an absolute path that is allowed, or in one that is")
]

_PYTEST: Final = {
    0: "passed",
    1: "failed",
    2: "interrupted: a test could not be collected, or it was stopped",
    3: "pytest itself failed",
    4: "pytest was called wrongly: is the test's id right?",
    5: "no tests were found",
}


class FailedTest(BaseModel):
    """One test that did not pass."""

    nodeid: str
    kind: Literal["failed", "error"]
    message: str
    text: str


class Tests(Ended):
    """What pytest found."""

    outcome: str
    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    failures: list[FailedTest] = Field(default=[])


class Finding(BaseModel):
    """One thing that the linter found."""

    file: str
    line: int
    column: int
    code: str
    message: str
    fixable: bool = False


class Lint(Ended):
    """What ruff found."""

    total: int = 0
    findings: list[Finding] = Field(default=[])


class Validation(BaseModel):
    """Whether a file fits its schema."""

    ok: bool
    schema_name: str
    file: str
    problem: str = Field(default="", description="the most telling one, with its place")


class CheckTools:
    """They look, and change nothing but what tests change; each in a room of its own."""

    def __init__(self, settings: Settings, redactor: Redactor) -> None:
        self._section = settings.checks
        self._redactor = redactor

    async def run_pytest(
        self,
        ctx: Context,
        folder: Folder,
        tests: Annotated[
            list[str],
            Field(max_length=NODEIDS, description="files or tests: tests/test_a.py::test_b"),
        ] = [],  # noqa: B006 (pydantic copies it)
        max_failures: Annotated[int, Field(ge=0, le=1000, description="0: all")] = 0,
    ) -> Annotated[CallToolResult, Marked[Tests]]:
        """Run tests with pytest in an allowed folder, all or some, in a sandbox. The failing ones
        come back with their ids, which can be given again."""
        path, root = allowed.folder(folder, self._section.pytest, setting="checks.pytest")
        chosen = [allowed.nodeid(path, one) for one in tests]
        python = program.interpreter(path, root)
        async with program.room(self._section) as room:
            report = room.workdir / "report.xml"
            argv = [
                *(str(python), "-m", "pytest", "-q", "--no-header", "--tb=short", "--color=no"),
                *("-o", "junit_family=xunit1", f"--junitxml={report}"),
                *([f"--maxfail={max_failures}"] if max_failures else []),
                *("--", *chosen),
            ]
            await ctx.report_progress(0, None, f"pytest in {path}")
            ended = await started(
                lambda: room.run(argv, cwd=path, read=[root, *program.needs(python)], write=[path])
            )
            data = await asyncio.to_thread(_read, report, junit.MAX_REPORT)
        found = junit.Summary()
        outcome = _PYTEST.get(-1 if ended.exit_code is None else ended.exit_code, "stopped")
        if ended.exit_code != 0 and b"ModuleNotFoundError" in ended.stdout + ended.stderr:
            outcome += self._unseen()
        if data is not None:
            try:
                found = junit.read(data)
            except ValueError as error:
                outcome += f"; {error}"
        return told(
            Tests(
                **facts(ended),
                outcome=outcome,
                passed=found.passed,
                failed=found.failed,
                errors=found.errors,
                skipped=found.skipped,
                failures=[
                    FailedTest(
                        nodeid=one.nodeid,
                        kind="failed" if one.kind == "failed" else "error",
                        message=one.message,
                        text=one.text,
                    )
                    for one in found.failures
                ],
            ),
            self._redactor,
        )

    async def run_lint(
        self,
        ctx: Context,
        folder: Folder,
        files: Annotated[
            list[str], Field(max_length=NODEIDS, description="in it; all unless given")
        ] = [],  # noqa: B006 (pydantic copies it)
    ) -> Annotated[CallToolResult, Marked[Lint]]:
        """Look at Python code in an allowed folder with ruff, in a sandbox. Nothing is changed."""
        path, root = allowed.folder(folder, self._section.lint, setting="checks.lint")
        chosen = [str(allowed.within(path, one)) for one in files] or [str(path)]
        ruff = program.ruff()
        if ruff is None:
            raise Refused("ruff is not installed here", hint="pip install ruff, or pacman -S ruff")
        argv = [
            *(ruff, "check", "--output-format=json", "--no-fix", "--no-cache", "--quiet"),
            *("--", *chosen),
        ]
        async with program.room(self._section) as room:
            ended = await started(
                lambda: room.run(
                    argv,
                    cwd=path,
                    read=[root, *program.needs(Path(ruff))],
                    output_limit=program.REPORT,
                )
            )
        rows = _findings(ended)
        about = facts(ended)
        if rows is not None:  # what was read need not be told twice
            about["output"] = text(ended.stderr)
        return told(
            Lint(**about, total=len(rows or ()), findings=list(rows or ())[:FINDINGS]),
            self._redactor,
        )

    async def validate_schema(
        self,
        ctx: Context,
        schema: Annotated[str, Field(max_length=64, description="the name in checks.schemas")],
        file: Annotated[str, Field(max_length=4096, description="an absolute path")],
    ) -> Annotated[CallToolResult, Marked[Validation]]:
        """Check an allowed file (JSON, YAML or TOML) against the JSON Schema that is set for it."""
        name = allowed.named(
            schema,
            self._section.schemas,
            setting="checks.schemas",
            example='{ci: {schema_file: ~/ci.json, files: ["~/work/*/ci.yaml"]}}',
        )
        about = self._section.schemas[name]
        path = allowed.file(file, about.files, setting=f"checks.schemas.{name}.files")

        def check() -> str:
            against = _document(Path(about.schema_file).expanduser())
            if not isinstance(against, dict):
                raise Refused(f"{about.schema_file} holds no JSON Schema")
            try:
                jsonschemas.check(against)
                value = _document(path)
            except ValueError as error:
                return str(error)
            return jsonschemas.problem(against, value)

        problem = await asyncio.to_thread(check)
        return told(
            Validation(ok=not problem, schema_name=name, file=str(path), problem=problem),
            self._redactor,
        )

    def _unseen(self) -> str:
        if self._section.sandbox == "none":
            return ""
        return "; a module may lie where the sandbox does not look: checks.read shows it more"


def _findings(ended: ProcessResult) -> list[Finding] | None:
    """None when ruff did not get as far: bad configuration, no such file."""
    if ended.exit_code not in (0, 1) or ended.truncated:
        return None
    try:
        rows = msgspec.json.decode(ended.stdout or b"[]", type=list[dict[str, Any]])
    except msgspec.DecodeError:
        return None
    return [
        Finding(
            file=str(row.get("filename", "")),
            line=(row.get("location") or {}).get("row", 0),
            column=(row.get("location") or {}).get("column", 0),
            code=str(row.get("code") or ""),
            message=str(row.get("message", ""))[:500],
            fixable=row.get("fix") is not None,
        )
        for row in rows
    ]


def _document(path: Path) -> Any:
    """A file's value; ValueError when it cannot be read as what its name says."""
    if path.suffix in (".yaml", ".yml"):
        return yamlfile.load(path, name=path.name).data  # bounded, also what its anchors expand to
    data = _read(path.resolve(), MAX_DOCUMENT)
    if data is None:
        raise ValueError(f"{path.name} is not there, or has more than {MAX_DOCUMENT} bytes")
    if path.suffix == ".toml":
        # TOML's times are not JSON's
        return msgspec.to_builtins(tomllib.loads(data.decode()), enc_hook=str)
    return msgspec.json.decode(data)


def _read(path: Path, limit: int) -> bytes | None:
    """What a program wrote, unless it is too much or no plain file; a link is not followed, and a
    pipe not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(limit + 1)
    return data if len(data) <= limit else None
