"""term.*: terminal sessions, panes and the commands in them (Zellij; bash, zsh, fish)."""

from __future__ import annotations

from typing import Annotated, Final

from opsmesh.schemas.topics import Payload, Topic, doc

_Multiplexer = Annotated[str | None, doc("terminal multiplexer, like zellij")]


class TermSessionStarted(Payload, frozen=True, kw_only=True):
    """A terminal session began."""

    session: Annotated[str, doc("name of the session")]
    multiplexer: _Multiplexer = None
    renamed_from: Annotated[str | None, doc("name it had: it only has another one now")] = None


class TermSessionEnded(Payload, frozen=True, kw_only=True):
    """A terminal session is gone."""

    session: Annotated[str, doc("name of the session")]
    multiplexer: _Multiplexer = None
    crashed: Annotated[bool | None, doc("true when it left its socket behind")] = None
    duration_s: Annotated[float | None, doc("life of the session, seconds, where it is known")] = (
        None
    )
    renamed_to: Annotated[str | None, doc("name it has now: it goes on under another one")] = None


class TermPaneCommandFailed(Payload, frozen=True, kw_only=True):
    """A command typed in a terminal, or run in a pane, ended badly."""

    command: Annotated[str, doc("the command as it was typed; empty for a private one")]
    exit_code: Annotated[int, doc("exit status; 128 + n for signal n, so 130 is Ctrl-C")]
    shell: Annotated[str | None, doc("shell that tells: bash, zsh, fish")] = None
    cwd: Annotated[str | None, doc("folder it ran in")] = None
    duration_ms: Annotated[float | None, doc("run time, milliseconds")] = None
    session: Annotated[str | None, doc("terminal session")] = None
    pane: Annotated[str | None, doc("pane in the session")] = None
    tty: Annotated[str | None, doc("terminal device")] = None
    multiplexer: _Multiplexer = None


class TermLayoutChanged(Payload, frozen=True, kw_only=True):
    """Tabs or panes of a session came, went, or moved."""

    session: Annotated[str, doc("name of the session")]
    tabs: Annotated[int | None, doc("number of tabs")] = None
    panes: Annotated[int | None, doc("number of panes")] = None
    layout_hash: Annotated[str | None, doc("hash of tabs and pane geometry")] = None
    multiplexer: _Multiplexer = None


TOPICS: Final = (
    Topic(
        "term.session.started",
        payload=TermSessionStarted,
        owner="zellij",
        severity="info",
        description="A terminal session began.",
        example={"session": "dev", "multiplexer": "zellij"},
    ),
    Topic(
        "term.session.ended",
        payload=TermSessionEnded,
        owner="zellij",
        severity="info",
        description="A terminal session is gone.",
        example={"session": "dev", "multiplexer": "zellij", "crashed": False},
    ),
    Topic(
        "term.pane.command.failed",
        payload=TermPaneCommandFailed,
        owner="shell",
        description="A command in a terminal ended badly.",
        example={
            "command": "ls /nonexistent",
            "exit_code": 2,
            "shell": "bash",
            "cwd": "/home/dev/app",
            "duration_ms": 4.0,
            "session": "dev",
            "pane": "3",
        },
    ),
    Topic(
        "term.layout.changed",
        payload=TermLayoutChanged,
        owner="zellij",
        severity="info",
        description="Tabs or panes of a terminal session changed.",
        example={"session": "dev", "tabs": 2, "panes": 5},
    ),
)
