"""What a language server costs behind `opsmesh lsp`: round trips, a big message, the start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from figure import Figure, FigureError, Target
from lab import Lab

#: The command, as an editor finds it on PATH.
OPSMESH: Final = Path(sys.executable).with_name("opsmesh")
#: Milliseconds that the proxy may add to a round trip, at the median.
ADDED: Final = 0.15
#: Seconds between two round trips: nobody types faster.
PAUSE: Final = 0.002
#: Round trips of one side before the other has its turn.
TURN: Final = 20
#: Size of the big message, bytes.
BIG: Final = 10_000_000


class Server:
    """A language server, and its editor's side of the streams."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise FigureError("no pipes")
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._held = b""

    def send(self, message: Any) -> None:
        body = json.dumps(message).encode()
        self.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to, data) :]

    def answer(self, id: int) -> Any:
        """The answer to a request; what comes before it is passed over."""
        while True:
            message = self.next()
            if message.get("id") == id and "method" not in message:
                return message

    def next(self) -> Any:
        while b"\r\n\r\n" not in self._held:
            self._more()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(self._held) < length:
            self._more()
        body, self._held = self._held[:length], self._held[length:]
        return json.loads(body)

    def _more(self) -> None:
        data = os.read(self._from, 1 << 16)
        if not data:
            raise FigureError("the server has gone")
        self._held += data

    def trip(self, request: bytes, length: int) -> float:
        """Milliseconds until an answer of this length is here."""
        began, came = time.perf_counter(), 0
        self.write(request)
        while came < length:
            came += len(os.read(self._from, 1 << 16))
        return (time.perf_counter() - began) * 1e3

    def end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.kill()
        self._process.wait()


async def proxied(lab: Lab) -> list[Figure]:
    """Milliseconds that the proxy adds: a server that answers at once, and a real one; a message
    of 10 MB; the start."""
    if not OPSMESH.exists():
        raise FigureError("opsmesh is not installed beside this Python")
    env = {**os.environ, "XDG_STATE_HOME": str(lab.folder), "XDG_RUNTIME_DIR": str(lab.folder)}
    figures = [await _trips(lab, env, "echo", ["cat"])]
    if (ruff := Path(sys.executable).with_name("ruff")).exists():
        figures.append(await _trips(lab, env, "ruff", [str(ruff), "server"]))
    return [*figures, await _big(lab, env), await _start(lab, env)]


async def _rest(lab: Lab) -> None:
    """Until no relay and no observer is left: they would meet what is measured next."""
    deadline = time.monotonic() + 30
    while _left(str(lab.folder)) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def _left(folder: str) -> bool:
    """Whether a process of this figure runs: its environment names the folder."""
    mark = os.fsencode(f"XDG_STATE_HOME={folder}") + b"\0"
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes():
                return True
    return False


@contextlib.contextmanager
def _both(command: Sequence[str], env: dict[str, str]) -> Iterator[tuple[Server, Server]]:
    """The server behind the proxy, and by itself."""
    ours = Server([str(OPSMESH), "lsp", "--", *command], env)
    plain = Server(command, env)
    try:
        yield ours, plain
    finally:
        ours.end()
        plain.end()


async def _trips(lab: Lab, env: dict[str, str], name: str, command: Sequence[str]) -> Figure:
    turns = lab.amount(20, least=3)
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(lab.rounds):
        with _both(command, env) as sides:
            requests = [_begun(side, name) for side in sides]
            found: list[list[float]] = [[], []]
            for _ in range(turns):
                for side, request, times in zip(sides, requests, found, strict=True):
                    for _ in range(TURN):
                        times.append(side.trip(*request))
                        await asyncio.sleep(PAUSE)
        await _rest(lab)
        ours.append(median(found[0]))
        plain.append(median(found[1]))
    return Figure(
        name=f"lsp_{name}",
        what=f"what the proxy adds to a round trip with {name}, median",
        unit="ms",
        ours=[a - b for a, b in zip(ours, plain, strict=True)],
        target=Target(of="value", at="most", limit=ADDED),
        details={"trips": turns * TURN, "with": ours, "without": plain},
    )


def _begun(server: Server, name: str) -> tuple[bytes, int]:
    """Begin a conversation; a request of it, and the length of its answer."""
    if name == "echo":
        # what comes back is the answer of a server that does not ask for saves
        server.send({"id": 1, "result": {"capabilities": {"textDocumentSync": {"change": 2}}}})
        server.next()
        body = json.dumps({"id": 2, "method": "textDocument/hover", "params": {"x": "x" * 200}})
        request = f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        return request, len(request)
    server.send(
        {
            "id": 1,
            "method": "initialize",
            "params": {"processId": os.getpid(), "rootUri": None, "capabilities": {}},
        }
    )
    server.answer(1)
    document = {"uri": "file:///bench.py", "languageId": "python", "version": 1, "text": "x = 1\n"}
    server.send({"method": "initialized", "params": {}})
    server.send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
    params = {"textDocument": {"uri": document["uri"]}, "options": {"tabSize": 4}}
    ask = {"id": 7, "method": "textDocument/formatting", "params": params}
    params["options"] = {"tabSize": 4, "insertSpaces": True}
    server.send(ask)
    answer = server.answer(7)
    if answer.get("result", 0) is not None:
        raise FigureError(f"ruff answers {answer}")
    body = json.dumps(ask)
    length = len(json.dumps({"jsonrpc": "2.0", "id": 7, "result": None}, separators=(",", ":")))
    return f"Content-Length: {len(body)}\r\n\r\n{body}".encode(), length + len(
        f"Content-Length: {length}\r\n\r\n"
    )


async def _big(lab: Lab, env: dict[str, str]) -> Figure:
    body = json.dumps({"id": 2, "method": "x", "params": "x" * BIG})
    request = f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(lab.rounds):
        with _both(["cat"], env) as sides:
            for side, times in zip(sides, (ours, plain), strict=True):
                _begun(side, "echo")
                sending = threading.Thread(target=side.write, args=(request,))
                began = time.perf_counter()
                sending.start()
                side.trip(b"", len(request))
                times.append((time.perf_counter() - began) * 1e3)
                sending.join()
        await _rest(lab)
    return Figure(
        name="lsp_big",
        what="a message of 10 MB, there and back",
        unit="ms",
        ours=ours,
        beside="the server by itself",
        plain=plain,
    )


async def _start(lab: Lab, env: dict[str, str]) -> Figure:
    amount = lab.amount(20, least=5)
    true = shutil.which("true") or "true"
    python = [sys.executable, "-I", "-S", "-c", "pass"]

    def seconds(command: Sequence[str]) -> float:
        began = time.perf_counter()
        for _ in range(amount):
            subprocess.run(command, env=env, check=True, stdin=subprocess.DEVNULL)
        return (time.perf_counter() - began) / amount * 1e3

    ours: list[float] = []
    plain: list[float] = []
    for _ in range(lab.rounds):
        plain.append(seconds(python))
        ours.append(seconds([str(OPSMESH), "lsp", "--", true]))
        await _rest(lab)
    return Figure(
        name="lsp_start",
        what="the whole process, with `true` for a server",
        unit="ms",
        ours=ours,
        beside="python -I -S -c pass",
        plain=plain,
    )
