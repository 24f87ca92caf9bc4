"""agent.*: coding agents' sessions (Codex, and any that calls a hook), and what agents call of the
mesh over MCP. Metadata only: never prompts, answers or output."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc

_Agent = Annotated[str, doc("the coding agent, like codex")]
_Session = Annotated[str, doc("the agent's session id")]
_Turn = Annotated[str | None, doc("the agent's turn id")]
_Cwd = Annotated[str | None, doc("folder the session works in")]


class AgentSessionStarted(Payload, frozen=True, kw_only=True):
    """A session with a coding agent began."""

    session: _Session
    agent: _Agent = "codex"
    cwd: _Cwd = None
    cli_version: Annotated[str | None, doc("version of the agent")] = None
    originator: Annotated[str | None, doc("front end, like codex_exec or codex-tui")] = None
    model: Annotated[str | None, doc("model, where the session says")] = None
    model_provider: Annotated[str | None, doc("provider of the model")] = None
    how: Annotated[str | None, doc("startup, resume or clear, where the agent says")] = None


class AgentSessionEnded(Payload, frozen=True, kw_only=True):
    """A session with a coding agent ended, and the agent said so."""

    session: _Session
    agent: _Agent = "codex"
    cwd: _Cwd = None
    reason: Annotated[str | None, doc("why, as the agent says, like exit or logout")] = None


class AgentCommandExecuted(Payload, frozen=True, kw_only=True):
    """The agent ran a command."""

    session: _Session
    argv: Annotated[
        list[str],
        doc("the command as it was started; one text where the agent tells a line"),
    ]
    agent: _Agent = "codex"
    turn: _Turn = None
    command: Annotated[str | None, doc("what a shell was given, or else argv as one text")] = None
    cwd: _Cwd = None
    status: Annotated[str | None, doc("completed, failed or declined, as the agent says")] = None
    exit_code: Annotated[int | None, doc("exit status")] = None
    duration_ms: Annotated[float | None, doc("run time, milliseconds")] = None


class AgentTurnCompleted(Payload, frozen=True, kw_only=True):
    """A turn of the agent came to its end."""

    session: _Session
    agent: _Agent = "codex"
    turn: _Turn = None
    status: Annotated[Literal["completed", "failed", "aborted"], doc("how the turn ended")] = (
        "completed"
    )
    error: Annotated[str | None, doc("what went wrong in a failed turn")] = None
    reason: Annotated[str | None, doc("why a turn was aborted")] = None
    cwd: _Cwd = None
    duration_ms: Annotated[float | None, doc("length of the turn, milliseconds")] = None
    input_tokens: Annotated[int | None, doc("tokens that the model read")] = None
    output_tokens: Annotated[int | None, doc("tokens that the model wrote")] = None


class AgentApprovalRequested(Payload, frozen=True, kw_only=True):
    """The agent waits for a person's permission."""

    session: _Session
    tool: Annotated[str, doc("tool that the agent wants to use, like Bash")]
    agent: _Agent = "codex"
    turn: _Turn = None
    command: Annotated[str | None, doc("command that it wants to run")] = None
    path: Annotated[str | None, doc("file that it wants to change")] = None
    description: Annotated[str | None, doc("why, as the agent says")] = None
    cwd: _Cwd = None
    permission_mode: Annotated[str | None, doc("the session's permission mode")] = None
    decide: Annotated[
        bool, doc("the agent's hook waits: an answer to a run of this event answers the agent")
    ] = False


class AgentError(Payload, frozen=True, kw_only=True):
    """The agent, or the service behind it, reported an error."""

    message: Annotated[str, doc("error text")]
    session: Annotated[str | None, doc("the agent's session id, where there is one")] = None
    agent: _Agent = "codex"
    turn: _Turn = None
    code: Annotated[str | None, doc("the agent's error code, like internal_server_error")] = None
    cwd: _Cwd = None


_SESSION: Final = "01a205fc-ddc4-7221-a64d-3394619e70d8"


class AgentToolCalled(Payload, frozen=True, kw_only=True):
    """An MCP client called a tool of the mesh, or read a resource. Never what it got for it."""

    server: Annotated[Literal["mcp", "checks"], doc("whose tool it is")]
    tool: Annotated[str, doc("the tool's name; a resource's address")]
    client: Annotated[str, doc("what the client calls itself; nobody checks it")] = ""
    client_version: Annotated[str, doc("the version that it says it has")] = ""
    transport: Annotated[Literal["stdio", "http"], doc("how it came")] = "stdio"
    arguments: Annotated[
        dict[str, Any] | None, doc("what it asked for, cut; a stranger's data")
    ] = None
    outcome: Annotated[
        Literal["called", "ok", "failed", "refused", "cancelled"],
        doc("how it went; called: it has begun to act"),
    ] = "ok"
    error: Annotated[str | None, doc("why it failed or was refused, cut")] = None
    duration_ms: Annotated[float | None, doc("run time, milliseconds")] = None


TOPICS: Final = (
    Topic(
        "agent.session.started",
        payload=AgentSessionStarted,
        owner="codex",
        severity="info",
        description="A session with a coding agent began.",
        example={
            "session": _SESSION,
            "agent": "codex",
            "cwd": "/home/dev/app",
            "cli_version": "0.169.0",
            "originator": "codex_exec",
        },
    ),
    Topic(
        "agent.session.ended",
        payload=AgentSessionEnded,
        owner="agent-hook",
        severity="info",
        description="A session with a coding agent ended.",
        example={
            "session": "29c33d88-2ba8-47a6-b64a-68a79f76856d",
            "agent": "claude",
            "cwd": "/home/dev/app",
            "reason": "prompt_input_exit",
        },
    ),
    Topic(
        "agent.command.executed",
        payload=AgentCommandExecuted,
        owner="codex",
        severity="info",
        description="A coding agent ran a command.",
        example={
            "session": _SESSION,
            "argv": ["/bin/bash", "-lc", "make test; exit 3"],
            "command": "make test; exit 3",
            "cwd": "/home/dev/app",
            "status": "failed",
            "exit_code": 3,
            "duration_ms": 847.838,
        },
    ),
    Topic(
        "agent.turn.completed",
        payload=AgentTurnCompleted,
        owner="codex",
        severity="info",
        description="A turn of a coding agent came to its end, well, failed or aborted.",
        example={
            "session": _SESSION,
            "turn": "01a205fc-de13-7ff1-9dad-29c3c4080f70",
            "status": "completed",
            "duration_ms": 1940.0,
        },
    ),
    Topic(
        "agent.approval.requested",
        payload=AgentApprovalRequested,
        owner="codex",
        severity="warn",
        description="A coding agent waits for a person's permission.",
        example={
            "session": _SESSION,
            "tool": "Bash",
            "command": "touch /home/dev/out/approved.txt",
            "description": "need to write a file",
            "permission_mode": "default",
        },
    ),
    Topic(
        "agent.error",
        payload=AgentError,
        owner="codex",
        description="A coding agent, or the service behind it, reported an error.",
        example={
            "message": "We’re currently experiencing high demand.",
            "session": _SESSION,
            "code": "internal_server_error",
        },
    ),
    Topic(
        "agent.tool.called",
        payload=AgentToolCalled,
        owner="opsmesh",
        severity="info",
        description="An MCP client called a tool of `mcp serve` or `checks serve`.",
        example={
            "server": "mcp",
            "tool": "search_events",
            "client": "claude-code",
            "client_version": "2.1.0",
            "arguments": {"topics": ["python.>"], "limit": 20},
            "outcome": "ok",
            "duration_ms": 41.5,
        },
    ),
)
