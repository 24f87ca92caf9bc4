"""What a line of a Codex rollout tells. Pure: lines in, facts out.

A rollout holds everything that was said and printed; only what is named here is ever taken out of
it. Its format moves between versions of Codex: a line that is not understood is counted, and the
next one is read. Known are 0.60, 0.120, 0.169 and 0.171. Those before 0.169 have no event for a
command: the model's call and its answer tell it then (`calls`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from opsmesh.producers.agents import calls, words
from opsmesh.producers.agents.calls import Asked
from opsmesh.producers.agents.hooks import ERROR, EXECUTED, STARTED, TURN
from opsmesh.schemas import ids, times

#: Kinds of lines that tell nothing we want, whatever is in them.
QUIET: Final = frozenset(
    ("world_state", "compacted", "ghost_snapshot", "inter_agent_communication")
)
#: Events (`event_msg`) that tell nothing we want.
QUIET_EVENTS: Final = frozenset(
    (
        *("task_started", "turn_started", "user_message", "agent_message", "agent_reasoning"),
        *("agent_reasoning_raw_content", "token_count", "thread_settings_applied", "warning"),
        *("thread_name_updated", "thread_goal_updated", "context_compacted"),
        *("thread_rolled_back", "entered_review_mode", "exited_review_mode", "item_started"),
        *("mcp_tool_call_begin", "mcp_tool_call_end", "web_search_begin", "web_search_end"),
        *("patch_apply_begin", "patch_apply_end", "exec_command_begin", "view_image_tool_call"),
        *("plan_update", "image_generation_end", "undo_started", "undo_completed", "turn_diff"),
        *("guardian_assessment", "dynamic_tool_call_request", "dynamic_tool_call_response"),
        *("hook_started", "hook_completed"),
    )
)
#: No time, duration, status or number of tokens is as large: milliseconds until the year 2100.
LARGEST: Final = 4_102_444_800_000
#: How a call of a tool is named, and the answer to it.
CALLS: Final = ("function_call", "local_shell_call")
ANSWERS: Final = ("function_call_output", "local_shell_call_output")
#: Calls that wait for their answer, and commands that were told, as far as they are remembered.
MAX_CALLS: Final = 256
#: Calls of commands after which one should have been told.
BLIND_AFTER: Final = 3
#: The name of the agent in its events.
AGENT: Final = "codex"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One event to be. The same line gives the same id, however often it is read."""

    topic: str
    payload: dict[str, Any]
    id: str
    ts_us: int
    session: str
    causation_id: str | None = None
    severity: str | None = None
    exit_code: int | None = None
    duration_ms: float | None = None


