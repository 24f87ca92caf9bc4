"""A headless Chromium over its own protocol, through a pipe: no port, no library."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PATIENCE


class Browser:
    """One page. `errors` are what its scripts said was wrong, with what the policy has refused."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process, self._to, self._back = process, to, back
        self._rest = b""
        self._next = 0
        self._session: str | None = None
        self.errors: list[str] = []
        #: Addresses that were asked for.
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command's answer."""
        self._next += 1
        told: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session is not None:
            told["sessionId"] = self._session
        os.write(self._to, json.dumps(told).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._message(deadline)
            if message.get("id") == self._next:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _message(self, deadline: float) -> Any:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._back], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "chromium does not answer"
            data = os.read(self._back, 1 << 20)
            assert data, "chromium has ended"
            self._rest += data
        first, _, self._rest = self._rest.partition(b"\0")
        return json.loads(first)

    def _note(self, message: Any) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:2000])
        elif message.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            if entry["level"] == "error":
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")
        elif message.get("method") == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])

    def size(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """The window, and what its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def go(self, address: str) -> None:
        """To an address."""
        self.call("Page.navigate", url=address)

    def js(self, expression: str) -> Any:
        """A script's value."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, *, timeout: float = PATIENCE) -> None:
        """Return once the script's value is true."""
        deadline = time.monotonic() + timeout
        while not self.js(f"(() => {{ try {{ return !!({expression}) }} catch {{}} }})()"):
            assert time.monotonic() < deadline, (
                f"{expression}: {self.js('document.body.innerText')}"
            )
            time.sleep(0.05)

    def key(self, key: str) -> None:
        """A key that is pressed, by its name in `KeyboardEvent.key`."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, file: Path) -> None:
        """What is seen, as PNG."""
        found = self.call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A page of a Chromium of the test's own; without one the test is skipped, in CI it fails."""
    program = shutil.which("chromium")
    if program is None:
        reason = "chromium is not on PATH (Debian: chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    wanted = ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions")
    with tempfile.TemporaryDirectory(
        prefix="opsmesh-browser-", ignore_cleanup_errors=True
    ) as profile:
        process = subprocess.Popen(
            # fd 3 is what Chromium reads, 4 what it writes
            [
                *("bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{back_write}', program, *wanted),
                *("--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
            ],
            pass_fds=(to_read, back_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(back_write)
        try:
            yield Browser(process, to_write, back_read)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
            os.close(to_write)
            os.close(back_read)
