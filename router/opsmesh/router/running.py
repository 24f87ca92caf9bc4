"""The mesh that runs on this machine, whoever runs it: `opsmesh up`, systemd, or containers.

Who looks at the mesh asks here; who wants one of the two asks that one.
"""

from __future__ import annotations

from opsmesh.router import supervisor_state
from opsmesh.router.containers import look
from opsmesh.router.supervisor_state import State
from opsmesh.router.units import state as units


def mesh() -> State | None:
    """Its state now; None when none runs."""
    return supervisor_state.running() or units.running() or look.mesh()


def try_again(name: str) -> bool:
    """Have a component that waits, or has failed, tried now; whether that was asked."""
    if supervisor_state.running() is not None:
        return supervisor_state.try_again(name)
    return units.running() is not None and units.start(name)
