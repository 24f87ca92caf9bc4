"""The `opsmesh` command line: every command's place in help, and one place for errors.

Exit codes: 0, 1 (the command reports that something is wrong), 2 (the call is wrong), 3 (what was
asked for is not there), 69 (the mesh cannot be reached), 130 (interrupted). Any other is a
command's own, and stands in its help.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer

from opsmesh.cli import lazy, output
from opsmesh.cli.lazy import Lazy
from opsmesh.router.errors import BrokerUnavailable, RouterError
from opsmesh.schemas.errors import SchemaError

_CARE, _HOSTS = "Care", "Hosts"
_EVENTS, _PROFILES, _EVIDENCE, _DEVELOPERS = "Events", "Profiles", "Evidence", "Developers"

COMMANDS = {
    "init": Lazy(
        "opsmesh.cli.init.commands:init", "First run: find the tools here, wire them, start."
    ),
    "up": Lazy("opsmesh.cli.up:up", "Start the mesh: broker, agent, handlers, sink, producers."),
    "down": Lazy("opsmesh.cli.up:down", "Stop the mesh."),
    "status": Lazy(
        "opsmesh.cli.status:status", "Whether the mesh is well, and if not, what to do."
    ),
    "top": Lazy("opsmesh.cli.top.command:top", "The mesh on a terminal, as it changes."),
    "panes": Lazy("opsmesh.cli.panes.commands:panes", "The mesh on one screen of Zellij or tmux."),
    "bar": Lazy("opsmesh.cli.bar:bar", "One block for a desktop's bar."),
    "metrics": Lazy("opsmesh.cli.metrics:app", "What the mesh counts, for Prometheus."),
    "web": Lazy("opsmesh.cli.web.command:web", "The mesh as a page in your browser."),
    "doctor": Lazy("opsmesh.cli.doctor.command:doctor", "Check the installation and this machine."),
    "env": Lazy("opsmesh.cli.env:env", "Shell assignments for any other NATS client."),
    "auth": Lazy(
        "opsmesh.cli.auth.commands:app", "Who may do what at the broker: roles, credentials, TLS."
    ),
    "config": Lazy("opsmesh.cli.config:app", "Settings: their values and where each came from."),
    "backup": Lazy("opsmesh.cli.backup:backup", "Everything of this mesh in one file.", _CARE),
    "upgrade": Lazy("opsmesh.cli.upgrade:upgrade", "Bring state to this version.", _CARE),
    "restore": Lazy("opsmesh.cli.backup:restore", "Put a backup back.", _CARE),
    "gc": Lazy("opsmesh.cli.gc:gc", "What nobody needs any more: shown, then removed.", _CARE),
    "secret": Lazy("opsmesh.cli.secret:app", "Secrets that profiles refer to by name."),
    "emit": Lazy("opsmesh.cli.emit.command:main", "Send one event.", _EVENTS, raw=True),
    "exec": Lazy(
        "opsmesh.cli.execute:exec_command",
        "Run a command; its failure or time-out is an event.",
        _EVENTS,
        passes_on=True,
    ),
    "check": Lazy(
        "opsmesh.cli.check.commands:app", "Lint a Python project, audit what it needs.", _EVENTS
    ),
    "lsp": Lazy(
        "opsmesh.cli.lsp.command:main", "A language server behind a proxy.", _EVENTS, raw=True
    ),
    "agent-hook": Lazy(
        "opsmesh.cli.agent_hook.command:main",
        "What a coding agent's hook calls.",
        _EVENTS,
        raw=True,
    ),
    "tail": Lazy("opsmesh.cli.events:tail", "Follow events as they arrive.", _EVENTS),
    "show": Lazy("opsmesh.cli.events:show", "One event, whole.", _EVENTS),
    "trace": Lazy("opsmesh.cli.trace:trace", "What led to what: events, decisions, runs.", _EVENTS),
    "why": Lazy(
        "opsmesh.cli.why.why:why", "Why each profile fired for an event, or not.", _PROFILES
    ),
    "why-not": Lazy("opsmesh.cli.why.why_not:why_not", "Why a profile did not fire.", _PROFILES),
    "topics": Lazy("opsmesh.cli.topics:app", "The registered topics and their payloads.", _EVENTS),
    "profile": Lazy("opsmesh.cli.profiles.commands:app", "What fires on which events.", _PROFILES),
    "run": Lazy("opsmesh.cli.run.commands:app", "What profiles did, step by step.", _PROFILES),
    "approvals": Lazy("opsmesh.cli.approvals:app", "What waits for a person's yes.", _PROFILES),
    "approve": Lazy("opsmesh.cli.approvals:approve", "Say yes to what a run asks.", _PROFILES),
    "deny": Lazy("opsmesh.cli.approvals:deny", "Say no to what a run asks.", _PROFILES),
    "a2a": Lazy("opsmesh.cli.a2a:app", "Agents beyond the mesh: ask them, be one.", _PROFILES),
    "feedback": Lazy("opsmesh.cli.feedback:app", "What people say of runs.", _PROFILES),
    "slo": Lazy("opsmesh.cli.slo:slo", "How profiles stand by their objectives.", _PROFILES),
    "mcp": Lazy("opsmesh.cli.mcp.commands:app", "MCP servers: call them, be one.", _PROFILES),
    "checks": Lazy(
        "opsmesh.cli.mcp.checks_serve:app", "Checks that agents may have run, over MCP.", _PROFILES
    ),
    "dlq": Lazy("opsmesh.cli.dlq.commands:app", "Events that no attempt could handle.", _PROFILES),
    "spool": Lazy(
        "opsmesh.cli.spool.commands:app", "Events that wait on disk for the broker.", _EVENTS
    ),
    "replay": Lazy("opsmesh.cli.replay:replay_", "Send stored events again, safely.", _PROFILES),
    "evidence": Lazy("opsmesh.cli.evidence.commands:app", "The hash-chained archive.", _EVIDENCE),
    "redact": Lazy("opsmesh.cli.redact.commands:app", "What is taken out of events.", _EVIDENCE),
    "hosts": Lazy("opsmesh.cli.hub.hosts:hosts", "How each host of the mesh stands.", _HOSTS),
    "hub": Lazy(
        "opsmesh.cli.hub.commands:app", "The hub of many hosts: make one, let hosts in.", _HOSTS
    ),
    "join": Lazy("opsmesh.cli.hub.join:join", "Join a hub.", _HOSTS),
    "leave": Lazy("opsmesh.cli.hub.join:leave", "Leave the hub.", _HOSTS),
    "install": Lazy(
        "opsmesh.cli.install.commands:install", "Wire a tool: show, ask, write its half."
    ),
    "uninstall": Lazy("opsmesh.cli.install.commands:uninstall", "Undo what `install` wrote."),
    "action": Lazy("opsmesh.cli.actions.commands:app", "What a step can do.", _DEVELOPERS),
    "producer": Lazy("opsmesh.cli.producer:app", "What watches which tool.", _DEVELOPERS),
    "dotfiles": Lazy("opsmesh.cli.dotfiles:app", "Apply dotfiles behind checks.", _DEVELOPERS),
    "agent": Lazy("opsmesh.router.agent:main", "Run the agent.", hidden=True, raw=True),
    "handlers": Lazy("opsmesh.handlers.serve:main", "Run the handlers.", hidden=True, raw=True),
    "sink": Lazy(
        "opsmesh.handlers.evidence.sink:main", "Run the evidence sink.", hidden=True, raw=True
    ),
}


#: What can be asked of the hub as well.
AT_HUB = (
    *("tail", "show", "trace", "why", "why-not", "profile", "run", "approvals", "approve", "deny"),
    *("feedback", "slo", "dlq", "replay", "evidence", "top", "web"),
)


class Main(lazy.group(COMMANDS)):  # type: ignore[misc]  # a class made of a table
    """The top command: turns our errors into a message and a next step, never a traceback."""

    def main(self, *args: Any, **more: Any) -> Any:
        try:
            return super().main(*args, **more)
        except Exception as error:
            try:
                report(error)
            except typer.Exit as ending:
                sys.exit(ending.exit_code)
            raise


app = typer.Typer(
    cls=Main,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"opsmesh {version('opsmesh')}")
        raise typer.Exit


@app.callback()
def opsmesh(
    context: typer.Context,
    hub: Annotated[
        bool, typer.Option("--hub", help="On a leaf host: ask the hub, not this host's broker.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What happens on your machines becomes durable events; events run what you wrote."""
    if hub:
        from opsmesh.cli import session

        if context.invoked_subcommand not in AT_HUB:
            output.fail(
                f"--hub has no meaning for {context.invoked_subcommand}: it is about this host",
                hint=f"with it go: {', '.join(AT_HUB)}",
                code=output.USAGE,
            )
        session.ask_hub(True)


