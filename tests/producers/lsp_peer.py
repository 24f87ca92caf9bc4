"""A stand-in language server: `lsp_peer.py SYNC LOG`. It answers every request, says of its
documents what SYNC says (JSON), and writes the method of each message into LOG."""

from __future__ import annotations

import json
import sys
from typing import Any


def send(message: dict[str, Any]) -> None:
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    sys.stdout.buffer.flush()


def receive() -> dict[str, Any] | None:
    length = 0
    while line := sys.stdin.buffer.readline():
        if not line.strip():
            return dict(json.loads(sys.stdin.buffer.read(length)))
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return None


def main(sync: str, log: str) -> None:
    while (message := receive()) is not None:
        method = message.get("method", "answer")
        with open(log, "a") as file:  # noqa: PTH123
            file.write(f"{method}\n")
        if method == "initialize":
            capabilities = {"textDocumentSync": json.loads(sync)}
            send({"id": message["id"], "result": {"capabilities": capabilities}})
        elif method == "register":
            wanted = {"id": "s", "method": "textDocument/didSave"}
            send(
                {
                    "id": 1,
                    "method": "client/registerCapability",
                    "params": {"registrations": [wanted]},
                }
            )
            send({"id": message["id"], "result": None})
        elif method == "exit":
            return
        elif "id" in message and method != "answer":
            send({"id": message["id"], "result": message.get("params")})


if __name__ == "__main__":
    main(*sys.argv[1:])
