"""Starting the mesh of this machine anew, for commands after which it is another kind of mesh."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from opsmesh.cli import output
from opsmesh.router import running
from opsmesh.router.units import names

Restart = Annotated[
    bool,
    typer.Option(
        "--restart/--no-restart", help="Start a mesh that runs here anew, in the background."
    ),
]


def restart(wanted: bool) -> None:
    """Do so where one runs; else say what is left to do."""
    if (mesh := running.mesh()) is None:
        print("next: opsmesh up --detach")
        return
    if not wanted or mesh.containers:
        print(f"it takes effect with: {mesh.anew}")
        return
    output.note("starting the mesh anew")
    ours = [sys.executable, "-m", "opsmesh.cli.entry"]
    commands = (
        [names.systemctl(mesh.manager, "restart", names.TARGET)]
        if mesh.manager
        else [[*ours, "down"], [*ours, "up", "--detach"]]
    )
    for command in commands:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            shown = " ".join(command).replace(" ".join(ours), "opsmesh")
            output.fail(
                f"{shown} failed: {(done.stderr or done.stdout).strip()}", hint="opsmesh status"
            )
