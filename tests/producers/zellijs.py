"""Zellij for the tests of its producer: the real one in tmux, and a stand-in.

The stand-in is a real process that listens at a real socket, and files in the shape that Zellij
writes (zellij-utils/src/kdl/mod.rs); it takes no part in Zellij's protocol.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.producers.agent import until

#: Listens at the socket, takes every connection, and removes the socket at its proper end.
SERVER = """
import os, signal, socket, sys
path = sys.argv[1]
server = socket.socket(socket.AF_UNIX)
os.chdir(os.path.dirname(path))  # a short name, however long the path is
server.bind(os.path.basename(path))
server.listen(64)
def end(*_):
    os.unlink(path)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
print("listening", flush=True)
while True:
    server.accept()[0].close()
"""


def real() -> str | None:
    """The real Zellij, where there is one."""
    return os.environ.get("OPSMESH_ZELLIJ") or shutil.which("zellij")


class StandInSession:
    """A session of the stand-in."""

    def __init__(self, home: Path, name: str, *, contract: int = 1) -> None:
        self.name = name
        self._folder = home / f"run/zellij/contract_version_{contract}"
        info = home / f"cache/zellij/contract_version_{contract}/session_info"
        self._written = info / name / "session-metadata.kdl"
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / name).unlink(missing_ok=True)  # as Zellij does with one that is left
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", SERVER, str(self._folder / name)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def write(self, *panes: str, tabs: int = 1, cut: int | None = None) -> None:
        """Write what the session looks like, as Zellij does: the file is cut, then written."""
        self._written.parent.mkdir(parents=True, exist_ok=True)
        self._written.write_text(metadata(self.name, *panes, tabs=tabs)[:cut])

    def end(self) -> None:
        """As `zellij kill-session` does: the socket goes, then the process."""
        self._process.terminate()
        self._wait()

    def crash(self) -> None:
        """The process goes, the socket stays."""
        self._process.kill()
        self._wait()

    def rename(self, name: str) -> None:
        """As Zellij does: the socket and the folder have another name."""
        (self._folder / self.name).rename(self._folder / name)
        self.name = name

    def _wait(self) -> None:
        self._process.wait(60)
        if self._process.stdout:
            self._process.stdout.close()


def pane(id: int, *, x: int = 0, focus: bool = False, title: str = "t", **more: object) -> str:
    """One pane as Zellij writes it."""
    values = {
        "id": id,
        "is_plugin": "false",
        "is_focused": str(focus).lower(),
        "is_fullscreen": "false",
        "is_floating": "false",
        "is_suppressed": "false",
        "title": quoted(title),
        "exited": "false",
        "is_held": "false",
        "pane_x": x,
        "pane_y": 1,
        "pane_rows": 38,
        "pane_columns": 120 - x,
        "is_selectable": "true",
        "tab_position": 0,
        **more,
    }
    lines = "\n".join(f"        {key} {value}" for key, value in values.items())
    return f"    pane {{\n{lines}\n    }}\n"


def ended(id: int, command: str, status: int | None) -> str:
    """A command pane whose command has ended."""
    more: dict[str, Any] = {} if status is None else {"exit_status": status}
    return pane(id, exited="true", is_held="true", terminal_command=quoted(command), **more)


def quoted(text: str) -> str:
    """A KDL string."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


def metadata(name: str, *panes: str, tabs: int = 1) -> str:
    """A whole file."""
    tab = "    tab {{\n        position {0}\n        name {1}\n        tab_id {0}\n    }}\n"
    return (
        f"name {quoted(name)}\ntabs {{\n"
        + "".join(tab.format(number, quoted(f"Tab #{number} {{")) for number in range(tabs))
        + "}\npanes {\n"
        + "".join(panes)
        + "}\nconnected_clients 1\navailable_layouts {\n"
        + '    "odd {" source="file"\n    default source="built-in"\n}\n'
        + "tab_history {\n    client {\n        id 1\n        history\n    }\n}\n"
        + "pane_history {\n}\ncreation_time 300\n"
    )


class RealZellij:
    """The real Zellij, for one test: short folders, since its sockets' paths must be short."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self.folder = program, folder
        self.sockets = folder / "s"
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self.environment = {
            **os.environ,
            "ZELLIJ_SOCKET_DIR": str(self.sockets),
            "XDG_CACHE_HOME": str(folder / "c"),
            "XDG_CONFIG_HOME": str(folder / "conf"),
            "XDG_DATA_HOME": str(folder / "data"),
            "HOME": str(folder),
            "SHELL": "/bin/sh",
        }
        config = folder / "conf/zellij/config.kdl"
        config.parent.mkdir(parents=True)
        config.write_text("show_startup_tips false\nshow_release_notes false\n")

    def start(self, name: str) -> None:
        """A session with a client, in a window of its own."""
        size = ("-x", "120", "-y", "40")
        self._run(*self._tmux, "new-session", "-d", *size, self._program, "-s", name)
        until((self.sockets / "contract_version_1" / name).exists)

    def action(self, name: str, *words: str) -> None:
        """A command to a session."""
        self._run(self._program, "-s", name, *words)

    def kill(self, name: str) -> None:
        """End a session properly."""
        self._run(self._program, "kill-session", name)

    def written(self, name: str) -> str:
        """What Zellij wrote of the session."""
        folder = self.folder / "c/zellij/contract_version_1/session_info"
        path = folder / name / "session-metadata.kdl"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End everything."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=180)
