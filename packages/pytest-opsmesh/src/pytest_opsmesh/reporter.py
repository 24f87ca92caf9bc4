"""pytest's reports as events. An error of its own never reaches the test run: it is counted.

A failure is sent to the agent's socket at once, without waiting; answers are collected when the
session ends.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from . import editor, facts
from .mark import Mark
from .mesh import session
from .mesh.events import Events
from .mesh.outbox import Outbox
from .notes import Notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Under which name pytest knows it.
NAME = "opsmesh-reporter"
#: The source of its events.
SOURCE = "pytest"


class Reporter:
    """The reporter of one session."""

    def __init__(self, config: pytest.Config) -> None:
        self._verbose = bool(config.getoption("--opsmesh-verbose", default=False))
        self._root = str(config.rootpath)
        self._cwd = str(config.invocation_params.dir)
        self._workspace = session.workspace(self._root, os.environ)
        self._editor = editor.of_environment()
        self._totals = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}
        self._in_parts: set[str] = set()
        self._events, self._outbox = Events(SOURCE), Outbox(SOURCE)
        self._mark = Mark(SOURCE)
        self._notes = Notes(getattr(config, "cache", None), self._root)

    def pytest_sessionstart(self) -> None:
        """Note where the tests run, before one fails."""
        with contextlib.suppress(Exception):
            self._notes.begin()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note which test runs, for `opsmesh exec`, should this process vanish."""
        self._mark.write(nodeid)

    # last: pytest's own terminal makes a test that holds failed subtests a failed one meanwhile
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test ended. What is run again (pytest-rerunfailures) has neither failed nor
        passed yet."""
        try:
            self._take(report)
        except Exception as error:  # a plugin that observes must never be the failure
            self._outbox.broken(error)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file or folder was collected."""
        if report.failed:
            self._totals["errors"] += 1
            self._failed(report, "collect")

    def pytest_sessionfinish(self) -> None:
        """Make sure that every failure is with the agent or in the spool."""
        self._finish()

    def pytest_unconfigure(self) -> None:
        """The same, for a session that pytest itself broke off."""
        self._finish()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was sent, when asked to."""
        if self._verbose:
            terminalreporter.write_line(f"opsmesh: {self._outbox.summary()}")

    def _take(self, report: Any) -> None:
        part = facts.is_subtest(report)
        if report.failed:
            self._notes.failed(report.nodeid)
            self._totals["failed" if report.when == "call" else "errors"] += 1
            if part:
                self._in_parts.add(report.nodeid)
            elif report.nodeid in self._in_parts and facts.only_sums_up(report):
                return
            # an xdist worker that died reports the test it was in with the phase "???"
            phase = report.when if report.when in ("setup", "call", "teardown") else "crash"
            self._failed(report, phase)
        elif part:
            return
        elif report.skipped:
            self._totals["skipped"] += 1
        elif report.passed and report.when == "call" and report.nodeid not in self._in_parts:
            self._totals["passed"] += 1
            self._notes.passed(report.nodeid)

    def _failed(self, report: Any, phase: str) -> None:
        try:
            self._outbox.add(*self._told(report, phase))
        except Exception as error:
            self._outbox.broken(error)

    def _told(self, report: Any, phase: str) -> list[tuple[str, bytes]]:
        payload = {
            **facts.of_report(report, root=self._root, cwd=self._cwd),
            "phase": phase,
            "rootdir": self._root,
            "totals": self._totals,
        }
        told = [("python.test.failed", payload)]
        if self._editor:
            told.append(("editor.test.failed", editor.payload(payload, self._editor)))
        return [
            self._events.make(
                topic,
                one,
                component=report.nodeid.partition("::")[0] or SOURCE,
                workspace=self._workspace,
                duration_ms=payload["duration_ms"],
            )
            for topic, one in told
        ]

    def _finish(self) -> None:
        with contextlib.suppress(Exception):
            self._outbox.finish()
        self._mark.remove()
        with contextlib.suppress(Exception):
            self._notes.finish()
