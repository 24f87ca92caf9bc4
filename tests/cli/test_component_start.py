"""How the processes of a mesh begin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from opsmesh.router import paths

BEGIN = """
import gc, runpy, sys
names = sys.argv[1:]
del sys.argv[1:]
for name in names:
    try:
        runpy.run_module(name, run_name="__main__")
    except Exception as error:
        print(name, "nonsense" in str(error), gc.isenabled())
"""


def test_a_component_collects_garbage_once_it_has_begun(home: Path) -> None:
    """What is imported is not looked through, what comes afterwards is: seen where each begins, and
    a mistake in the settings ends it."""
    settings = Path(paths.config_dir(), "config.yaml")
    settings.parent.mkdir(parents=True)
    settings.write_text("nonsense: 1\n")
    names = ("opsmesh.router.agent", "opsmesh.handlers.serve", "opsmesh.handlers.evidence.sink")
    done = subprocess.run(
        [sys.executable, "-c", BEGIN, *names], capture_output=True, text=True, timeout=180
    )
    assert done.stdout.splitlines() == [f"{name} True True" for name in names], done.stderr
