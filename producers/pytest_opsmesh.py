"""pytest plugin: each failing test becomes an event of the mesh.

A top-level module on the standard library alone, for it is loaded into any project's pytest. It
never blocks, never fails a test and prints nothing unless asked (`--opsmesh-verbose`). A failure
is sent to the agent's socket at once, without waiting; the answers are collected when the session
ends, for ANSWERS seconds at most. What is not acknowledged by then goes to the spool, under the
same id: the broker drops the second copy. With no agent, the spool takes it.

`OPSMESH_PYTEST=0` or `-p no:pytest_opsmesh` turns it off. The wire and the spool are described in
docs/architecture.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
import zlib
from datetime import datetime, timezone
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Bytes kept of the end of pytest's report of a failure, and characters of its message.
LONGREPR_TAIL = 8 * 1024
MESSAGE_HEAD = 2000
#: Seconds that the end of a session may wait for the agent's answers, in all.
ANSWERS = 1.0
#: Seconds between two writes to the spool, or tries to reach an agent, during a session.
PAUSE = 1.0
#: The unit in which the spool is measured.
BLOCK = 4096
#: Bytes of answers read at once.
CHUNK = 64 * 1024
#: In pytest's cache: where this session runs, and where each test passed last. Who diagnoses a
#: failure compares the two (the collector `since_passed`).
SESSION, PASSED = "opsmesh/session", "opsmesh/passed"
#: Tests whose last good environment is remembered.
MAX_PASSED = 50_000
#: Variables that change how tests behave, and hold no secret.
VARIABLES = (
    *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ", "PYTHONHASHSEED"),
    *("PYTEST_ADDOPTS", "DJANGO_SETTINGS_MODULE"),
)


def pytest_addoption(parser: Any) -> None:
    """Add `--opsmesh-verbose`."""
    group = parser.getgroup("opsmesh")
    group.addoption(
        "--opsmesh-verbose",
        action="store_true",
        default=False,
        help="say at the end how many failures were sent to opsmesh",
    )


def pytest_configure(config: Any) -> None:
    """Report from the one process that sees every result: under xdist, the controller."""
    if hasattr(config, "workerinput") or os.environ.get("OPSMESH_PYTEST") == "0":
        return
    if not config.pluginmanager.has_plugin("opsmesh-reporter"):
        config.pluginmanager.register(Reporter(config), "opsmesh-reporter")


class Reporter:
    """Turns reports into events. An error of its own never reaches the test run."""

    def __init__(self, config: Any) -> None:
        environ = os.environ
        self._verbose = bool(config.getoption("--opsmesh-verbose", default=False))
        self._root = str(config.rootpath)
        self._run_id = environ.get("OPSMESH_RUN_ID") or _uuid7()
        self._correlation_id = environ.get("OPSMESH_CORRELATION_ID") or self._run_id
        self._causation_id = environ.get("OPSMESH_EVENT_ID")
        hops = environ.get("OPSMESH_HOPS", "")
        self._hops = int(hops) if hops.isdecimal() else None
        self._editor = _editor(environ)
        self._totals = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}
        self._outbox = Outbox()
        self._boot_id, self._seq = _uuid7(), 0
        self._mark = _Mark(environ.get("OPSMESH_PYTEST_MARKS", ""))
        self._cache = getattr(config, "cache", None)
        self._here: dict[str, Any] = {}
        self._passed: list[str] = []

    def pytest_sessionstart(self) -> None:
        """Note where the tests run, before one fails."""
        with contextlib.suppress(Exception):
            self._here = _environment(self._root)
            if self._cache is not None:
                self._cache.set(SESSION, self._here)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note which test runs, for `opsmesh exec`, should this process vanish."""
        self._mark.write(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A phase of a test ended."""
        if report.failed:
            self._totals["failed" if report.when == "call" else "errors"] += 1
            # an xdist worker that died reports the test it was in with the phase "???"
            phase = report.when if report.when in ("setup", "call", "teardown") else "crash"
            self._failed(report, phase)
        elif report.skipped:
            self._totals["skipped"] += 1
        elif report.when == "call":
            self._totals["passed"] += 1
            self._passed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        """A file or folder was collected."""
        if report.failed:
            self._totals["errors"] += 1
            self._failed(report, "collect")

    def pytest_sessionfinish(self) -> None:
        """Make sure that every failure is with the agent or in the spool."""
        with contextlib.suppress(Exception):
            self._outbox.finish()
        self._mark.remove()
        with contextlib.suppress(Exception):
            self._note_passed()

    def _note_passed(self) -> None:
        if self._cache is None or not self._passed or not self._here:
            return
        known = self._cache.get(PASSED, {})
        tests, places = dict(known.get("tests", {})), dict(known.get("environments", {}))
        name = str(zlib.crc32(json.dumps(self._here, sort_keys=True).encode()))
        places[name] = {**self._here, "time": _now()}
        for nodeid in self._passed:
            tests.pop(nodeid, None)  # the newest last: what is forgotten is the oldest
            tests[nodeid] = name
        tests = dict(list(tests.items())[-MAX_PASSED:])
        used = set(tests.values())
        places = {key: value for key, value in places.items() if key in used}
        self._cache.set(PASSED, {"environments": places, "tests": tests})

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was sent, when asked to."""
        if self._verbose:
            terminalreporter.write_line(f"opsmesh: {self._outbox.summary()}")

    def _failed(self, report: Any, phase: str) -> None:
        try:
            self._outbox.add(*self._events(report, phase))
        except Exception as error:  # a plugin that observes must never be the failure
            self._outbox.errors.append(f"{type(error).__name__}: {error}")

    def _events(self, report: Any, phase: str) -> list[tuple[str, bytes]]:
        payload = {**_facts(report), "phase": phase, "rootdir": self._root, "totals": self._totals}
        events = [self._event("python.test.failed", report, payload)]
        if self._editor:
            events.append(self._event("editor.test.failed", report, self._for_editor(payload)))
        return events

    def _for_editor(self, payload: dict[str, Any]) -> dict[str, Any]:
        same = ("nodeid", "message", "path", "duration_ms")
        return {
            **{name: payload[name] for name in same if name in payload},
            "line": payload.get("lineno"),
            "output_tail": payload.get("longrepr"),
            "editor": self._editor,
        }

    def _event(self, topic: str, report: Any, payload: dict[str, Any]) -> tuple[str, bytes]:
        event_id = _uuid7()
        self._seq += 1  # whatever becomes of it: a number that is missing is an event that is
        event = {
            "topic": topic,
            "ts_utc": _now(),
            "source": "pytest",
            "component": report.nodeid.partition("::")[0] or "pytest",
            "correlation_id": self._correlation_id,
            "session_id": os.environ.get("XDG_SESSION_ID", ""),
            "workspace": os.environ.get("OPSMESH_WORKSPACE") or self._root,
            "payload": {name: value for name, value in payload.items() if value is not None},
            "run_id": self._run_id,
            "duration_ms": payload.get("duration_ms"),
            "id": event_id,
            "causation_id": self._causation_id,
            "hops": self._hops,
            "schema_version": "1.0",
            "seq": self._seq,
            "boot_id": self._boot_id,
            "_reply": True,
        }
        known = {name: value for name, value in event.items() if value is not None}
        line = json.dumps(known).encode()  # ASCII: lone surrogates stay escapes
        return event_id, line


def _environment(root: str) -> dict[str, Any]:
    """What a test may depend on beside its code; nothing is started to find out."""
    packages: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder or "."):  # noqa: PTH208 (a third of iterdir's time)
                name, dash, version = entry.removesuffix(".dist-info").partition("-")
                if dash and entry.endswith(".dist-info"):
                    packages.setdefault(name.lower().replace("_", "-"), version)
    return {
        "head": _head(Path(root)),
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "platform": f"{os.uname().sysname} {os.uname().release} {os.uname().machine}",
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "packages": packages,
    }