def report(error: Exception) -> None:
    """End with a message for a mistake or a fault we know; return for any other."""
    hint = str(getattr(error, "hint", ""))
    if isinstance(error, BrokerUnavailable):
        output.fail(str(error), hint=hint, code=output.UNAVAILABLE)
    if isinstance(error, RouterError | SchemaError):
        output.fail(str(error), hint=hint)
    if _is(error, "opsmesh.handlers.errors", "HandlersError") or _is(
        error, "opsmesh.producers.errors", "ProducerError"
    ):
        output.fail(str(error), hint=hint)
    if _is(error, "nats.errors", "Error"):
        output.fail(
            f"the broker does not answer as it should: {error or type(error).__name__}",
            hint="on its machine: opsmesh status. A viewer and a sink need its agent as well",
            code=output.UNAVAILABLE,
        )
    if type(error).__module__.partition(".")[0] in ("pydantic_core", "pydantic_settings", "yaml"):
        from opsmesh.cli import config_file

        if problems := config_file.explain(error):
            output.fail("\n".join(problems), hint="check again: opsmesh config validate")


def _is(error: Exception, module: str, name: str) -> bool:
    """isinstance, without importing a layer that was not needed: then it cannot have raised."""
    found = getattr(sys.modules.get(module), name, None)
    return found is not None and isinstance(error, found)


def main() -> int:
    """Run the command line on sys.argv; the exit code."""
    try:
        app(prog_name="opsmesh")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    finally:
        _flush()
    return 0


def _flush() -> None:
    """Write what is buffered; a reader that has gone away (`… | head`) is nothing to speak of."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # Python would flush once more at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
