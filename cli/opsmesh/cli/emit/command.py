"""`opsmesh emit`: one event from a command line, at the price of starting Python.

Its arguments are read here, not by a library: see `light`.
"""

from __future__ import annotations

import os
import time

from opsmesh.cli.light import (
    SEVERITIES,
    USAGE,
    Refused,
    check_topic,
    clean,
    here,
    quote,
    read_json,
    rfc3339,
    say,
    uuid7,
)
from opsmesh.router import client, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

#: Exit codes, as in sysexits.h: the event could not be kept, it is safe in the spool but the broker
#: does not have it yet.
IOERR, TEMPFAIL = 74, 75
#: Seconds that `--wait` waits when it is not told.
WAIT = 5.0
#: Longest id: it travels as a header of the broker's message.
MAX_ID = 128

#: Options with a value, and the envelope field that it becomes where it is one.
_VALUED = {
    "--payload": "",
    "--severity": "severity",
    "--correlation": "correlation_id",
    "--causation": "causation_id",
    "--workspace": "workspace",
    "--component": "component",
    "--source": "source",
    "--id": "id",
}


class Call:
    """The arguments of one call, taken apart."""

    def __init__(self) -> None:
        self.topic = ""
        self.fields: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.raws: dict[str, str] = {}
        self.payload: str | None = None
        self.wait: float | None = None
        self.quiet = False
        self.json = False
        self.help = False


def main(argv: Sequence[str]) -> int:
    """Run `opsmesh emit` with these arguments; the exit code."""
    try:
        return _emit(argv)
    except Refused as refused:
        say(2, f"error: {refused}\n" + (f"{refused.hint}\n" if refused.hint else ""))
        return refused.code
    except KeyboardInterrupt:
        return 130


def run(argv: Sequence[str]) -> NoReturn:
    """Run `opsmesh emit`, and end the process.

    Everything is written unbuffered: nothing is lost by skipping the interpreter's tear-down, which
    costs as much as the imports.
    """
    os._exit(main(argv))


def _emit(argv: Sequence[str]) -> int:
    call = parse(argv)
    if call.help:
        from opsmesh.cli.emit.help import HELP

        say(1, HELP)
        return 0
    line, id = envelope(call)
    mesh = client.Client(timeout=client.TIMEOUT if call.wait is None else call.wait)
    try:
        answer = mesh.deliver(line, id)
    except OSError as error:
        raise Refused(
            f"the event could not be kept: {error}", code=IOERR, hint=f"spool: {mesh.spool_dir}"
        ) from error
    if b'"dropped":true' in answer and answer.startswith(b'{"ok":false'):
        return _dropped(call, answer)
    if answer.startswith(b'{"ok":false'):
        raise Refused(_error_in(answer))
    if call.json:
        say(1, answer.decode(errors="replace") + "\n")
    elif not call.quiet:
        say(1, id + "\n")
    if b'"spooled":true' not in answer:
        return 0
    if call.wait is not None:
        say(2, f"not stored by the broker yet; safe in the spool, {mesh.spool_dir}\n")
        return TEMPFAIL
    if not call.quiet:
        say(2, "spooled: safe on disk, sent as soon as the broker can be reached\n")
    return 0


def _dropped(call: Call, answer: bytes) -> int:
    """The user has chosen that new events go when the spool is full: no error, unless it is asked
    whether the event is stored."""
    if call.json:
        say(1, answer.decode(errors="replace") + "\n")
    if not call.quiet:
        say(2, _error_in(answer) + "\n")
    return 0 if call.wait is None else IOERR


def parse(argv: Sequence[str]) -> Call:
    """Take the arguments apart; Refused when the call is wrong."""
    call = Call()
    rest = [clean(argument) for argument in reversed(argv)]
    options = True
    while rest:
        argument = rest.pop()
        if options and argument == "--":
            options = False
        elif options and argument.startswith("-") and argument != "-":
            _option(call, argument, rest)
        elif not call.topic:
            call.topic = argument
        else:
            _pair(call, argument)
    if not call.topic and not call.help:
        raise _wrong("TOPIC is missing")
    return call


