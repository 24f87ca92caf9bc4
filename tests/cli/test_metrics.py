"""`opsmesh metrics`, where there is no mesh or no library; with both: tests/e2e/test_metrics.py."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.cli.conftest import Cli

from opsmesh.router.metrics import telling
from opsmesh.router.metrics.book import Book, Counter, Histogram


@contextmanager
def component(name: str, book: Book) -> Iterator[None]:
    """A stand-in for a component: it tells its figures from a thread, as another process would."""
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def body() -> None:
        async with telling.told(name, book):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(body(),))
    thread.start()
    ready.wait(60)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_without_a_mesh(cli: Cli) -> None:
    """Where no component answers the exit code is that of a mesh that cannot be reached, and the
    next step is named."""
    told = cli("metrics", "show")
    assert told.exit_code == 69
    assert "opsmesh up" in told.stderr


def test_figures_are_shown(cli: Cli) -> None:
    """A figure is a line with its component and labels, a duration a count and a mean, and a broker
    that is away is told; a part of a name chooses."""
    runs = Counter("opsmesh_runs_total", "Runs.", "profile")
    took = Histogram("opsmesh_run_duration_seconds", "Time.")
    runs.add("triage", by=3)
    took.observe(0.25)
    took.observe(0.75)
    with component("handlers", Book(runs, took)):
        lines = cli("metrics", "show").stdout.splitlines()
        chosen = cli("metrics", "show", "runs_total", "--json").stdout
        unknown = cli("metrics", "show", "nothing")
    assert "opsmesh_runs_total{component=handlers,profile=triage} 3" in lines
    assert "opsmesh_run_duration_seconds{component=handlers} 2 times, 500 ms on average" in lines
    assert "opsmesh_broker_up 0" in lines
    assert '"value": 3' in chosen or '"value":3' in chosen
    assert "opsmesh_run_duration_seconds" not in chosen
    assert (unknown.exit_code, "no figure has 'nothing'" in unknown.stderr) == (3, True)


def test_serve_without_the_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the command that installs it is named."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.delitem(sys.modules, "opsmesh.handlers.metrics.text", raising=False)
    monkeypatch.delattr("opsmesh.handlers.metrics.text", raising=False)  # another test's import
    told = cli("metrics", "serve", "--port", "0")
    assert told.exit_code == 1
    assert "opsmesh[metrics]" in " ".join(told.stderr.split())
