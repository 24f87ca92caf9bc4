"""The `opsmesh` command's first step: what tools call is answered before anything heavy is
imported."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command line of this process; the exit code."""
    if sys.argv[1:2] == ["emit"]:
        from opsmesh.cli.emit.command import run

        run(sys.argv[2:])
    if sys.argv[1:2] == ["lsp"]:
        from opsmesh.cli.lsp.command import run as become

        become(sys.argv[2:])
    if sys.argv[1:2] == ["agent-hook"]:
        from opsmesh.cli.agent_hook import command as agent_hook

        agent_hook.run(sys.argv[2:])
    # Imports make many objects that stay. Looking through them for rubbish is a fifth of the start
    # of a command; `lazy` goes on with it once the command is there.
    gc.disable()
    from opsmesh.cli.main import main as app

    return app()


if __name__ == "__main__":
    sys.exit(main())
