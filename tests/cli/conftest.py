"""The command line in this process, and stand-in components around a real nats-server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PATIENCE
from typer.testing import CliRunner, Result

from opsmesh.cli import components
from opsmesh.cli.main import app
from opsmesh.cli.profiles import health
from opsmesh.handlers.live import liveness
from opsmesh.router import paths, probes, server
from opsmesh.router.component import Component
from opsmesh.router.settings import Settings

#: A component that does nothing but stay.
STAY = "import time; time.sleep(600)"

Cli = Callable[..., Result]


@pytest.fixture
def cli(home: Path) -> Cli:
    """Run `opsmesh ARGUMENTS` in this test's own folders."""
    runner = CliRunner()

    def invoke(*arguments: str, **more: Any) -> Result:
        result = runner.invoke(app, list(arguments), **more)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return invoke


def be_patient(patch: pytest.MonkeyPatch) -> None:
    """Have commands wait for whoever decides for a profile: here both are one process, which a busy
    machine may stop for longer than the command would wait."""
    patch.setattr(liveness, "owner", partial(liveness.owner, patience_s=PATIENCE))


@pytest.fixture
def stand_ins(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """`up` starts a real broker, and instead of the other components these: name to code."""
    codes = {"one": STAY}

    def plan(settings: Settings) -> components.Plan:
        broker = server.prepare(Path(paths.state_dir()), name=Settings().host)
        found = [
            Component(
                name="broker",
                kind="broker",
                argv=broker.argv(server.find_binary()),
                ready=probes.broker(broker.monitor_url),
            )
        ]
        found += [Component(name=n, argv=[sys.executable, "-c", c]) for n, c in codes.items()]
        return components.Plan(nats_url=broker.url, components=found)

    monkeypatch.setattr(components, "plan", plan)
    monkeypatch.setattr(health, "AGAIN_S", 0.05)  # there are no handlers that may be on their way
    yield codes
    cli("down")
