"""What pytest calls before anything else: cheap, and the reporter only where there is one to be."""

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest


#: What pytest and xdist set for what a test starts.
WITHIN = ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")
#: The configuration of the pytest of this process that runs no other pytest's tests.
_outermost: list[pytest.Config] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--opsmesh-verbose`."""
    group = parser.getgroup("opsmesh")
    group.addoption(
        "--opsmesh-verbose",
        action="store_true",
        default=False,
        help="say at the end how many failures were sent to opsmesh",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Report from the one process that sees every result: under xdist, the controller.

    A pytest that a test runs is what is tested there, and its failures are meant: not told.
    """
    if _outermost:
        return
    _outermost.append(config)
    if hasattr(config, "workerinput") or any(name in os.environ for name in WITHIN):
        return
    if os.environ.get("OPSMESH_PYTEST") == "0":
        return
    with contextlib.suppress(Exception):  # a run without events, before no run
        from .reporter import NAME, Reporter

        config.pluginmanager.register(Reporter(config), NAME)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The next pytest of this process is the outermost one again."""
    if config in _outermost:
        _outermost.clear()
