"""The QML engine as a child process: what a test says to OpsMesh, and what it has then."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from opsmesh.producers.quickshell import wiring

HOST: Final = Path(__file__).with_name("qml_host.py")
#: Imports everything that the host needs; its exit code says whether the libraries are there.
TRY: Final = (
    "from PySide6.QtGui import QGuiApplication; import PySide6.QtQuick, PySide6.QtNetwork;"
    "QGuiApplication([])"
)


def engine() -> None:
    """Skip where the Qt engine cannot run; in CI that is a failure."""
    if why := _problem():
        assert not os.environ.get("CI"), why
        pytest.skip(why)


@cache
def _problem() -> str:
    if importlib.util.find_spec("PySide6") is None:
        return "PySide6-Essentials is not installed (the dev extra)"
    tried = subprocess.run([sys.executable, "-c", TRY], env=_env(), capture_output=True)
    if not tried.returncode:
        return ""
    why = "Qt does not start (Debian: libegl1 libgl1 libxkbcommon0 libfontconfig1): "
    return why + tried.stderr.decode(errors="replace").strip()[-200:]


class Qml:
    """One engine with the singleton in it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def say(self, **asked: Any) -> dict[str, Any]:
        """One request, and all that OpsMesh shows after it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], 60)
        assert readable, "the engine does not answer"
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def call(self, name: str, *args: Any) -> Any:
        """A function of OpsMesh, and what it gives."""
        return self.say(call=name, args=args)["out"]

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """What OpsMesh shows, once that is so."""
        deadline = time.monotonic() + 60
        while not condition(state := self.say()):
            assert time.monotonic() < deadline, state
            time.sleep(0.01)
        return state


#: Quickshell's names, for the linter alone.
DECLARED: Final = {
    "Quickshell": {
        "Singleton": "",
        "Quickshell": "function env(name: string): var { return name; }",
    },
    "Quickshell/Io": {
        "SplitParser": "signal read(data: string)",
        "Socket": "property bool connected\nproperty string path\nproperty QtObject parser\n"
        "function write(data: string) {}\nfunction flush() {}",
    },
}


def lint(folder: Path) -> str:
    """What qmllint says of the module's files; files that are there are taken as they are."""
    _module(folder)
    for name, types in DECLARED.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        known = [f"module {name.replace('/', '.')}"]
        for kind, body in types.items():
            alone = kind == "Quickshell"
            text = f"{'pragma Singleton' if alone else ''}\nimport QtQml\nQtObject {{\n{body}\n}}\n"
            (folder / name / f"{kind}.qml").write_text(text)
            known.append(f"{'singleton ' if alone else ''}{kind} 1.0 {kind}.qml")
        (folder / name / "qmldir").write_text("\n".join(known) + "\n")
    tool = Path(sys.executable).with_name("pyside6-qmllint")
    files = [str(folder / "qs/opsmesh" / name) for name in wiring.FILES]
    done = subprocess.run(
        [str(tool), "-I", str(folder), "--max-warnings", "0", *files],
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr if done.returncode else ""


@contextmanager
def quickshell(folder: Path) -> Iterator[Qml]:
    """An engine that finds the module as Quickshell lets it be found."""
    _module(folder)
    with (folder / "qml.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(HOST), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_env(),
        )
    try:
        yield Qml(process)
    finally:
        process.communicate(timeout=60)
    assert process.returncode == 0, (folder / "qml.log").read_text()


def _module(folder: Path) -> None:
    module = folder / "qs/opsmesh"
    if not module.exists():
        module.mkdir(parents=True)
        for name in wiring.FILES:
            (module / name).write_text(wiring.text(name))
        # what Quickshell's scanner makes of that folder (0.3.1, src/core/scan.cpp)
        (module / "qmldir").write_text(
            "module qs.opsmesh\nsingleton OpsMesh 1.0 OpsMesh.qml\nExample 1.0 Example.qml\n"
        )


def _env() -> dict[str, str]:
    return {**os.environ, "QT_QPA_PLATFORM": "offscreen", "QT_QUICK_BACKEND": "software"}
