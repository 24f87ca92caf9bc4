"""`opsmesh dotfiles`: apply with a gate before it, the gate alone, and how things stand."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from opsmesh.cli import output
from opsmesh.router.settings import Settings

if TYPE_CHECKING:
    from opsmesh.producers.dotfiles.apply import Plan
    from opsmesh.producers.dotfiles.sources import Source

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Checks = Annotated[
    list[str],
    typer.Option(
        "--check",
        metavar="'CMD ARG'",
        help="Must pass first, after dotfiles.checks of config.yaml; no shell; repeatable.",
    ),
]

#: Everything from the first word on belongs to the command.
CONTEXT: Final[dict[str, Any]] = {"allow_interspersed_args": False}

app = typer.Typer(
    no_args_is_help=True,
    help="""Dotfiles: apply them behind checks, and see where they stand.

    Example: opsmesh dotfiles apply --check "zsh -n zsh/.zshrc" -- stow -v zsh
    """,
)


@app.command("apply", context_settings=CONTEXT)
def apply_(
    command: Annotated[
        list[str], typer.Argument(help="What applies them, with its arguments.", metavar="COMMAND")
    ],
    check: Checks = [],  # noqa: B006 (Typer copies it)
    tool: Annotated[
        str | None, typer.Option(help="chezmoi, yadm, stow or git, where nothing tells.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run; run and send nothing.")
    ] = False,
) -> None:
    """Run the checks, then the command; start, end and failure become events.

    The exit code is the command's own; 65 when a check failed, and nothing was applied.

    Example: opsmesh dotfiles apply --check "zsh -n zsh/.zshrc" -- stow -v zsh
    """
    from opsmesh.producers.dotfiles import apply

    plan = _plan(command, check, tool)
    if not dry_run:
        raise typer.Exit(apply.apply(plan))
    where = plan.folder or os.getcwd()  # noqa: PTH109
    for argv in plan.checks:
        print(f"check  {shlex.join(argv)}  (in {where})")
    print(f"apply  {shlex.join(plan.argv)}  (as {plan.tool})")


@app.command("check")
def check_(check: Checks = [], as_json: AsJson = False) -> None:  # noqa: B006 (Typer copies it)
    """Run the checks alone; 65 when one fails. No event is sent.

    Example: opsmesh dotfiles check --check "zsh -n zsh/.zshrc"
    """
    from opsmesh.producers.dotfiles import apply

    plan = _plan([], check, None)
    if not plan.checks:
        output.fail(
            "there is no check",
            hint="--check 'CMD ARG', or dotfiles.checks: [[CMD, ARG]] in config.yaml",
            code=output.USAGE,
        )
    failed = apply.check(plan)
    if as_json:
        facts = {"check": list(failed[0]), "exit_code": failed[1].exit_code} if failed else None
        output.as_json({"passed": failed is None, "checks": plan.checks, "failed": facts})
    elif failed:
        output.note(f"failed ({failed[1].exit_code}): {shlex.join(failed[0])}")
    else:
        output.note(f"{len(plan.checks)} passed")
    if failed:
        raise typer.Exit(apply.CHECK_FAILED)


@app.command()
def status(as_json: AsJson = False) -> None:
    """The sources, their drift as it was told last, and the last apply.

    Example: opsmesh dotfiles status --json
    """
    from opsmesh.producers.dotfiles import apply
    from opsmesh.producers.dotfiles.memory import Remembered

    remembered, rows = Remembered("dotfiles"), list[dict[str, Any]]()
    for source in _sources(Settings()):
        drift = remembered.drift(source.key)
        rows.append(
            {
                "tool": source.tool,
                "source": source.path,
                "work_tree": source.work_tree,
                "watched": remembered.files(source.key) is not None,
                "drift": drift,
            }
        )
    last = apply.last()
    if as_json:
        output.as_json({"sources": rows, "last_apply": last})
        return
    output.table(
        [{**row, "drift": _drift(row["drift"])} for row in rows],
        ("tool", "source", "work_tree", "drift"),
        empty="no dotfiles found; name them: producers.options.dotfiles.source: ~/dots:stow",
    )
    if last:
        how = {"config.apply.completed": "completed"}.get(last["topic"], "failed")
        phase = " in validation" if last["phase"] == "validation" else ""
        print(
            f"last apply: {last['tool']} {how}{phase}, exit code {last['exit_code']}, "
            f"{output.local(last['ts_utc'])}"
        )


def _drift(drift: dict[str, str] | None) -> str:
    if drift is None:
        return "never asked"
    some = ", ".join(sorted(drift)[:3])
    return f"{len(drift)}: {some}{', …' if len(drift) > 3 else ''}" if drift else "none"


def _plan(command: list[str], check: list[str], tool: str | None) -> Plan:
    from opsmesh.producers.dotfiles import apply, sources

    settings = Settings()
    cwd = os.getcwd()  # noqa: PTH109
    source = apply.source_of(command, _sources(settings), cwd)
    if source is None and cwd != os.path.expanduser("~"):  # noqa: PTH111
        source = sources.recognise(cwd)
    found = tool or apply.tool_of(command, source)
    if found is None and not command:  # checks alone are of no tool
        found = sources.GIT
    if found is None:
        output.fail(
            f"{command[0]}: no dotfile manager to be seen",
            hint="say which: opsmesh dotfiles apply --tool stow -- CMD",
            code=output.USAGE,
        )
    if found not in sources.TOOLS:
        output.fail(f"--tool: {found!r} is none of {', '.join(sources.TOOLS)}", code=output.USAGE)
    if source and source.tool != found and source.tool != sources.GIT:
        source = None
    return apply.Plan(
        argv=command,
        tool=found,
        source=source,
        checks=[*settings.dotfiles.checks, *(_words(text) for text in check)],
    )


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        output.fail(f"--check: {error}: {text}", code=output.USAGE)
    if not words:
        output.fail("--check: there is no command", code=output.USAGE)
    return words


def _sources(settings: Settings) -> list[Source]:
    from opsmesh.producers.dotfiles import sources
    from opsmesh.producers.dotfiles.memory import Remembered
    from opsmesh.producers.dotfiles.producer import known

    option = settings.producers.options.get("dotfiles", {}).get("source", sources.AUTO)
    return known(str(option), Remembered("dotfiles"))
