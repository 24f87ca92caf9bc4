"""What a call of an agent's hook means: which events, made of which of its fields.

Pure, and the one place where it stands; docs/producers/agents.md is the same for people. A hook's
input holds prompts, file contents and output: only what is named here is ever taken out of it.
Standard library's smallest parts only: `opsmesh agent-hook` imports this module.

A form is what one agent calls its hooks: a table from the hook's name to a reader. Hooks that tell
nothing stand in `SILENT`; any other name is one that we do not know, which is counted.
"""

from __future__ import annotations

from opsmesh.producers.agents import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    #: Fields of the envelope: `topic`, `payload`, and those of severity, exit_code, duration_ms.
    Told = dict[str, Any]
    Call = Mapping[str, Any]
    Reader = Callable[[Call, str, str], list[Told]]

STARTED, ENDED = "agent.session.started", "agent.session.ended"
EXECUTED, TURN = "agent.command.executed", "agent.turn.completed"
ASKS, ERROR = "agent.approval.requested", "agent.error"

#: Tools whose input's `command` is a shell's line. That of others may be anything: Codex'
#: `apply_patch` has the patch there.
SHELLS = ("Bash", "Shell", "bash", "shell", "run_shell_command")
#: Where tools say which file they are about.
PATHS = ("file_path", "notebook_path", "path", "filePath")
#: How a patch names its files (Codex).
PATCHED = ("*** Update File: ", "*** Add File: ", "*** Delete File: ")
#: How Claude Code's and Gemini CLI's texts begin to tell an exit status.
_CLAUDE_EXIT, _GEMINI_EXIT = "Exit code ", "Exit Code: "
#: What Gemini CLI writes below it.
_GEMINI_TAIL = ("</untrusted_context>", "Process Group PGID: ", "Background PIDs: ", "Signal: ")
#: A session that goes on after its history was made shorter has not begun.
NO_START = ("compact",)


class UnknownHook(Exception):
    """A name of a hook that is in no table: the agent is newer than we know it."""


def told(agent: str, call: Call, *, event: str = "", commands: str = words.ARGV) -> list[Told]:
    """The events of one call; none for a hook that tells nothing. `event` names the hook where the
    input does not. UnknownHook."""
    name = words.text(call.get("hook_event_name")) or event
    reader = FORMS.get(agent, CLAUDE).get(name)
    if reader is not None:
        return reader(call, agent, commands)
    if name in SILENT or (agent == "codex" and name in CLAUDE):
        return []
    raise UnknownHook(name or "a hook without a name")


def cwd(call: Call) -> str:
    """The folder that the agent works in; empty when it does not say."""
    return words.text(call.get("cwd"), words.MAX_COMMAND) or ""


def session(call: Call) -> str:
    """The agent's own session; empty when it does not say."""
    return words.text(call.get("session_id")) or ""


def _started(call: Call, agent: str, commands: str) -> list[Told]:
    how = words.text(call.get("source"))
    if how in NO_START:
        return []
    return [_made(STARTED, call, agent, model=words.text(call.get("model")), how=how, turn=None)]


def _ended(call: Call, agent: str, commands: str) -> list[Told]:
    return [_made(ENDED, call, agent, reason=words.text(call.get("reason")), turn=None)]


def _turn(call: Call, agent: str, commands: str) -> list[Told]:
    return [_made(TURN, call, agent, status="completed")]


def _turn_failed(call: Call, agent: str, commands: str) -> list[Told]:
    """The message beside the code is written like an answer, and may quote one."""
    code = words.text(call.get("error")) or "unknown"
    return [
        _made(TURN, call, agent, severity="warn", status="failed", error=code),
        _made(ERROR, call, agent, message=code, code=code),
    ]


def _ran(call: Call, agent: str, commands: str) -> list[Told]:
    """Claude Code, after a tool that went well by its own judgement: for some programs it takes a
    status other than 0 for a plain answer, and says so."""
    answer = _object(call, "tool_response")
    if answer.get("backgroundTaskId"):
        return []  # it runs on, and nobody knows how it will end
    plain = "returnCodeInterpretation" not in answer
    return _command(call, agent, commands, "completed", 0 if plain else None)


def _ran_badly(call: Call, agent: str, commands: str) -> list[Told]:
    error = words.text(call.get("error")) or ""
    status = "interrupted" if call.get("is_interrupt") is True else "failed"
    return _command(call, agent, commands, status, _number_after(_CLAUDE_EXIT, error))


def _ran_gemini(call: Call, agent: str, commands: str) -> list[Told]:
    """Gemini CLI writes the status below the output, when it is not 0."""
    answer = _object(call, "tool_response")
    output = answer.get("llmContent")
    lines = output[-words.MAX_TEXT :].splitlines() if isinstance(output, str) else []
    while lines and lines[-1].startswith(_GEMINI_TAIL):
        lines.pop()
    code = _number_after(_GEMINI_EXIT, lines[-1]) if lines else None
    if code is None and lines and not answer.get("error"):
        code = 0
    failed = bool(answer.get("error")) or code != 0
    return _command(call, agent, commands, "failed" if failed else "completed", code)


