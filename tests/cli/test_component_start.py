"""How the processes of a mesh begin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from opsmesh.router import paths

BEGIN = """
import gc, runpy, sys
names = sys.argv[1:]
del sys.argv[1:]
for name in names:
    try:
        runpy.run_module(name, run_name="__main__")
    except Exception as error:
        print(name, "nonsense" in str(error), gc.isenabled(), "rich" in sys.modules)
"""
COMPONENTS = (
    *("opsmesh.router.agent", "opsmesh.handlers.serve", "opsmesh.handlers.evidence.sink"),
    "opsmesh.handlers.metrics.main",
)


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_begins_with_what_it_needs(home: Path, name: str) -> None:
    """Rubbish is looked for once everything is imported, and what draws on terminals is not: seen
    where a component begins, and a mistake in the settings ends it."""
    settings = Path(paths.config_dir(), "config.yaml")
    settings.parent.mkdir(parents=True)
    settings.write_text("nonsense: 1\n")
    done = subprocess.run(
        [sys.executable, "-c", BEGIN, name], capture_output=True, text=True, timeout=180
    )
    assert done.stdout.splitlines() == [f"{name} True True False"], done.stderr
