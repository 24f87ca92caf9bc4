"""`coredump`: what systemd-coredump noted of the event's crash, where the program was, and earlier
crashes of the same program.

Of the journal's entry only the fields of `FIELDS` are asked for: its others (environment, open
files, memory maps) hold secrets and never leave the journal. Only entries that systemd-coredump
wrote itself are believed: any process can log any field.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors import backtrace
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.subject import exe_of, pid_of
from opsmesh.handlers.collectors.units import journalctl
from opsmesh.schemas import times

#: systemd-coredump's own message (sd-messages.h: SD_MESSAGE_COREDUMP).
MESSAGE_ID: Final = "fc2e22bc6ee647b6b90729ab34a250b1"
#: What is read of an entry.
FIELDS: Final = (
    *("MESSAGE", "_UID", "_SYSTEMD_UNIT", "COREDUMP_PID", "COREDUMP_UID", "COREDUMP_GID"),
    *("COREDUMP_EXE", "COREDUMP_COMM", "COREDUMP_CMDLINE", "COREDUMP_SIGNAL"),
    *("COREDUMP_SIGNAL_NAME", "COREDUMP_TIMESTAMP", "COREDUMP_UNIT", "COREDUMP_USER_UNIT"),
    *("COREDUMP_FILENAME", "COREDUMP_TRUNCATED", "COREDUMP_PACKAGE_NAME"),
    *("COREDUMP_PACKAGE_VERSION", "COREDUMP_HOSTNAME", "COREDUMP_CWD", "COREDUMP_SLICE"),
)
#: Earlier crashes of the program that are named.
EARLIER: Final = 20
#: Seconds around the event in which its entry is looked for: a pid comes again.
NEAR_S: Final = 600.0

#: What is told of the crash, in this order, by the entry's fields.
_TOLD: Final = {
    "pid": "COREDUMP_PID",
    "uid": "COREDUMP_UID",
    "gid": "COREDUMP_GID",
    "signal": "COREDUMP_SIGNAL_NAME",
    "signal_number": "COREDUMP_SIGNAL",
    "exe": "COREDUMP_EXE",
    "comm": "COREDUMP_COMM",
    "unit": "COREDUMP_UNIT",
    "user_unit": "COREDUMP_USER_UNIT",
    "slice": "COREDUMP_SLICE",
    "cwd": "COREDUMP_CWD",
    "hostname": "COREDUMP_HOSTNAME",
    "package": "COREDUMP_PACKAGE_NAME",
    "package_version": "COREDUMP_PACKAGE_VERSION",
    "core": "COREDUMP_FILENAME",
}


class CoredumpSpec(Spec):
    """Which crash; the event's own (`payload.pid`, `payload.exe`) unless given."""

    pid: Text | None = None
    exe: Text | None = None
    backtrace: Annotated[
        bool, Field(description="Where every thread was, by gdb, if it is here.")
    ] = True
    arguments: Annotated[
        bool,
        Field(description="Values of arguments in the backtrace: they may be secrets, or anything"),
    ] = False
    earlier: Annotated[int, Field(ge=0, le=200)] = EARLIER
    directory: Annotated[Text | None, Field(description="Another machine's journal.")] = None


