"""Servers of a handlers process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from tests.conftest import eventually, run
from tests.handlers.mcp_servers import LIAR, alive

from opsmesh.handlers.mcp import program

pytestmark = pytest.mark.usefixtures("home")

#: A process that has a server with a child in its group, and waits to be killed.
OWNER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from opsmesh.handlers.mcp.program import Program

    async def main():
        argv = [sys.executable, sys.argv[1], "parent"]
        server = Program.start("liar", argv, env={}, cwd=Path("/"))
        print(server.pid, flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
""")


def group(pid: int) -> list[int]:
    """The living processes of a group."""
    found = subprocess.run(["ps", "-eo", "pid=,pgid="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in found.stdout.splitlines()]
    return [int(one) for one, of in rows if int(of) == pid and alive(int(one))]


def test_killed_handlers() -> None:
    """kill -9 of the handlers ends a server at once; what it had started is ended by the next."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(LIAR)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())

        async def body() -> None:
            await eventually(lambda: len(group(pid)) == 2)
            await program.sweep(program.folder())  # the owner lives: nothing is touched
            assert len(group(pid)) == 2
            owner.send_signal(signal.SIGKILL)
            owner.wait()
            await eventually(lambda: not alive(pid))
            assert len(group(pid)) == 1
            await program.sweep(program.folder())
            assert group(pid) == []
            assert not list(program.folder().iterdir())

        run(body())
    finally:
        owner.kill()
        owner.wait()
        if owner.stdout is not None:
            owner.stdout.close()


def test_sweep_without_a_folder() -> None:
    """Where no server ever ran there is nothing to sweep."""
    run(program.sweep(program.folder()))
    assert not os.path.exists(program.folder())  # noqa: PTH110
