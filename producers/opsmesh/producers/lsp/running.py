"""The proxies that run: a small file for each, written by its observer, read by `lsp --list`.

It holds counts and names, never a word of a user's text. Those of processes that are gone are
removed by whoever reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Final

from opsmesh.router import paths
from opsmesh.schemas import times

#: Bytes of the log, after which it is begun anew; the one before is kept.
LOG_BYTES: Final = 1 << 20


def folder() -> str:
    """Where the files are."""
    return paths.runtime_dir() + "/lsp"


def log_path() -> str:
    """Where observers write what they could not do."""
    return paths.state_dir() + "/logs/lsp.log"


class Note:
    """What one observer did and could not do. Nothing it meets is worth an exception."""

    def __init__(self, *, command: str, parent: int) -> None:
        self._path = f"{folder()}/{os.getpid()}.json"
        self._facts: dict[str, Any] = {
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "server": os.path.basename(command),  # noqa: PTH119
            "editor": "",
            "editor_pid": parent,
            "since": times.format_us(times.now_us()),
            "events": 0,
            "last_event": "",
            "last_time": "",
            "untold": 0,
            "bytes_lost": 0,
            "unread": 0,
            "stopped": "",
        }
        self._write()

    def of(self, *, server: str, editor: str) -> None:
        """Who talks here."""
        if (server, editor) != (self._facts["server"], self._facts["editor"]):
            self._facts |= {"server": server, "editor": editor}
            self._write()

    def told(self, topic: str) -> None:
        """An event is safe."""
        self._facts["events"] += 1
        self._facts |= {"last_event": topic, "last_time": times.format_us(times.now_us())}
        self._write()

    def untold(self, topic: str, why: str) -> None:
        """An event could neither be sent nor kept."""
        self._count("untold", 1)
        self._log("lsp.event_untold", topic=topic, error=why)

    def lost(self, size: int) -> None:
        """The relay could not wait with these bytes."""
        self._count("bytes_lost", size)
        self._log("lsp.bytes_lost", bytes=size)

    def unread(self, why: str = "") -> None:
        """A message could not be read."""
        self._count("unread", 1)
        if why:
            self._log("lsp.message_unread", error=why)

    def stop(self, why: str) -> None:
        """Nothing more will be told of this conversation."""
        self._facts["stopped"] = why
        self._write()
        self._log("lsp.stopped", error=why)

    def end(self) -> None:
        """The conversation is over."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108

    def _count(self, name: str, more: int) -> None:
        self._facts[name] += more
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            paths.private_dir(os.path.dirname(folder()))  # noqa: PTH120
            paths.private_dir(folder())
            temporary = f"{self._path}.new"
            with open(temporary, "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump(self._facts, file)
            os.replace(temporary, self._path)  # noqa: PTH105

    def _log(self, event: str, **facts: Any) -> None:
        line = {"time": times.format_us(times.now_us()), "event": event, **facts}
        line |= {"server": self._facts["server"], "pid": os.getpid()}
        with contextlib.suppress(OSError):
            paths.private_dir(os.path.dirname(log_path()))  # noqa: PTH120
            with contextlib.suppress(FileNotFoundError):
                if os.stat(log_path()).st_size > LOG_BYTES:  # noqa: PTH116
                    os.replace(log_path(), log_path() + ".1")  # noqa: PTH105
            with open(log_path(), "a", encoding="utf-8") as file:  # noqa: PTH123
                file.write(json.dumps(line) + "\n")


def proxies() -> list[dict[str, Any]]:
    """Every proxy that runs, the oldest first."""
    found = []
    try:
        names = os.listdir(folder())  # noqa: PTH208
    except OSError:
        return []
    for name in names:
        if not name.endswith(".json"):  # being written
            continue
        path = f"{folder()}/{name}"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                told = dict(json.load(file))
            if told["started"] and told["started"] == _started(told["pid"]):
                found.append(told)
            else:
                os.unlink(path)  # noqa: PTH108
    return sorted(found, key=lambda one: str(one.get("since")))


def _started(pid: int) -> str:
    """When the kernel started this process, in its ticks (proc_pid_stat(5)): numbers of processes
    are used again. Empty for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            facts = file.read().rpartition(")")[2].split()
        return "" if facts[0] == "Z" else facts[19]
    except (OSError, IndexError):
        return ""
