"""python.*: pytest, linters, commands that ran too long, vulnerable dependencies."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc


class RunTotals(Payload, frozen=True, kw_only=True):
    """What became of the tests of a run."""

    passed: Annotated[int, doc("tests that passed")] = 0
    failed: Annotated[int, doc("tests that failed")] = 0
    errors: Annotated[int, doc("errors in setup, teardown or collection")] = 0
    skipped: Annotated[int, doc("tests that were skipped or failed as expected")] = 0


class PythonTestFailed(Payload, frozen=True, kw_only=True):
    """A test failed, or could not be set up, torn down or collected."""

    nodeid: Annotated[str, doc("pytest's or unittest's name of the test")]
    phase: Annotated[
        Literal["call", "setup", "teardown", "collect", "crash"],
        doc("where it failed; crash: the process died in it"),
    ]
    message: Annotated[str | None, doc("the exception in one line")] = None
    path: Annotated[str | None, doc("file that raised")] = None
    lineno: Annotated[int | None, doc("line in the file, from 1")] = None
    duration_ms: Annotated[float | None, doc("time of the phase, milliseconds")] = None
    longrepr: Annotated[str | None, doc("end of the report of the failure")] = None
    worker: Annotated[str | None, doc("xdist worker, like gw0")] = None
    subtest: Annotated[str | None, doc("part of the test that failed, like (i=1)")] = None
    rootdir: Annotated[str | None, doc("pytest's root folder; of unittest its folder")] = None
    totals: Annotated[RunTotals | None, doc("the run so far")] = None


class PythonLintFailed(Payload, frozen=True, kw_only=True):
    """A linter found something. A linter that could not run is no lint event."""

    tool: Annotated[str, doc("the linter, like ruff")]
    count: Annotated[int, doc("number of findings")]
    path: Annotated[str | None, doc("file of the first finding, new ones before others")] = None
    line: Annotated[int | None, doc("line of the first finding, from 1")] = None
    column: Annotated[int | None, doc("column of the first finding, from 1")] = None
    code: Annotated[str | None, doc("rule of the first finding, like F401")] = None
    message: Annotated[str | None, doc("text of the first finding")] = None
    codes: Annotated[dict[str, int] | None, doc("number of findings by rule")] = None
    paths: Annotated[list[str] | None, doc("files with findings, the first 100")] = None
    folder: Annotated[str | None, doc("folder or file that was looked at")] = None
    new: Annotated[
        int | None, doc("findings that the look before did not have; absent when called by hand")
    ] = None
    fixable: Annotated[int | None, doc("findings that the linter itself can mend")] = None


class PythonLintPassed(Payload, frozen=True, kw_only=True):
    """Nothing is left of what a linter had found. A look that never found anything is no event."""

    tool: Annotated[str, doc("the linter, like ruff")]
    folder: Annotated[str | None, doc("folder or file that was looked at")] = None
    mended: Annotated[int | None, doc("findings of the look before")] = None


class PythonRunTimeout(Payload, frozen=True, kw_only=True):
    """A command under `opsmesh exec --timeout` ran too long and was stopped."""

    argv: Annotated[list[str], doc("the command as it was started")]
    timeout_s: Annotated[float, doc("its time limit, seconds")]
    cwd: Annotated[str | None, doc("folder it ran in")] = None
    signal: Annotated[str | None, doc("signal that ended it: SIGTERM, or SIGKILL after grace")] = (
        None
    )
    output_tail: Annotated[str | None, doc("end of its output, both streams as they came")] = None
    duration_ms: Annotated[float | None, doc("run time, milliseconds")] = None
    pid: Annotated[int | None, doc("process id of the command")] = None


class PythonDepVulnDetected(Payload, frozen=True, kw_only=True):
    """A dependency of a Python project has a known vulnerability."""

    package: Annotated[str, doc("distribution name")]
    version: Annotated[str, doc("installed version")]
    vuln_id: Annotated[str, doc("id of the advisory, like PYSEC-2026-12")]
    aliases: Annotated[list[str] | None, doc("other ids, like CVE-2026-1234")] = None
    fix_versions: Annotated[list[str] | None, doc("versions that are not affected")] = None
    description: Annotated[str | None, doc("what the advisory says")] = None
    requirement: Annotated[str | None, doc("file that asks for the package")] = None
    folder: Annotated[str | None, doc("the project's folder")] = None


class PythonDepAuditIncomplete(Payload, frozen=True, kw_only=True):
    """Of some dependencies, or of all, nobody knows whether they are vulnerable."""

    folder: Annotated[str, doc("the project's folder")]
    unknown: Annotated[
        dict[str, str] | None, doc("why, by package; the first 100; absent when it is all of them")
    ] = None
    count: Annotated[int | None, doc("packages that could not be judged")] = None
    audited: Annotated[int | None, doc("packages that could")] = None
    error: Annotated[str | None, doc("why the audit as a whole gave no answer")] = None
    since: Annotated[str | None, doc("the last audit that gave one, RFC 3339")] = None


class PythonTestDiagnosed(Payload, frozen=True, kw_only=True):
    """Tests that failed were run again, alone."""

    tests: Annotated[list[str], doc("pytest's names of the tests")]
    outcome: Annotated[str, doc("failed: it is reproduced; passed: it is not; or why neither")]
    reproduced: Annotated[bool, doc("whether they fail alone, too")] = False
    passed: Annotated[str | None, doc("when they passed last")] = None
    environment: Annotated[list[str] | None, doc("what is different from then")] = None
    bundle: Annotated[str | None, doc("id of the evidence bundle")] = None
    report: Annotated[str | None, doc("path of its report on that host")] = None


TOPICS: Final = (
    Topic(
        "python.test.failed",
        payload=PythonTestFailed,
        owner="pytest",
        description="A test failed, or could not be set up, torn down or collected.",
        example={
            "nodeid": "tests/test_cart.py::test_total",
            "phase": "call",
            "message": "AssertionError: assert 41 == 42",
            "path": "/home/dev/app/tests/test_cart.py",
            "lineno": 17,
            "duration_ms": 3.2,
            "longrepr": "    def test_total():\n>       assert total([20, 21]) == 42\n"
            "E       assert 41 == 42\n",
        },
    ),
    Topic(
        "python.lint.failed",
        payload=PythonLintFailed,
        owner="ruff",
        severity="warn",
        description="A linter found something.",
        example={
            "tool": "ruff",
            "count": 1,
            "path": "/home/dev/app/cart.py",
            "line": 1,
            "column": 8,
            "code": "F401",
            "message": "`os` imported but unused",
        },
    ),
    Topic(
        "python.lint.passed",
        payload=PythonLintPassed,
        owner="ruff",
        severity="info",
        description="Nothing is left of what a linter had found.",
        example={"tool": "ruff", "folder": "/home/dev/app", "mended": 3},
    ),
    Topic(
        "python.run.timeout",
        payload=PythonRunTimeout,
        owner="exec",
        description="A command under `opsmesh exec --timeout` ran too long and was stopped.",
        example={
            "argv": ["python", "train.py"],
            "timeout_s": 600.0,
            "cwd": "/home/dev/model",
            "signal": "SIGTERM",
            "output_tail": "epoch 3 of 100\n",
        },
    ),
    Topic(
        "python.dep.vuln.detected",
        payload=PythonDepVulnDetected,
        owner="pip-audit",
        description="A dependency of a Python project has a known vulnerability.",
        example={
            "package": "jinja2",
            "version": "3.1.2",
            "vuln_id": "GHSA-h5c8-rqwp-cp95",
            "aliases": ["CVE-2024-22195"],
            "fix_versions": ["3.1.3"],
        },
    ),
    Topic(
        "python.dep.audit.incomplete",
        payload=PythonDepAuditIncomplete,
        owner="pip-audit",
        severity="warn",
        description="Of some dependencies nobody knows whether they are vulnerable.",
        example={
            "folder": "/home/dev/app",
            "unknown": {"inhouse": "not found on PyPI"},
            "count": 1,
            "audited": 41,
        },
    ),
    Topic(
        "python.test.diagnosed",
        payload=PythonTestDiagnosed,
        owner="opsmesh",
        severity="info",
        description="Tests that failed were run again, alone.",
        example={
            "tests": ["tests/test_cart.py::test_total"],
            "outcome": "failed",
            "reproduced": True,
            "environment": ["package attrs: 25.3.0 → 25.4.0"],
        },
    ),
)