def _option(call: Call, argument: str, rest: list[str]) -> None:
    name, equals, value = argument.partition("=")
    if name in _VALUED:
        if not equals:
            if not rest:
                raise _wrong(f"{name} wants a value")
            value = rest.pop()
        if name == "--payload":
            call.payload = value
        else:
            call.fields[_VALUED[name]] = value
        return
    if name == "--wait":
        call.wait = WAIT
        if equals:
            call.wait = _seconds(value)
            if call.wait is None:
                raise _wrong(f"--wait wants seconds, got {value!r}")
        elif rest and (seconds := _seconds(rest[-1])) is not None:
            call.wait = seconds
            rest.pop()
    elif argument in ("-q", "--quiet"):
        call.quiet = True
    elif argument == "--json":
        call.json = True
    elif argument in ("-h", "--help"):
        call.help = True
    else:
        raise _wrong(f"no option {name}")


def _pair(call: Call, argument: str) -> None:
    key, equals, value = argument.partition("=")
    raw = key.endswith(":")
    key = key.removesuffix(":") if raw else key
    if not equals or not key:
        raise _wrong(f"{argument!r} is neither KEY=TEXT nor KEY:=JSON")
    if key in call.texts or key in call.raws:
        raise _wrong(f"{key} is given twice")
    if raw:
        read_json(value, key)
        call.raws[key] = value
    else:
        call.texts[key] = value


def envelope(call: Call) -> tuple[bytes, str]:
    """The line for the agent, and the event's id; Refused when the event is wrong."""
    ns = time.time_ns()
    check_topic(call.topic)
    id = call.fields.get("id", "")
    if "id" not in call.fields:
        id = uuid7(ns // 1_000_000)
    elif not (0 < len(id) <= MAX_ID and id.isascii() and id.isprintable() and " " not in id):
        raise Refused(f"id {id!r} is not 1 to {MAX_ID} printable ASCII characters without spaces")
    env = os.environ
    fields = {
        "topic": call.topic,
        "ts_utc": rfc3339(ns // 1000),
        "source": "emit",
        "component": "cli",
        "session_id": clean(session.of_environment(env)),
        "id": id,
        "schema_version": "1.0",
    }
    if "workspace" not in call.fields:
        fields["workspace"] = clean(session.workspace(here(), env))
    for name, variable in (
        ("correlation_id", "OPSMESH_CORRELATION_ID"),
        ("causation_id", "OPSMESH_EVENT_ID"),
    ):
        if env.get(variable):
            fields[name] = clean(env[variable])
    fields.update(call.fields)
    if fields.get("severity", "info") not in SEVERITIES:
        raise _wrong(f"severity {fields['severity']!r} is not one of {', '.join(SEVERITIES)}")
    parts = [f"{quote(name)}:{quote(value)}" for name, value in fields.items()]
    if (hops := env.get("OPSMESH_HOPS", "")).isdecimal():
        parts.append(f'"hops":{int(hops)}')
    parts.append('"payload":' + _payload(call))
    if call.texts:
        parts.append('"_coerce":true')
    parts.append('"_reply":true')
    return ("{" + ",".join(parts) + "}").encode(), id


def _payload(call: Call) -> str:
    pairs = [f"{quote(key)}:{quote(value)}" for key, value in call.texts.items()]
    pairs += [f"{quote(key)}:{value}" for key, value in call.raws.items()]
    if call.payload is None:
        return "{" + ",".join(pairs) + "}"
    text = _read_source(call.payload)
    value = read_json(text, "--payload")
    if not isinstance(value, dict):
        raise Refused(f"--payload is not a JSON object but {type(value).__name__}")
    if not pairs:
        return text
    for key in (*call.texts, *call.raws):
        if key in value:
            raise _wrong(f"{key} is given twice, once inside --payload")
    inner = text.strip()[1:-1]
    return "{" + inner + ("," if value else "") + ",".join(pairs) + "}"


def _read_source(payload: str) -> str:
    """The text itself, or what standard input or a file holds."""
    if payload != "-" and not payload.startswith("@"):
        return payload
    try:
        file = 0 if payload == "-" else os.open(os.fsencode(payload[1:]), os.O_RDONLY)
        try:
            data = b""
            while part := os.read(file, 1 << 20):
                data += part
        finally:
            if file:
                os.close(file)
        return data.decode()
    except OSError as error:
        raise Refused(f"--payload {payload}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"--payload {payload} is not UTF-8: byte {error.start}") from error


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e9 else None


def _error_in(answer: bytes) -> str:
    import json

    return str(json.loads(answer).get("error", "refused"))


def _wrong(message: str) -> Refused:
    return Refused(message, code=USAGE, hint="opsmesh emit --help")