class Coredump:
    """`coredump.txt` with the facts, `coredump.backtrace.txt`, `coredump.earlier.txt`."""

    key: ClassVar[str] = "coredump"
    spec: ClassVar[type[CoredumpSpec]] = CoredumpSpec

    def __init__(self, spec: CoredumpSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        spec = self._spec
        pid, exe = pid_of(request, spec.pid), exe_of(request, spec.exe)
        if pid is None and exe is None:
            raise Unavailable("the event names no process (pid) and no program (exe)")
        entry = await self._entry(request, pid, exe)
        facts = _facts(entry, request)
        exe = exe or facts.get("exe")
        pieces = [request.piece(_text(facts, str(entry.get("MESSAGE") or "")), facts=facts)]
        if spec.backtrace:
            pieces.append(await self._backtrace(request, facts, exe))
        if spec.earlier and exe:
            pieces.append(await self._earlier(request, exe, entry))
        return pieces

    async def _entry(self, request: Request, pid: int | None, exe: str | None) -> Mapping[str, Any]:
        at = request.ctx.event.ts_us / 1e6
        fields = [f"COREDUMP_PID={pid}"] if pid is not None else [f"COREDUMP_EXE={exe}"]
        window = [f"--since=@{max(0.0, at - NEAR_S):.0f}", f"--until=@{at + NEAR_S:.0f}"]
        found = [
            entry
            for entry in await self._entries(request, [*window, *fields])
            if exe is None or entry.get("COREDUMP_EXE") == exe
        ]
        if not found:
            what = f"process {pid}" if pid is not None else exe
            raise Unavailable(f"the journal holds no coredump of {what} around the event")
        return min(found, key=lambda entry: abs(_us(entry) / 1e6 - at))

    async def _entries(self, request: Request, arguments: Sequence[str]) -> list[dict[str, Any]]:
        argv = [*journalctl(request, self._spec.directory), "--output=json", "--all"]
        argv += [f"--output-fields={','.join(FIELDS)}", *arguments, f"MESSAGE_ID={MESSAGE_ID}"]
        ended = await request.run(argv)
        if not ended.ok and not ended.stdout:
            reason = ended.stderr_tail.strip().splitlines()
            raise Unavailable(f"journalctl: {reason[-1] if reason else 'failed'}"[:400])
        return list(_believed(ended.stdout))

    async def _backtrace(
        self, request: Request, facts: Mapping[str, Any], exe: str | None
    ) -> Piece:
        name = f"{(request.name or request.source).partition('.')[0]}.backtrace.txt"
        try:
            core = readable_core(facts.get("core"))
            return await backtrace.of_core(
                request, exe=exe, core=core, name=name, arguments=self._spec.arguments
            )
        except (Unavailable, OSError) as error:
            return request.piece(None, name=name, error=str(error))

    async def _earlier(self, request: Request, exe: str, entry: Mapping[str, Any]) -> Piece:
        until = f"--until=@{_us(entry) / 1e6:.6f}"
        limit = f"--lines={self._spec.earlier + 1}"
        found = await self._entries(request, [until, limit, f"COREDUMP_EXE={exe}"])
        lines = [
            f"{times.format_us(_us(one))}  pid {one.get('COREDUMP_PID')}  "
            f"{one.get('COREDUMP_SIGNAL_NAME') or one.get('COREDUMP_SIGNAL')}"
            f"{_unit(one)}\n"
            for one in found
            if _us(one) < _us(entry)
        ]
        return request.beside(
            "".join(lines) or f"no earlier coredump of {exe} is in the journal\n",
            ".earlier.txt",
            facts={"count": len(lines)},
        )


def readable_core(path: Any) -> Path:
    """The file that holds the core; Unavailable with why it cannot be read."""
    if not path:
        raise Unavailable("no core was kept (Storage=none, or it was too large)")
    core = Path(str(path))
    if not core.is_absolute():
        raise Unavailable("the journal names no absolute path for the core")
    try:
        facts = core.stat(follow_symlinks=False)
    except FileNotFoundError:
        raise Unavailable(f"{core}: the core is not there any more") from None
    except OSError as error:
        raise Unavailable(f"{core}: {error.strerror}") from None
    if not stat.S_ISREG(facts.st_mode):
        raise Unavailable(f"{core}: not a regular file")
    if not os.access(core, os.R_OK):
        raise Unavailable(f"{core}: the core may not be read by the user of the handlers")
    return core


def _believed(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the first line of an output that was cut
            continue
        if not isinstance(entry, dict):
            continue
        entry = {field: _plain(value) for field, value in entry.items()}
        unit = str(entry.get("_SYSTEMD_UNIT") or "")
        if entry.get("_UID") == "0" or unit.startswith("systemd-coredump@"):
            yield entry


def _plain(value: Any) -> Any:
    """A field as text: journald gives bytes for what is no UTF-8, and a list for a repeated one."""
    if not isinstance(value, list) or not value:
        return value
    if all(isinstance(item, int) and 0 <= item < 256 for item in value):
        return bytes(value).decode(errors="replace")
    return value[0]


def _facts(entry: Mapping[str, Any], request: Request) -> dict[str, Any]:
    facts: dict[str, Any] = {"time": times.format_us(_us(entry))}
    for name, field in _TOLD.items():
        value = entry.get(field)
        if isinstance(value, str) and value:
            facts[name] = value[:4096]
    facts["truncated"] = entry.get("COREDUMP_TRUNCATED") == "1"
    command = entry.get("COREDUMP_CMDLINE")
    if isinstance(command, str):
        facts["argv"] = redacted_argv(_words(command), request)
    return facts


def redacted_argv(argv: Sequence[str], request: Request) -> list[str]:
    """A command line as its words, so that what follows `--password` is seen for what it is."""
    clean, _ = request.ctx.redactor.redact({"argv": list(argv)}, context=request.ctx.place)
    return [str(word)[:400] for word in clean["argv"][:64]]


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _text(facts: Mapping[str, Any], message: str) -> str:
    lines = []
    for name, value in facts.items():
        shown = shlex.join(value) if isinstance(value, list) else value
        lines.append(f"{name.replace('_', ' '):>16}: {shown}\n")
    return "".join(lines) + (f"\n{message.rstrip()}\n" if message else "")


def _unit(entry: Mapping[str, Any]) -> str:
    unit = entry.get("COREDUMP_USER_UNIT") or entry.get("COREDUMP_UNIT")
    return f"  {unit}" if unit else ""


def _us(entry: Mapping[str, Any]) -> int:
    for field in ("COREDUMP_TIMESTAMP", "__REALTIME_TIMESTAMP"):
        value = entry.get(field)
        if isinstance(value, str) and value.isdigit():
            return int(value)
    return 0
