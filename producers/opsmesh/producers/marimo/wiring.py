"""marimo's plug-in in reach of environments that have marimo."""

from __future__ import annotations

from collections.abc import Sequence

from opsmesh.producers.reach import InReach


class Marimo(InReach):
    """See `reach.InReach`."""

    name = "marimo"
    description = "marimo: tells cells that fail, runs and what they need, kernels that die"
    topics: Sequence[str] = (
        "notebook.cell.failed",
        "notebook.run.completed",
        "notebook.kernel.restarted",
    )
    plugin = "marimo-opsmesh"
    otherwise = "start it by `opsmesh exec -- marimo edit …`"
    then = "start marimo anew: servers that run now do not know it"
