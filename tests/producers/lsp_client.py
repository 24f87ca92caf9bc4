"""An editor's side of the Language Server Protocol, as small as it can be: any editor stands for
Helix, which no registry has."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

#: The command, as an editor calls it.
LSP: Final = (sys.executable, "-P", "-m", "opsmesh.cli.entry", "lsp")
FORMAT: Final = "textDocument/formatting"


class Editor:
    """One conversation; `server` is whatever speaks LSP on its standard input and output."""

    def __init__(self, server: Sequence[str], log: Path) -> None:
        with log.open("ab") as said:
            self.process = subprocess.Popen(
                server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
        self.seen: list[dict[str, Any]] = []
        self._id = 0

    def begin(self, root: Path, name: str = "Helix", **capabilities: Any) -> dict[str, Any]:
        """The capabilities that the server answers with."""
        known = {
            "synchronization": {"didSave": True},
            "publishDiagnostics": {"versionSupport": True},
            "formatting": {},
            **capabilities,
        }
        found = self.ask(
            "initialize",
            processId=os.getpid(),
            rootUri=root.as_uri(),
            clientInfo={"name": name, "version": "1"},
            capabilities={"textDocument": known},
        )
        self.tell("initialized")
        return dict(found["result"]["capabilities"])

    def open(self, path: Path, language: str, text: str) -> None:
        path.write_text(text)
        self.tell(
            "textDocument/didOpen",
            textDocument={"uri": path.as_uri(), "languageId": language, "version": 1, "text": text},
        )

    def change(self, path: Path, version: int, text: str) -> None:
        self.tell(
            "textDocument/didChange",
            textDocument={"uri": path.as_uri(), "version": version},
            contentChanges=[{"text": text}],
        )

    def save(self, path: Path) -> None:
        self.tell("textDocument/didSave", textDocument={"uri": path.as_uri()})

    def format(self, path: Path) -> dict[str, Any]:
        options = {"tabSize": 4, "insertSpaces": True}
        return self.ask(FORMAT, textDocument={"uri": path.as_uri()}, options=options)

    def tell(self, method: str, **params: Any) -> None:
        self.send({"method": method, "params": params})

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer; what comes before it is in `seen`."""
        self._id += 1
        message: dict[str, Any] = {"id": self._id, "method": method}
        self.send({**message, "params": params} if params else message)
        while True:
            found = self.next()
            if found.get("id") == self._id and "method" not in found:
                return found

    def until(self, method: str) -> dict[str, Any]:
        """The next message with this method."""
        while (found := self.next()).get("method") != method:
            pass
        return found

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.process.stdin.flush()

    def next(self) -> dict[str, Any]:
        """The next message; requests of the server are answered with nothing."""
        stream = self.process.stdout
        assert stream is not None
        length = 0
        while line := stream.readline():
            if not line.strip():
                break
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        assert line, "the server has gone"
        message = dict(json.loads(stream.read(length)))
        self.seen.append(message)
        if "id" in message and "method" in message:
            wanted = message["params"].get("items") if message.get("params") else None
            self.send({"id": message["id"], "result": [None] * len(wanted) if wanted else None})
        return message

    def end(self) -> int:
        """Shut the server down; its exit code."""
        self.ask("shutdown")
        self.send({"method": "exit"})
        return self.leave()

    def leave(self) -> int:
        """Close the server's input; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(60)


@contextmanager
def editing(server: Sequence[str], log: Path) -> Iterator[Editor]:
    """An editor whose server is gone afterwards."""
    editor = Editor(server, log)
    try:
        yield editor
    finally:
        editor.process.kill()
        editor.process.wait()
        for stream in (editor.process.stdin, editor.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