def _head(folder: Path) -> str | None:
    """The commit that is checked out, from git's own files (gitrepository-layout(5))."""
    with contextlib.suppress(OSError, IndexError):
        for top in (folder, *folder.parents):
            git = top / ".git"
            if git.is_file():  # a worktree's
                git = top / git.read_text().removeprefix("gitdir:").strip()
            if not (git / "HEAD").exists():
                continue
            head = (git / "HEAD").read_text().strip()
            if not head.startswith("ref: "):
                return head
            common = git
            if (git / "commondir").exists():
                common = git / (git / "commondir").read_text().strip()
            ref = head[5:]
            if (common / ref).exists():
                return (common / ref).read_text().strip()
            for line in (common / "packed-refs").read_text().splitlines():
                commit, _, name = line.partition(" ")
                if name == ref:
                    return commit
            return None
    return None


def _facts(report: Any) -> dict[str, Any]:
    longrepr = report.longrepr
    crash = getattr(longrepr, "reprcrash", None)
    text = getattr(report, "longreprtext", None) or str(longrepr)
    location = getattr(report, "location", None)
    message = getattr(crash, "message", None) or _last_line(text)
    path = getattr(crash, "path", None) or (location[0] if location else None)
    lineno = getattr(crash, "lineno", None)
    if lineno is None and location and location[1] is not None:
        lineno = location[1] + 1
    duration = getattr(report, "duration", None)
    return {
        "nodeid": report.nodeid,
        "message": message[:MESSAGE_HEAD],
        "path": str(path or report.nodeid.partition("::")[0]) or None,
        "lineno": lineno,
        "duration_ms": None if duration is None else round(duration * 1000, 3),
        "longrepr": _tail(text, LONGREPR_TAIL),
        "worker": _worker(report),
    }