def _command(
    call: Call, agent: str, commands: str, status: str, exit_code: int | None
) -> list[Told]:
    tool = words.text(call.get("tool_name"))
    line = _object(call, "tool_input").get("command")
    if tool not in SHELLS or not isinstance(line, str):
        return []
    shown = words.command(line, commands)
    took = _milliseconds(call.get("duration_ms"))
    made = _made(
        EXECUTED,
        call,
        agent,
        argv=[shown] if shown else [],
        command=shown,
        status=status,
        exit_code=exit_code,
        duration_ms=took,
    )
    made |= {} if exit_code is None else {"exit_code": exit_code}
    return [made | ({} if took is None else {"duration_ms": took})]


def _asks(call: Call, agent: str, commands: str) -> list[Told]:
    tool, given = words.text(call.get("tool_name")) or "unknown", _object(call, "tool_input")
    command, described = given.get("command"), given.get("description")
    shell = tool in SHELLS
    path = next((found for key in PATHS if (found := words.text(given.get(key)))), None)
    return [
        _made(
            ASKS,
            call,
            agent,
            tool=tool,
            command=words.command(command, commands) if shell else None,
            path=path or (None if shell else _patched(command)),
            description=words.text(described) if commands == words.ARGV else None,
            permission_mode=words.text(call.get("permission_mode")),
        )
    ]


def _asks_gemini(call: Call, agent: str, commands: str) -> list[Told]:
    """Gemini CLI's only word of it: it cannot be answered by a hook."""
    if call.get("notification_type") != "ToolPermission":
        return []
    details = _object(call, "details")
    kind = words.text(details.get("type")) or "unknown"
    tool = {"exec": "run_shell_command", "mcp": words.text(details.get("toolName"))}.get(kind)
    return [
        _made(
            ASKS,
            call,
            agent,
            tool=tool or kind,
            command=words.command(details.get("command"), commands) if kind == "exec" else None,
            path=words.text(details.get("filePath")),
        )
    ]


def _made(topic: str, call: Call, agent: str, *, severity: str = "", **fields: Any) -> Told:
    """One event. A field that is None is left out."""
    payload = {
        "session": session(call),
        "agent": agent,
        "turn": words.text(call.get("turn_id")) or words.text(call.get("prompt_id")),
        "cwd": cwd(call) or None,
        **fields,
    }
    made: Told = {
        "topic": topic,
        "payload": {name: value for name, value in payload.items() if value is not None},
    }
    return made | ({"severity": severity} if severity else {})


def _object(call: Call, name: str) -> Mapping[str, Any]:
    found = call.get(name)
    return found if isinstance(found, dict) else {}


def _number_after(start: str, text: str) -> int | None:
    """The number that follows the start of a text."""
    if not text.startswith(start):
        return None
    digits = (text[len(start) :].split() or [""])[0]
    return int(digits) if digits.isdecimal() and len(digits) < 10 else None


def _milliseconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 else None


def _patched(patch: object) -> str | None:
    """The first file that a patch changes."""
    for line in patch.splitlines() if isinstance(patch, str) else ():
        if line.startswith(PATCHED):
            return words.text(line.partition(": ")[2])
    return None


#: Claude Code, and the many that have copied its form.
CLAUDE: dict[str, Reader] = {
    "SessionStart": _started,
    "SessionEnd": _ended,
    "PostToolUse": _ran,
    "PostToolUseFailure": _ran_badly,
    "PermissionRequest": _asks,
    "Stop": _turn,
    "StopFailure": _turn_failed,
}
#: Codex: everything else is told by its own files, with more in it (`codex`).
CODEX: dict[str, Reader] = {"PermissionRequest": _asks}
GEMINI: dict[str, Reader] = {
    "SessionStart": _started,
    "SessionEnd": _ended,
    "AfterTool": _ran_gemini,
    "AfterAgent": _turn,
    "Notification": _asks_gemini,
}
FORMS: dict[str, dict[str, Reader]] = {"claude": CLAUDE, "codex": CODEX, "gemini": GEMINI}

#: Hooks that tell nothing: what they are about is told by another one, or is nobody's business.
SILENT = (
    *("PreToolUse", "UserPromptSubmit", "Notification", "PermissionDenied", "PreCompact"),
    *("PostCompact", "SubagentStart", "SubagentStop", "Setup", "ConfigChange", "CwdChanged"),
    *("InstructionsLoaded", "TaskCreated", "TaskCompleted", "TeammateIdle", "FileChanged"),
    *("WorktreeCreate", "WorktreeRemove", "Elicitation", "ElicitationResult", "PostToolBatch"),
    *("Interrupt", "UserInstructions", "BeforeAgent", "BeforeModel", "AfterModel"),
    *("BeforeTool", "BeforeToolSelection", "PreCompress"),
)
