"""pytest's plug-in in reach of environments that have pytest."""

from __future__ import annotations

from collections.abc import Sequence

from opsmesh.producers.reach import InReach


class Pytest(InReach):
    """See `reach.InReach`."""

    name = "pytest"
    description = "pytest: tells tests that fail, in the environments that are wired"
    topics: Sequence[str] = ("python.test.failed", "editor.test.failed")
    plugin = "pytest-opsmesh"
    otherwise = "run it by `opsmesh exec -- pytest …`, which needs nothing"
    then = "the next pytest there tells; unittest does below `opsmesh exec` alone"
