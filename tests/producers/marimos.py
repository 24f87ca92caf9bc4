"""Real marimo for the tests of its plug-in: notebooks, exports, a server and its page's requests.

The page is a websocket and the requests that marimo's own page makes; a real browser drives it once
(`test_marimo_browser.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import free_ports
from tests.producers.agent import until

#: Where PyPI's marimo puts its command.
MARIMO = Path(sysconfig.get_path("scripts"), "marimo")


def missing() -> str:
    """What these tests need and this machine has not; empty when all is there."""
    return "" if MARIMO.exists() else "marimo 0.25 (make .venv/.dev)"


def notebook(path: Path, **cells: str) -> Path:
    """A notebook of these cells, by name; what a cell is to give others stands on its last line, as
    `return x,`."""
    parts = ["import marimo\n\napp = marimo.App()\n"]
    for name, code in cells.items():
        body = textwrap.indent(textwrap.dedent(code).strip(), "    ")
        # names of parameters are what the cell takes from others: marimo reads the code itself
        parts.append(f"\n\n@app.cell\ndef {name}():\n{body}\n")
    path.write_text("".join(parts))
    return path


def environment(**more: str) -> dict[str, str]:
    """The test's environment without what would make it another session, or another run."""
    gone = ("OPSMESH_", "TMUX", "STY", "ZELLIJ", "KITTY", "WEZTERM", "PYTEST", "MARIMO", "TERM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
    return {**kept, "MARIMO_SKIP_UPDATE_CHECK": "1", **more}


def environment_of_marimo(folder: Path) -> Path:
    """An environment with marimo and what it needs, and nothing of ours: links to what is
    installed for the tests."""
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python3.*/site-packages"))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "opsmesh" not in entry.name and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    return folder


def export(
    path: Path,
    *before: str,
    env: Mapping[str, str] | None = None,
    python: Path = Path(sys.executable),
) -> subprocess.CompletedProcess[str]:
    """`marimo export html`, which runs the notebook once."""
    marimo = [*before, str(python), "-m", "marimo"]
    command = [*marimo, "export", "html", str(path), "-o", str(path.with_suffix(".html")), "-f"]
    return subprocess.run(
        command,
        env=environment(**(env or {})),
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


class Server:
    """A marimo server of a test's own, and one page of it."""

    def __init__(
        self, mode: str, path: Path, *flags: str, env: Mapping[str, str], token: str = ""
    ) -> None:
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        (self.port,) = free_ports(1)
        self.path = path
        self.log = path.with_suffix(".log")
        command = [str(MARIMO), mode, str(path), "--headless", "-p", str(self.port)]
        command += [] if token else ["--no-token"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *flags],
                env=environment(**env),
                cwd=path.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            until(self._healthy)
            self._token = self._ask()
        except BaseException:
            self.close()
            raise

    def _ask(self) -> str:
        """The token by which the server knows its own pages."""
        address = f"http://127.0.0.1:{self.port}/"
        asked = urllib.request.Request(address, headers=self._headers)
        page = urllib.request.urlopen(asked).read().decode()
        found = re.search(r'serverToken": "([^"]+)"', page)
        assert found is not None, page[:500]
        return found[1]

    def _healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1)
            return True
        return False

    def post(self, path: str, body: Mapping[str, Any], *, session: str) -> int:
        """One of the page's requests; the answer's status."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Marimo-Session-Id": session,
                "Marimo-Server-Token": self._token,
                **self._headers,
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    @contextmanager
    def page(self, session: str = "s_opsmesh") -> Iterator[Page]:
        """A page that is open, its notebook not yet run."""
        from websockets.sync.client import connect

        url = f"ws://127.0.0.1:{self.port}/ws?session_id={session}&file={self.path}"
        with connect(url, additional_headers=self._headers, max_size=None) as socket_:
            page = Page(self, socket_, session)
            page.wait_for("kernel-ready")
            yield page

    def close(self) -> None:
        """End the server, and what it started: a kernel is in a session of its own."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        kernels = [int(pid) for path in tasks for pid in path.read_text().split()]
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)
        for pid in kernels:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Page:
    """What a browser's page does."""

    def __init__(self, server: Server, socket_: Any, session: str) -> None:
        self._server, self._socket, self._session = server, socket_, session

    def post(self, path: str, **body: Any) -> int:
        """A request of this page."""
        return self._server.post(path, body, session=self._session)

    def wait_for(self, operation: str) -> dict[str, Any]:
        """The next message of this kind."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            message = json.loads(self._socket.recv(timeout=30))
            if message["op"] == operation:
                return dict(message)
        raise AssertionError(f"no {operation}")

    def run_all(self) -> None:
        """Run the notebook, as a page does when it is opened."""
        body = {"objectIds": [], "values": [], "autoRun": True}
        assert self.post("/api/kernel/instantiate", **body) == 200
        self.wait_for("completed-run")

    def run(self, **codes: str) -> None:
        """Run these cells, with new code."""
        body = {"cellIds": list(codes), "codes": list(codes.values())}
        assert self.post("/api/kernel/run", **body) == 200


@contextmanager
def serving(
    mode: str,
    path: Path,
    *flags: str,
    env: Mapping[str, str] | None = None,
    token: str = "",
) -> Iterator[Server]:
    """A server that ends with the test."""
    server = Server(mode, path, *flags, env=env or {}, token=token)
    try:
        yield server
    finally:
        server.close()
