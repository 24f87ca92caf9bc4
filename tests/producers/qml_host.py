"""The real Qt QML engine, offscreen, with a STAND-IN for Quickshell's own types.

`python qml_host.py IMPORTS`: one JSON line in, one out. A process of its own, so that
pytest's never loads Qt.

Quickshell is in no package registry here. The stand-ins follow the state machine of Quickshell
0.3.1 (src/io/socket.cpp, src/io/datastream.cpp) over a real QLocalSocket, its traps included: a
Socket whose first attempt failed never connects again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    Property,
    QObject,
    QSocketNotifier,
    QTimer,
    QUrl,
    Signal,
    Slot,
)
from PySide6.QtGui import QGuiApplication
from PySide6.QtNetwork import QLocalSocket
from PySide6.QtQml import (
    QQmlComponent,
    QQmlEngine,
    qmlRegisterSingletonInstance,
    qmlRegisterType,
)
from PySide6.QtQuick import QQuickView

DRIVER = """
import QtQml
import qs.opsmesh

QtObject {
    // Calls with every pair of values that callers should not pass, turn by turn: [ids, thrown].
    property int turn: 0
    function hostile(count) {
        const bare = Object.create(null);
        const ring = []; ring.push(ring);
        const values = [
            undefined, null, "", 0, -1.5, NaN, Infinity, true, [], {}, [[[]]], ring, bare,
            new Date(NaN), new Error("e"), () => 1, "line\\nbreak", "\\r\\u0000\\u2028\\u2029",
            "\\ud800", "{\\"_run\\":{\\"profile\\":\\"x\\"}}", "x".repeat(5000),
            "\\u202e", { topic: 1, id: 2 }
        ];
        const ids = []; let thrown = 0;
        for (let i = 0; i < count; ++i, ++turn) {
            const pick = nth => values[Math.floor(turn / nth) % values.length];
            try {
                if (turn % 3 === 0) ids.push(OpsMesh.action(pick(3), pick(69), pick(7)));
                else if (turn % 3 === 1) ids.push(OpsMesh.workflow(pick(3), pick(69)));
                else ids.push(OpsMesh.widgetError(pick(3), pick(69), pick(7), pick(11)));
            } catch (error) {
                console.warn("thrown", error); thrown += 1;
            }
        }
        return [ids, thrown];
    }
    property var connection: Connections {
        target: driver
        function onAsked(text) {
            const asked = JSON.parse(text);
            let out = null;
            if (asked.call === "cycle") {
                const ring = {}; ring.ring = ring;
                out = OpsMesh.action("ring", ring, "w");
            } else if (asked.call === "many") {
                out = [];
                for (let i = 0; i < asked.args[0]; ++i)
                    out.push(OpsMesh.action(asked.args[1] + i, "", "w"));
            } else if (asked.hostile) {
                out = hostile(asked.hostile);
            } else if (asked.call) {
                out = OpsMesh[asked.call](...asked.args);
            }
            driver.said(JSON.stringify({
                out: out === undefined ? null : out, connected: OpsMesh.connected,
                lastResult: OpsMesh.lastResult, pendingApprovals: OpsMesh.pendingApprovals,
                dropped: OpsMesh.dropped, queued: OpsMesh.queued
            }));
        }
    }
}
"""


def _queued() -> float:
    """Seconds that this thread was ready to run, and had to wait for a processor."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


class Singleton(QObject):
    """STAND-IN for Quickshell's Singleton."""


class Quickshell(QObject):
    """STAND-IN for Quickshell's global object."""

    @Slot(str, result="QVariant")
    def env(self, name: str) -> str | None:
        return os.environ.get(name)


