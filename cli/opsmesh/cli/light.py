"""What the commands that tools call share: JSON, topics, ids and times, without imports.

They are called from hooks, prompts and loops, so this imports the standard library's smallest parts
only; JSON is read and written by the C half of `json` (`_json`, which `json` itself builds on).
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    from _json import encode_basestring_ascii, make_scanner
except ImportError:  # a Python without the C half
    from json.encoder import encode_basestring_ascii
    from json.scanner import make_scanner

quote = encode_basestring_ascii

#: Exit codes, as in sysexits.h: the call is wrong, the event is wrong.
USAGE, DATAERR = 2, 65

SEVERITIES = ("info", "warn", "error", "critical")
_SPACE = " \t\r\n"
_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


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


def here() -> str:
    """The current folder; empty when it is gone."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return ""


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


def clean(text: str) -> str:
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


def say(file: int, text: str) -> None:
    """Write unbuffered; nobody has to listen."""
    data = text.encode(errors="replace")
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError:
        return
