"""`opsmesh agent-hook`: what a coding agent's hook calls; JSON on standard input becomes an event.

The one rule: the agent must not notice. The exit code is 0 whatever happens, nothing is written to
standard output (agents read it) but the decision that was asked for, and it takes a second at most.
What went wrong is noted where `opsmesh doctor` finds it (`agents.failures`).

It is started for each of the agent's tools, so it imports what `emit` does, and little more.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum
import os
import time

from opsmesh.cli import light
from opsmesh.cli.light import quote
from opsmesh.producers.agents import failures, hooks, lineage, pointers, words
from opsmesh.router import client, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

#: Seconds that a call may take in all, and that the mesh's agent has of them.
PATIENCE, DELIVERY = 1.0, 0.5
#: Most bytes of input; of a longer one nothing is known. An agent's hook holds whole files.
MAX_INPUT = 16 << 20
#: Seconds that `--decide` waits when it is not told, and at most.
DECIDE, DECIDE_MOST = 300.0, 3600.0
#: Exit code of a call that a person has made in the wrong way: an agent gets 0.
USAGE = 2

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
#: Agents whose permission hook takes an answer, in the form of Claude Code.
ANSWERED = ("claude", "codex")


class _Late(Exception):
    """The time is over."""


class Wrong(Exception):
    """The call is wrong."""


class Call:
    """The arguments of one call."""

    def __init__(self) -> None:
        self.agent = "agent"
        self.event = ""
        self.commands = words.ARGV
        self.decide = 0.0
        self.topic = ""
        self.severity = ""
        self.fields: list[tuple[str, str]] = []
        self.given: dict[str, str] = {}
        self.help = False


def run(argv: Sequence[str]) -> NoReturn:
    """Run `opsmesh agent-hook`, and end the process; nothing is buffered."""
    os._exit(main(argv))


def main(argv: Sequence[str]) -> int:
    """Run `opsmesh agent-hook` with these arguments; the exit code."""
    by_hand = os.isatty(0)
    call = Call()
    try:
        _limit(PATIENCE)
        parse(call, argv)
        if call.help or by_hand:
            from opsmesh.cli.agent_hook.help import HELP

            light.say(1, HELP)
            return 0 if call.help else USAGE
        answer = _tell(call)
        if answer:
            light.say(1, answer)
    except Wrong as wrong:
        light.say(2, f"error: {wrong}\nopsmesh agent-hook --help\n")
        if by_hand:
            return USAGE
        failures.note(f"{call.agent}: the call is wrong: {wrong}")
    except _Late:
        failures.note(f"{call.agent}: not done within {PATIENCE:g} s")
    except hooks.UnknownHook as unknown:
        failures.note(f"{call.agent}: unknown hook {words.text(str(unknown), 64)}")
    except Exception as error:  # noqa: BLE001, RUF100 (the agent must go on)
        failures.note(f"{call.agent}: {type(error).__name__}: {error}")
    finally:
        _limit(0)
    return 0


def _tell(call: Call) -> str:
    """Send the events; what to write for the agent, mostly nothing."""
    document = _input()
    told: list[dict[str, Any]]
    if call.topic:
        told = [{"topic": call.topic, "payload": _pointed(call, document)}]
    elif isinstance(document, dict):
        told = hooks.told(call.agent, document, event=call.event, commands=call.commands)
    else:
        raise ValueError("the input is no JSON object")
    answer = ""
    for event in told:
        waits = call.decide and call.agent in ANSWERED and event["topic"] == hooks.ASKS
        if waits:
            event["payload"]["decide"] = True
        line, event_id = envelope(call, event, document)
        if waits:
            from opsmesh.cli.agent_hook import decide as agent_hook_decide

            _limit(call.decide + PATIENCE)
            answer = agent_hook_decide.ask(line, event_id, call.decide, delivery=DELIVERY)
        else:
            client.Client(timeout=DELIVERY).deliver(line, event_id)
    return answer


def _pointed(call: Call, document: object) -> dict[str, Any]:
    payload = pointers.payload(document, call.fields, call.given)
    if isinstance(document, dict) and not call.fields:
        payload = {"session": hooks.session(document), "cwd": hooks.cwd(document)} | payload
    return {"agent": call.agent} | payload


def envelope(call: Call, event: Mapping[str, Any], document: object) -> tuple[bytes, str]:
    """The line for the mesh's agent, and the event's id."""
    ns = time.time_ns()
    env, payload = os.environ, event["payload"]
    event_id = light.uuid7(ns // 1_000_000)
    folder = payload.get("cwd") or (hooks.cwd(document) if isinstance(document, dict) else "")
    fields: dict[str, Any] = {
        "topic": event["topic"],
        "ts_utc": light.rfc3339(ns // 1000),
        "source": call.agent,
        "component": "hook",
        "session_id": words.text(lineage.session_of(os.getppid(), env)) or "",
        "workspace": session.workspace(folder or light.here(), env),
        "id": event_id,
        "schema_version": "1.0",
        **event,
    }
    if call.severity:
        fields["severity"] = call.severity
    if payload.get("session"):
        fields["correlation_id"] = payload["session"]
    if call.given:
        fields["_coerce"] = True
    return dump({**fields, "_reply": True}).encode(), event_id


def dump(value: Any) -> str:
    """The value as JSON: `json` costs a third of the start."""
    if isinstance(value, str):
        return quote(words.text(value, len(value)) or "")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{quote(key)}:{dump(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return repr(value)


def _input() -> object:
    """What the agent says. All of it is read, also what is too long: it would not be able to write
    the rest."""
    data, size = bytearray(), 0
    while part := os.read(0, 1 << 16):
        size += len(part)
        if size <= MAX_INPUT:
            data += part
    if size > MAX_INPUT:
        raise ValueError(f"an input of {size} bytes exceeds {MAX_INPUT}")
    return light.read_json(data.decode("utf-8", "replace"), "the input")


def parse(call: Call, argv: Sequence[str]) -> None:
    """Take the arguments apart; Wrong."""
    rest = list(reversed(argv))
    while rest:
        argument = rest.pop()
        if not argument.startswith("-"):
            if call.event:
                raise Wrong(f"{argument!r} beside {call.event!r}: one EVENT only")
            call.event = argument
            continue
        name, equals, value = argument.partition("=")
        if name in ("-h", "--help"):
            call.help = True
        elif name == "--decide":
            call.decide = _seconds(value) if equals else DECIDE
        elif name in _VALUED:
            if not equals and not rest:
                raise Wrong(f"{name} wants a value")
            _VALUED[name](call, value if equals else rest.pop())
        else:
            raise Wrong(f"no option {name}")
    if (call.fields or call.given or call.severity) and not call.topic:
        raise Wrong("--field, --set and --severity go with --topic")


def _agent(call: Call, value: str) -> None:
    if not value or not _NAME.issuperset(value):
        raise Wrong(f"--agent {value!r} is not of [a-z0-9_-]")
    call.agent = value


def _commands(call: Call, value: str) -> None:
    if value not in words.POLICIES:
        raise Wrong(f"--commands {value!r} is not one of {', '.join(words.POLICIES)}")
    call.commands = value


def _topic(call: Call, value: str) -> None:
    try:
        light.check_topic(value)
    except light.Refused as refused:
        raise Wrong(str(refused)) from None
    call.topic = value


def _severity(call: Call, value: str) -> None:
    if value not in light.SEVERITIES:
        raise Wrong(f"--severity {value!r} is not one of {', '.join(light.SEVERITIES)}")
    call.severity = value


def _field(call: Call, value: str) -> None:
    name, equals, pointer = value.partition("=")
    if not name or not equals or not pointer.startswith("/"):
        raise Wrong(f"--field {value!r} is not NAME=/POINTER")
    call.fields.append((name, pointer))


def _set(call: Call, value: str) -> None:
    name, equals, text = value.partition("=")
    if not name or not equals:
        raise Wrong(f"--set {value!r} is not NAME=TEXT")
    call.given[name] = text


_VALUED = {
    "--agent": _agent,
    "--commands": _commands,
    "--topic": _topic,
    "--severity": _severity,
    "--field": _field,
    "--set": _set,
}


def _seconds(text: str) -> float:
    unit = {"s": 1.0, "m": 60.0}.get(text[-1:])
    try:
        seconds = float(text[:-1] if unit else text) * (unit or 1.0)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= DECIDE_MOST:
        raise Wrong(f"--decide={text} is no time up to {DECIDE_MOST / 60:g}m, like 90s or 5m")
    return seconds


def _limit(seconds: float) -> None:
    """From now on so many seconds are left; 0: no limit."""
    _signal.signal(_signal.SIGALRM, _late)
    _signal.setitimer(_signal.ITIMER_REAL, seconds)


def _late(signum: int, frame: object) -> None:
    raise _Late
