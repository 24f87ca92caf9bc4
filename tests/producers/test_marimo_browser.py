"""marimo's own page in a real browser, headless: what it does beyond the requests of our tests'."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, until
from tests.producers.marimos import missing, notebook, serving
from tests.producers.test_marimo import COMPLETED, FAILED, FAULTY
from tests.producers.test_marimo_edit import kernel_of

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH (Debian: chromium)"),
    pytest.mark.xdist_group("marimo"),
]


class Browser:
    """Chromium with one page, over its DevTools protocol."""

    def __init__(self, socket_: Any) -> None:
        self._socket, self._number = socket_, 0

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command and its answer; events in between are passed over."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=30))
            if answer.get("id") == self._number:
                return dict(answer.get("result", {}))  # none while the page is being loaded

    def evaluate(self, expression: str) -> Any:
        """JavaScript in the page."""
        given = self.do("Runtime.evaluate", expression=expression, awaitPromise=True)
        return given.get("result", {}).get("value")


@contextmanager
def browsing(address: str, folder: Path) -> Iterator[Browser]:
    """The page at the address, until the body ends."""
    from websockets.sync.client import connect

    argv = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio"]
    argv += [f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        told = folder / "DevToolsActivePort"
        until(lambda: told.is_file() and len(told.read_text().splitlines()) == 2)
        port = told.read_text().splitlines()[0]
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        [page] = [one for one in pages if one["type"] == "page"]
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket_:
            browser = Browser(socket_)
            browser.do("Page.navigate", url=address)
            yield browser
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait(60)


def test_a_page_that_is_opened_and_loaded_again(agent: StandInAgent, tmp_path: Path) -> None:
    """A click on "run all" tells the failure and the run; the page shows the error as without us;
    loading it again keeps the kernel, and marimo logs no error."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    (tmp_path / "profile").mkdir()
    with (
        serving("edit", path) as server,
        browsing(f"http://127.0.0.1:{server.port}/?file={path}", tmp_path / "profile") as browser,
    ):
        # the last of them is the notebook's own, for all cells; it is off until the page is ready
        click = """(() => {
            const all = [...document.querySelectorAll('[data-testid=run-button]')];
            if (!all.length || all.at(-1).classList.contains('disabled')) return false;
            all.at(-1).click();
            return true;
        })()"""
        until(lambda: browser.evaluate(click) is True)
        agent.wait_for(lambda events: len(events) >= 2)
        assert [event["topic"] for event in agent.events] == [FAILED, COMPLETED]
        shows = "document.body.innerText.includes(\"'region'\")"
        until(lambda: browser.evaluate(shows) is True)
        kernel = kernel_of(server)
        browser.do("Page.reload")
        until(lambda: browser.evaluate("document.readyState") == "complete")
        until(lambda: browser.evaluate(shows) is True)
        assert kernel_of(server) == kernel
        log = server.log.read_text()
    assert "AttributeError" not in log
    assert "Failed to handle" not in log