def _worker(report: Any) -> str | None:
    gateway = getattr(getattr(report, "node", None), "gateway", None)
    worker = getattr(gateway, "id", None) or getattr(report, "worker_id", None)
    return str(worker) if worker else None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _tail(text: str, limit: int) -> str:
    data = text.encode("utf-8", "backslashreplace")
    return data[-limit:].decode("utf-8", "ignore")


def _editor(environ: Any) -> str | None:
    if environ.get("NVIM"):
        return "neovim"
    if environ.get("TERM_PROGRAM") == "vscode" or environ.get("VSCODE_PID"):
        return "vscode"
    return None


def _now() -> str:
    now = datetime.now(timezone.utc)  # noqa: UP017 (any project's Python, also before 3.11)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _uuid7() -> str:
    value = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Outbox:
    """Events on their way: to the agent without waiting, and to the spool where that fails."""

    def __init__(self) -> None:
        state, runtime = _folders()
        self._spool_dir = state + "/spool"
        self._socket_path = runtime + "/ingest.sock"
        self._socket: socket.socket | None = None
        self._unsent = bytearray()
        self._answers = bytearray()
        self._waiting: dict[str, bytes] = {}
        self._tried = float("-inf")
        self._files = 0
        self.sent = 0
        self.spooled = 0
        self.errors: list[str] = []

    def summary(self) -> str:
        """What became of the events, in one line."""
        text = f"{self.sent} sent, {self.spooled} spooled"
        return text if not self.errors else f"{text}, {len(self.errors)} lost: {self.errors[0]}"

    def add(self, *events: tuple[str, bytes]) -> None:
        """Take events, and send what the socket takes without waiting."""
        for event_id, line in events:
            self._waiting[event_id] = line
            if self._socket is not None:
                self._unsent += line + b"\n"
        if self._socket is None and time.monotonic() - self._tried >= PAUSE:
            self._tried = time.monotonic()
            self._connect()
            if self._socket is None:
                self._spool()
        self._pump()

    def finish(self) -> None:
        """Collect answers for ANSWERS seconds at most; the spool takes what has none."""
        deadline = time.monotonic() + ANSWERS
        if self._waiting and self._socket is None:
            self._connect()
        while self._waiting and self._socket is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            poll.poll(left * 1000)
            self._pump()
        self._close()
        self._spool()

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(self._socket_path)  # local: succeeds or fails at once
        except OSError:
            connection.close()
            return
        self._socket = connection
        self._unsent = bytearray(b"".join(line + b"\n" for line in self._waiting.values()))

    def _pump(self) -> None:
        if self._socket is None:
            return
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        self._receive(self._socket)

    def _receive(self, connection: socket.socket) -> None:
        try:
            while chunk := connection.recv(CHUNK):
                self._answers += chunk
            self._close()
        except BlockingIOError:
            pass
        except OSError:
            self._close()
        *lines, rest = bytes(self._answers).split(b"\n")
        self._answers = bytearray(rest)
        for line in lines:
            self._answered(line)

    def _answered(self, line: bytes) -> None:
        # answers come in the order of the requests, so the oldest one is meant
        answer = json.loads(line)
        event_id = next(iter(self._waiting), None)
        if event_id is None:
            return
        del self._waiting[event_id]
        if answer.get("ok"):
            self.sent += 1
        else:
            self.errors.append(str(answer.get("error")))

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._unsent.clear()
        self._answers.clear()

    def _spool(self) -> None:
        """Write what waits to one file of the spool: whole and on disk, or not there."""
        if not self._waiting:
            return
        try:
            folder = Path(self._spool_dir)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files += 1
            name = f"{time.time_ns():020d}-{os.getpid()}-{self._files}.spool"
            lines = [*self._waiting.values(), b"=%d" % len(self._waiting)]  # the end is the count
            data = b"".join(_record(line) for line in lines)
            used, limit, policy = _room(self._spool_dir)
            blocks = -(-len(data) // BLOCK)
            if used + blocks * BLOCK > limit and policy != "drop_oldest":
                self._count_lost(name, policy)
                self.errors.append(f"the spool is full: {used} bytes of spool.max_bytes {limit}")
                return
            temporary = folder / f".{name}"
            with open(temporary, "xb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(folder / name)
            _sync(self._spool_dir)
            with (
                contextlib.suppress(OSError),
                open(folder / ".used", "ab", opener=_private) as gauge,
            ):
                gauge.write(bytes(blocks))
        except OSError as error:
            self.errors.append(str(error))
            return
        self.spooled += len(self._waiting)
        self._waiting.clear()

    def _count_lost(self, name: str, policy: str) -> None:
        """What nobody keeps is in the spool's log of losses, for the agent to tell."""
        size, now = sum(map(len, self._waiting.values())), _now()
        loss = {
            "source": "pytest",
            "events": len(self._waiting),
            "bytes": size,
            "reasons": [policy],
        }
        entry = {"name": name, "losses": [{**loss, "from_time": now, "to_time": now}]}
        with open(f"{self._spool_dir}/dropped.log", "ab", opener=_private) as file:
            file.write(b"\n" + _record(json.dumps(entry).encode()))
            file.flush()
            os.fsync(file.fileno())
        self._waiting.clear()


class _Mark:
    """A file that is there while pytest runs, and names the test: what a vanished run leaves."""

    def __init__(self, folder: str) -> None:
        self._path = f"{folder}/{os.getpid()}" if folder else ""
        self._fd = -1
        if self._path:
            with contextlib.suppress(OSError):
                self._fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def write(self, nodeid: str) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                data = nodeid.encode("utf-8", "replace")
                os.pwrite(self._fd, data, 0)
                os.ftruncate(self._fd, len(data))

    def remove(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
                Path(self._path).unlink()
            self._fd = -1


def _folders() -> tuple[str, str]:
    """The mesh's state and runtime folders, after the XDG base directory specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        state = str(Path.home() / ".local/state")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    state += "/opsmesh"
    return state, runtime + "/opsmesh" if runtime.startswith("/") else state + "/run"


def _record(line: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(line), line)


def _room(spool: str) -> tuple[int, int, str]:
    """Bytes in the spool, how many it may hold, and what happens to more (ADR 0012)."""
    used, limit, policy = 0, 1 << 30, "refuse"
    with contextlib.suppress(OSError):
        used = Path(spool, ".used").stat().st_size * BLOCK
    with contextlib.suppress(OSError, ValueError):
        size, policy = Path(spool, ".limits").read_text().split()
        limit = int(size)
    return used, limit, policy


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
