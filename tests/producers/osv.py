"""A server that answers as OSV does (POST /v1/query), on loopback: a stand-in for the database."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Osv(ThreadingHTTPServer):
    """`known`: advisories by package; `asked`: names and versions in the order of the questions."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.known: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[tuple[str, str]] = []

    @property
    def options(self) -> list[str]:
        """What pip-audit is told, to ask here."""
        return ["-s", "osv", "--osv-url", f"http://127.0.0.1:{self.server_port}/v1/query"]

    def advise(self, package: str, vuln_id: str, *, alias: str = "", fixed: str = "") -> None:
        """Every version of a package has this, up to `fixed`."""
        events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
        one = {
            "id": vuln_id,
            "aliases": [alias] if alias else [],
            "summary": f"about {vuln_id}",
            "modified": "2026-01-01T00:00:00Z",
            "published": "2026-01-01T00:00:00Z",
            "affected": [
                {
                    "package": {"name": package, "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": events}],
                }
            ],
        }
        others = [other for other in self.known.get(package, ()) if other["id"] != vuln_id]
        self.known[package] = [*others, one]


class _Handler(BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name, version = asked["package"]["name"], asked["version"]
        self.server.asked.append((name, version))
        found = [
            one
            for one in self.server.known.get(name, ())
            if version not in (e.get("fixed") for e in one["affected"][0]["ranges"][0]["events"])
        ]
        answer = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[Osv]:
    """A server that answers until the block ends."""
    server = Osv()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
