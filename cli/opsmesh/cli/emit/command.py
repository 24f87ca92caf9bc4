"""`opsmesh emit`: one event from a command line, at the price of starting Python.

It is called from hooks, prompts and loops, so it imports the standard library's smallest parts
only; its arguments are read here, and JSON is read and written by the C half of `json`
(`_json`, which `json` itself builds on).
"""

from __future__ import annotations

import os
import time

from opsmesh.router import client, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

try:
    from _json import encode_basestring_ascii, make_scanner
except ImportError:  # a Python without the C half
    from json.encoder import encode_basestring_ascii
    from json.scanner import make_scanner

quote = encode_basestring_ascii

#: Exit codes, as in sysexits.h: the call is wrong, the event is wrong, it could not be kept, it is
#: safe in the spool but the broker does not have it yet.
USAGE, DATAERR, IOERR, TEMPFAIL = 2, 65, 74, 75
#: Seconds that `--wait` waits when it is not told.
WAIT = 5.0
#: Longest id: it travels as a header of the broker's message.
MAX_ID = 128

SEVERITIES = ("info", "warn", "error", "critical")
_SPACE = " \t\r\n"
_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")

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


class Refused(Exception):
    """The command ends with `code`; the text says why, `hint` what to do instead."""

    def __init__(self, message: str, *, code: int = DATAERR, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class _Json:
    """What the scanner reads from its context: as `json` has it, but NaN is not JSON."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012

    @staticmethod
    def parse_constant(text: str) -> None:
        raise ValueError(f"{text} is not JSON")


_scan = make_scanner(_Json)  # type: ignore[arg-type]  # typed for json.JSONDecoder alone


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
        _say(2, f"error: {refused}\n" + (f"{refused.hint}\n" if refused.hint else ""))
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

        _say(1, HELP)
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
        _say(1, answer.decode(errors="replace") + "\n")
    elif not call.quiet:
        _say(1, id + "\n")
    if b'"spooled":true' not in answer:
        return 0
    if call.wait is not None:
        _say(2, f"not stored by the broker yet; safe in the spool, {mesh.spool_dir}\n")
        return TEMPFAIL
    if not call.quiet:
        _say(2, "spooled: safe on disk, sent as soon as the broker can be reached\n")
    return 0


def _dropped(call: Call, answer: bytes) -> int:
    """The user has chosen that new events go when the spool is full: no error, unless it is asked
    whether the event is stored."""
    if call.json:
        _say(1, answer.decode(errors="replace") + "\n")
    if not call.quiet:
        _say(2, _error_in(answer) + "\n")
    return 0 if call.wait is None else IOERR


def parse(argv: Sequence[str]) -> Call:
    """Take the arguments apart; Refused when the call is wrong."""
    call = Call()
    rest = [_clean(argument) for argument in reversed(argv)]
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
        "session_id": _clean(session.of_environment(env)),
        "id": id,
        "schema_version": "1.0",
    }
    if "workspace" not in call.fields:
        fields["workspace"] = _clean(session.workspace(here(), env))
    for name, variable in (
        ("correlation_id", "OPSMESH_CORRELATION_ID"),
        ("causation_id", "OPSMESH_EVENT_ID"),
    ):
        if env.get(variable):
            fields[name] = _clean(env[variable])
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


def here() -> str:
    """The current folder; empty when it is gone."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return ""


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


def read_json(text: str, where: str) -> Any:
    """The value in a JSON text; Refused when it is none."""
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except (StopIteration, SystemError, ValueError, RecursionError):
        # the C half names the error only where `json` is loaded already: SystemError
        raise Refused(f"{where} is not JSON: {_why(text)}") from None
    if text[end:].strip(_SPACE):
        raise Refused(f"{where} is not JSON: {_why(text)}")
    if "\\ud" in text.lower() and not _is_unicode(value):
        raise Refused(f"{where} is not JSON: it holds half of a surrogate pair")
    return value


def _why(text: str) -> str:
    import json

    try:
        json.loads(text, parse_constant=_Json.parse_constant)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return str(error)
    return "unreadable"


def _is_unicode(value: Any) -> bool:
    import json

    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_topic(topic: str) -> None:
    """Refused unless the topic follows the grammar (`schemas.envelope` without its imports)."""
    tokens = topic.split(".")
    if 2 <= len(tokens) <= 6 and all(token and _TOKEN.issuperset(token) for token in tokens):
        return
    raise Refused(
        f"topic {topic!r} is not 2 to 6 tokens of [a-z0-9_] joined by dots",
        hint="like python.test.failed; those of this mesh: opsmesh topics ls",
    )


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e9 else None


def _clean(text: str) -> str:
    """Text that is UTF-8: bytes of the command line that are not become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text


def uuid7(ms: int) -> str:
    """As `schemas.ids`, which imports hashlib."""
    value = ms << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def rfc3339(us: int) -> str:
    """As `schemas.times`, which imports datetime."""
    seconds, micros = divmod(us, 1_000_000)
    t = time.gmtime(seconds)
    return (
        f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}"
        f"T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}.{micros:06d}Z"
    )


def _error_in(answer: bytes) -> str:
    import json

    return str(json.loads(answer).get("error", "refused"))


def _wrong(message: str) -> Refused:
    return Refused(message, code=USAGE, hint="opsmesh emit --help")


def _say(file: int, text: str) -> None:
    """Write unbuffered; nobody has to listen."""
    data = text.encode(errors="replace")
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError:
        return