class SplitParser(QObject):
    """STAND-IN for Quickshell.Io.SplitParser: whole lines."""

    read = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.buffer = b""

    def parse(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self.read.emit(line.decode(errors="replace"))


class Socket(QObject):
    """STAND-IN for Quickshell.Io.Socket, over a real QLocalSocket."""

    connectionStateChanged = Signal()
    pathChanged = Signal()
    parserChanged = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._socket: QLocalSocket | None = None
        self._connected = self._disconnecting = self._target = False
        self._path = ""
        self._parser: SplitParser | None = None

    def _get_path(self) -> str:
        return self._path

    def _set_path(self, path: str) -> None:
        if path == self._path or (self._connected and not self._disconnecting):
            return
        self._path = path
        self.pathChanged.emit()
        if self._target and self._socket is None:
            self._connect()

    path = Property(str, _get_path, _set_path, notify=pathChanged)

    def _get_parser(self) -> QObject | None:
        return self._parser

    def _set_parser(self, parser: SplitParser | None) -> None:
        self._parser = parser
        self.parserChanged.emit()

    parser = Property(QObject, _get_parser, _set_parser, notify=parserChanged)

    def _get_connected(self) -> bool:
        return self._connected

    def _set_connected(self, wanted: bool) -> None:
        self._target = wanted
        if not wanted:
            if self._socket is not None and not self._disconnecting:
                self._disconnecting = True
                self._socket.disconnectFromServer()
        elif self._socket is None:
            self._connect()

    connected = Property(bool, _get_connected, _set_connected, notify=connectionStateChanged)

    @Slot(str)
    def write(self, data: str) -> None:
        if self._socket is not None:
            self._socket.write(data.encode(errors="replace"))

    @Slot()
    def flush(self) -> None:
        if self._socket is not None:
            self._socket.flush()

    def _connect(self) -> None:
        if not self._path:
            return
        made = self._socket = QLocalSocket(self)
        made.connected.connect(self._on_connected)
        made.disconnected.connect(self._on_disconnected)
        made.readyRead.connect(self._on_bytes)
        made.connectToServer(self._path)

    @Slot()
    def _on_connected(self) -> None:
        self._connected, self._target, self._disconnecting = True, False, False
        self.connectionStateChanged.emit()

    @Slot()
    def _on_disconnected(self) -> None:
        self._connected = self._disconnecting = False
        if self._socket is not None:
            self._socket.deleteLater()
            self._socket = None
        self.connectionStateChanged.emit()
        if self._target:
            self._connect()

    @Slot()
    def _on_bytes(self) -> None:
        if self._socket is not None and self._parser is not None:
            self._parser.parse(bytes(self._socket.readAll().data()))


class Driver(QObject):
    """Hands the test's lines to QML, and its answers back."""

    asked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._last, self._longest, self._buffer = time.monotonic() - _queued(), 0.0, b""
        self._ticks = QTimer(self)
        self._ticks.timeout.connect(self._tick)
        self._ticks.start(5)
        self._input = QSocketNotifier(0, QSocketNotifier.Type.Read, self)
        self._input.activated.connect(self._read)
        self.engine: QQmlEngine | None = None

    def _tick(self) -> None:
        # without the time that the engine could have run in, and others had the processor
        now = time.monotonic() - _queued()
        self._longest, self._last = max(self._longest, now - self._last), now

    def _read(self) -> None:
        data = os.read(0, 65536)
        if not data:
            QGuiApplication.quit()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            if "shot" in asked:
                self.said(json.dumps({"out": self._shot(asked["source"], asked["shot"])}))
            else:
                self.asked.emit(line.decode())

    @Slot(str)
    def said(self, text: str) -> None:
        longest, self._longest = self._longest, 0.0
        print(json.dumps({**json.loads(text), "stalled_s": longest}), flush=True)

    def _shot(self, source: str, target: str) -> list[int]:
        assert self.engine is not None
        make: Any = QQuickView  # its stub wants a window where the engine takes None
        view = make(self.engine, None)
        view.setColor("#1a202c")
        view.setSource(QUrl.fromLocalFile(source))
        assert view.status() == QQuickView.Status.Ready, view.errors()
        view.resize(760, 40)
        view.show()
        image = view.grabWindow()
        image.save(target)
        colours = {image.pixel(x, y) for x in range(image.width()) for y in range(image.height())}
        return [image.width(), image.height(), len(colours)]


def main(imports: str) -> int:
    app = QGuiApplication([])
    shell: Any = Quickshell()
    register: Any = qmlRegisterType  # the stubs want bytes where the engine takes text
    singleton: Any = qmlRegisterSingletonInstance
    singleton(Quickshell, "Quickshell", 1, 0, "Quickshell", shell)
    register(Singleton, "Quickshell", 1, 0, "Singleton")
    register(Socket, "Quickshell.Io", 1, 0, "Socket")
    register(SplitParser, "Quickshell.Io", 1, 0, "SplitParser")
    driver = Driver()
    engine = driver.engine = QQmlEngine()
    engine.addImportPath(imports)
    engine.rootContext().setContextProperty("driver", driver)
    component = QQmlComponent(engine)
    component.setData(DRIVER.encode(), QUrl.fromLocalFile(imports + "/driver.qml"))
    root = component.create()
    if root is None:
        print(component.errorString(), file=sys.stderr)
        return 1
    return app.exec()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