@dataclass
class Rollout:
    """One file, as far as it was read. `feed` takes its lines in their order.

    `unknown` counts lines that were not understood, by their kind. `blind`: the model has asked for
    commands, and the file tells none of them in a way that we know.
    """

    commands: str = words.ARGV
    session: str = ""
    cwd: str = ""
    version: str = ""
    unknown: dict[str, int] = field(default_factory=dict)
    _turn_id: str | None = None
    _asked: int = 0
    _ran: int = 0
    _calls: dict[str, Asked] = field(default_factory=dict)
    #: Commands that were told; a dict keeps their order.
    _told: dict[str, None] = field(default_factory=dict)
    _tokens: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)

    def feed(self, line: dict[str, Any]) -> list[Fact]:
        """The facts of one line, mostly none."""
        kind, payload = line.get("type"), line.get("payload")
        at_us = _time(line.get("timestamp"))
        if not isinstance(kind, str) or not isinstance(payload, dict) or at_us is None:
            return self._miss(str(kind)[:64])
        if kind == "event_msg":
            return self._event(payload, at_us)
        if kind == "session_meta":
            return self._meta(payload, at_us)
        if kind == "response_item":
            return self._item(payload, at_us)
        if kind == "turn_context":
            self.cwd = _folder(payload.get("cwd")) or self.cwd
        elif kind == "token_usage_record":
            self._usage(payload)
        elif kind not in QUIET:
            return self._miss(kind)
        return []

    @property
    def blind(self) -> bool:
        """See the class: some calls are refused, and leave no command."""
        return self._asked >= BLIND_AFTER and not self._ran

    def _meta(self, payload: dict[str, Any], at_us: int) -> list[Fact]:
        """The first line. One that comes later is the copy of another session's (a fork), or this
        session again, which goes on."""
        session = words.text(payload.get("id")) or words.text(payload.get("session_id"))
        if self.session or session is None:
            return [] if self.session else self._miss("session_meta")
        self.session = session
        self.cwd = _folder(payload.get("cwd")) or ""
        self.version = words.text(payload.get("cli_version")) or ""
        provenance = _inner(_inner(payload, "base_instructions"), "provenance")
        told = {
            "cli_version": self.version or None,
            "originator": words.text(payload.get("originator")),
            "model": words.text(payload.get("model")) or words.text(provenance.get("model")),
            "model_provider": words.text(payload.get("model_provider")),
        }
        return [self._fact(STARTED, told, self.started_id, at_us)]

    @property
    def started_id(self) -> str:
        """The id of the session's first event: everything that it did was caused by it."""
        return ids.derived(ids.unix_ms(self.session) or 0, STARTED, AGENT, self.session)

    def _event(self, payload: dict[str, Any], at_us: int) -> list[Fact]:
        kind = str(payload.get("type"))[:64]
        if kind in ("task_started", "turn_started"):
            self._turn_id = words.text(payload.get("turn_id"))
        if kind == "item_completed":
            item = _inner(payload, "item")
            if item.get("type") == "CommandExecution":
                return self._executed(item, payload, at_us)
            return []
        if kind == "exec_command_end":
            return self._executed({**payload, "id": payload.get("call_id")}, payload, at_us)
        if kind in ("task_complete", "turn_complete"):
            return self._turn(payload, at_us)
        if kind == "turn_aborted":
            reason = words.text(payload.get("reason"))
            return self._ended(payload, at_us, {"status": "aborted", "reason": reason})
        if kind in ("error", "stream_error"):
            return self._error(payload, payload, at_us, kind)
        return [] if kind in QUIET_EVENTS else self._miss(f"event_msg/{kind}")

    def _item(self, payload: dict[str, Any], at_us: int) -> list[Fact]:
        """A call of a tool is kept until its answer comes, and told by it, unless an event of the
        command has come first."""
        kind, call = payload.get("type"), words.text(payload.get("call_id"))
        if call is None:
            return []
        if kind in CALLS and (asked := calls.asked(payload)) is not None:
            self._asked += 1
            _keep(self._calls, call, asked)
        if kind not in ANSWERS:
            return []
        wanted, ended = self._calls.pop(call, None), calls.ended(payload.get("output"))
        if wanted is None or ended is None:
            return []
        command = {
            **{"id": call, "command": wanted.argv, "cwd": wanted.cwd},
            **{"exit_code": ended.exit_code, "duration_ms": ended.duration_ms},
            "status": "failed" if ended.exit_code else "completed",
        }
        return self._executed(command, {"turn_id": self._turn_id}, at_us)

    def _executed(self, item: dict[str, Any], payload: dict[str, Any], at_us: int) -> list[Fact]:
        command, call = item.get("command"), words.text(item.get("id"))
        if not isinstance(command, list) or call is None:
            return self._miss("CommandExecution")
        if call in self._told:
            return []
        self._ran += 1
        self._calls.pop(call, None)
        _keep(self._told, call, None)
        argv = words.argv(command, words.ARGV)
        line = words.shell_line(argv) or " ".join(argv)
        code, took = _integer(item.get("exit_code")), _duration(item)
        at_us = (_integer(payload.get("completed_at_ms")) or 0) * 1000 or at_us
        told = {
            "argv": words.argv(command, self.commands),
            "turn": words.text(payload.get("turn_id")),
            "command": words.command(line, self.commands),
            "cwd": _folder(item.get("cwd")),
            "status": words.text(item.get("status")),
            "exit_code": code,
            "duration_ms": took,
        }
        thread = words.text(payload.get("thread_id")) or self.session
        event_id = ids.derived(at_us // 1000, EXECUTED, AGENT, thread, call)
        return [self._fact(EXECUTED, told, event_id, at_us, exit_code=code, duration_ms=took)]

    def _turn(self, payload: dict[str, Any], at_us: int) -> list[Fact]:
        """A turn that came to its end, perhaps a bad one."""
        error = payload.get("error")
        if not isinstance(error, dict):
            return self._ended(payload, at_us, {"status": "completed"})
        message = words.text(error.get("message")) or "unknown"
        ended = self._ended(payload, at_us, {"status": "failed", "error": message})
        return ended + self._error(error, payload, at_us, "turn", cause=ended[0].id)

    def _ended(self, payload: dict[str, Any], at_us: int, told: dict[str, Any]) -> list[Fact]:
        turn = words.text(payload.get("turn_id"))
        read, written = self._tokens.pop(turn or "", (None, None))
        self._tokens.clear()
        took = _number(payload.get("duration_ms"))
        fields = {
            **told,
            "turn": turn,
            "duration_ms": took,
            "input_tokens": read,
            "output_tokens": written,
        }
        event_id = ids.derived(at_us // 1000, TURN, AGENT, self.session, turn or str(at_us))
        severity = "warn" if told["status"] == "failed" else None
        return [self._fact(TURN, fields, event_id, at_us, severity=severity, duration_ms=took)]

    def _error(
        self,
        error: dict[str, Any],
        payload: dict[str, Any],
        at_us: int,
        kind: str,
        *,
        cause: str | None = None,
    ) -> list[Fact]:
        code = error.get("codex_error_info")
        if isinstance(code, dict):  # an error with facts of its own: its name is the key
            code = next(iter(code), None)
        told = {
            "message": words.text(error.get("message")) or "unknown",
            "code": words.text(code),
            "turn": words.text(payload.get("turn_id")),
        }
        event_id = ids.derived(at_us // 1000, ERROR, AGENT, self.session, kind, str(told))
        severity = "warn" if kind == "stream_error" else None  # Codex tries again by itself
        return [self._fact(ERROR, told, event_id, at_us, severity=severity, cause=cause)]

    def _usage(self, payload: dict[str, Any]) -> None:
        turn, usage = words.text(payload.get("turn_id")), _inner(payload, "turn_token_usage")
        if turn is not None:
            read, written = usage.get("input_tokens"), usage.get("output_tokens")
            self._tokens[turn] = _integer(read), _integer(written)

    def _fact(
        self,
        topic: str,
        told: dict[str, Any],
        event_id: str,
        at_us: int,
        *,
        cause: str | None = None,
        **more: Any,
    ) -> Fact:
        payload = {"session": self.session, "agent": AGENT, "cwd": self.cwd or None, **told}
        payload["cwd"] = payload["cwd"] or self.cwd or None
        if topic != STARTED:
            cause = cause or self.started_id
        return Fact(
            topic=topic,
            payload={name: value for name, value in payload.items() if value is not None},
            id=event_id,
            ts_us=at_us,
            session=self.session,
            causation_id=cause,
            **more,
        )

    def _miss(self, kind: str) -> list[Fact]:
        self.unknown[kind] = self.unknown.get(kind, 0) + 1
        return []


def at(line: dict[str, Any]) -> int | None:
    """When a line was written, in microseconds; None when it does not say."""
    return _time(line.get("timestamp"))


def _time(value: object) -> int | None:
    try:
        return times.parse_us(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def _inner(value: object, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _folder(value: object) -> str | None:
    """A path, which some versions write as an address."""
    text = words.text(value, words.MAX_COMMAND)
    if text is None or not text.startswith("file://"):
        return text
    try:
        return unquote(urlsplit(text).path) or None
    except ValueError:
        return None


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) < LARGEST else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 else None


def _keep(kept: dict[str, Any], key: str, value: Any) -> None:
    """Remember it; the oldest goes when there are too many."""
    kept[key] = value
    if len(kept) > MAX_CALLS:
        del kept[next(iter(kept))]


def _duration(item: dict[str, Any]) -> float | None:
    """Milliseconds, also of `{secs, nanos}`."""
    if "duration_ms" in item:
        return _number(item["duration_ms"])
    duration = _inner(item, "duration")
    secs, nanos = _number(duration.get("secs")), _number(duration.get("nanos"))
    return None if secs is None else round(secs * 1000 + (nanos or 0.0) / 1e6, 3)
