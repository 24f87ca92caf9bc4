"""The `opsmesh` command's first step: `emit` is answered before anything heavy is imported."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line of this process; the exit code."""
    if sys.argv[1:2] == ["emit"]:
        from opsmesh.cli.emit import run

        run(sys.argv[2:])
    from opsmesh.cli.main import main as app

    return app()


if __name__ == "__main__":
    sys.exit(main())
