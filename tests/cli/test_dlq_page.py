"""docs/dead-letters.md keeps to the commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.cli.conftest import Cli
from tests.cli.test_status import create_streams
from tests.house.checkout import TOP

from opsmesh.router.server import EmbeddedServer

PAGE = Path(TOP, "docs", "dead-letters.md").read_text(encoding="utf-8")
BLOCKS = "".join(re.findall(r"```sh\n(.+?)```", PAGE, re.DOTALL))
LINES = [*BLOCKS.splitlines(), *re.findall(r"`(opsmesh dlq [^`]+)`", PAGE)]
COMMANDS = sorted({shlex.join(shlex.split(line, comments=True)) for line in LINES})


@pytest.mark.parametrize("line", COMMANDS)
def test_command(nats_server: EmbeddedServer, cli: Cli, line: str) -> None:
    """Each command of the page is one: in a queue without letters it says so, and is no wrong
    call."""
    create_streams()
    result = cli(*shlex.split(line)[1:])
    assert result.exit_code in (0, 3), result.stderr
    assert "no dead letter" in result.stderr


def test_there_are_commands() -> None:
    """The page has the commands that the test above is about."""
    assert len(COMMANDS) == 6
