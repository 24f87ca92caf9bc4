"""The top of the command line: help, slips, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

from opsmesh.cli.lazy import Lazy
from opsmesh.cli.main import COMMANDS, report
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.server import EmbeddedServer


def test_help_names_every_command(cli: Cli) -> None:
    """`--help` shows each command with its line, grouped, and none of the hidden ones."""
    shown = cli("--help").stdout
    for name, command in COMMANDS.items():
        assert (f"│ {name} " in shown) is not command.hidden
    assert {"Mesh", "Events", "Profiles", "Evidence", "Developers"} <= set(shown.split())


def test_help_imports_no_command() -> None:
    """`--help` imports neither a command's module nor pydantic or nats."""
    code = (
        "import sys; sys.argv = ['opsmesh', '--help']\n"
        "from opsmesh.cli.main import main\n"
        "main(); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(done.stderr.split())
    commands = {command.target.partition(":")[0] for command in COMMANDS.values()}
    assert not loaded & {"pydantic", "nats", "structlog", "asyncio", *commands}


def test_paragraphs_fill_the_terminal(cli: Cli) -> None:
    """A line of help ends where the terminal does, not where the source does; examples stay."""
    lines = [line.rstrip() for line in cli("panes", "--help").stdout.splitlines()]
    [folded] = [n for n, line in enumerate(lines) if line.endswith("where only tmux is")]
    assert lines[folded + 1].startswith(" there, it is a session of tmux")
    assert "           opsmesh panes --tmux" in lines


def test_version(cli: Cli) -> None:
    """`--version` says the version."""
    assert cli("--version").stdout.startswith("opsmesh 0")


def test_slip_has_a_suggestion(cli: Cli) -> None:
    """A misspelt command is a wrong call that names the nearest one."""
    result = cli("statsu")
    assert result.exit_code == 2
    assert "'status'" in result.stderr


def test_broken_module_fails_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose module is missing is one error with its reason; the others go on."""
    monkeypatch.setitem(COMMANDS, "dlq", Lazy("opsmesh.cli.nothing:app", "Nothing."))
    result = cli("dlq")
    assert result.exit_code == 1
    assert "No module named 'opsmesh.cli.nothing'" in result.stderr
    assert cli("config", "path").exit_code == 0


def test_fault_of_ours_is_no_user_error() -> None:
    """An error that is not ours is left to show where it came from."""
    report(RuntimeError("a bug"))


def test_unreachable_broker_is_69(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """BrokerUnavailable ends any command with 69 and the next step."""

    def broken() -> None:
        raise BrokerUnavailable("nats://127.0.0.1:1", "refused")

    monkeypatch.setattr("opsmesh.cli.up.down", broken)
    result = cli("down")
    assert result.exit_code == 69
    assert "no NATS server answers at nats://127.0.0.1:1: refused" in result.stderr
    assert "opsmesh up" in result.stderr


def test_a_broker_without_answers_is_69(
    cli: Cli, nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody answers on the broker's side, as for a viewer whose hub's agent is away, a
    command ends with 69 and says where to look."""
    file = tmp_path / "desk.creds"
    assert (
        cli("auth", "issue", "--role", "viewer", "--host", "desk", "-o", str(file)).exit_code == 0
    )
    monkeypatch.setenv("OPSMESH_NATS__URL", nats_server.broker.url)
    monkeypatch.setenv("OPSMESH_NATS__CREDENTIALS", str(file))
    result = cli("run", "ls")
    assert result.exit_code == 69
    assert "error: the broker does not answer as it should: " in result.stderr
    assert "opsmesh status" in result.stderr


def test_interrupt_is_quiet(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends any command with 130 and without a traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("opsmesh.cli.up.down", interrupted)
    result = cli("down")
    assert result.exit_code == 130
    assert result.output == ""


def test_closed_pipe_is_quiet(home: Path) -> None:
    """A reader that goes away ends the command without a word."""
    # the reader has gone before anything is written
    python = f"{sys.executable} -m opsmesh.cli.entry config show --json"
    command = f"(while test ! -e {home}/gone; do :; done; {python}) | (exec <&-; touch {home}/gone)"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_hidden_component_command_is_there(cli: Cli) -> None:
    """The commands that the supervisor runs are there, though help does not show them."""
    assert all(COMMANDS[name].hidden for name in ("agent", "handlers", "sink"))


def test_completion_is_offered(home: Path) -> None:
    """The shell completes the commands' names."""
    code = "import sys; from opsmesh.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"_OPSMESH_COMPLETE": "complete_bash", "COMP_WORDS": "opsmesh sta", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
    )
    assert "status" in done.stdout
