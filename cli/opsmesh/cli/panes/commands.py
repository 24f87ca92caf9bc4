"""`opsmesh panes`: write the layout, and open it.

A file that somebody has edited is theirs: it is opened, and never written over without --force.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from opsmesh.cli import config_file, output
from opsmesh.cli.panes import texts
from opsmesh.cli.panes.plan import DASHBOARD, Panes, plan
from opsmesh.router import paths
from opsmesh.router.settings import Settings

#: The name of the layout, in Zellij's folder and in ours.
NAME: Final = "ops-event-mesh"
_MARK: Final = " written by `opsmesh panes`, as "

Tool = Literal["zellij", "tmux"]


def panes(
    tmux: Annotated[bool, typer.Option("--tmux", help="For tmux instead of Zellij.")] = False,
    write: Annotated[
        bool, typer.Option("--write", "-w", help="Only write the file, and open nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that was edited, keeping a copy.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="With --write: one JSON document, for programs.")
    ] = False,
) -> None:
    """The mesh on one screen: control, status oracle, your ops dashboard, alerts.

    Writes the layout ops-event-mesh.kdl into Zellij's folder and opens it: inside
    Zellij as a new tab, else as a session. With --tmux, or where only tmux is there,
    it is a session of tmux, which is attached again when it is there already.

    The ops dashboard is what ~/src/opsctrl holds, or any command that is set:
    panes.dashboard in config.yaml, like "ssh web1 htop"; an empty list is none.

    Examples: opsmesh panes
              opsmesh panes --tmux
              opsmesh panes --write && zellij --layout ops-event-mesh
    """
    if json and not write:
        output.fail("--json goes with --write", code=output.USAGE)
    config_file.read()
    tool = _tool(tmux=tmux, write=write)
    found = plan(Settings().panes.dashboard)
    path, kept = _written(tool, found, force=force)
    if json:
        rows = [{"name": one.name, "command": list(one.argv)} for one in found.all]
        output.as_json({"path": str(path), "tool": tool, "edited": kept, "panes": rows})
        return
    if kept:
        output.note(f"{path} was edited: it is used as it is (--force writes it anew)")
    elif write:
        print(f"wrote {path}: {', '.join(one.name for one in found.all)}")
    if found.dashboard is None:
        output.note(
            f"no ops dashboard: nothing to run in {DASHBOARD}; any command: panes.dashboard "
            "in config.yaml"
        )
    if write:
        return
    argv = _zellij(path) if tool == "zellij" else _tmux(path)
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 (the multiplexer takes this terminal)


def _tool(*, tmux: bool, write: bool) -> Tool:
    if tmux or (not write and shutil.which("zellij") is None and shutil.which("tmux")):
        if not write and shutil.which("tmux") is None:
            output.fail("tmux is not on PATH", hint="opsmesh panes --tmux --write only writes")
        return "tmux"
    if not write and shutil.which("zellij") is None:
        output.fail(
            "neither zellij nor tmux is on PATH", hint="opsmesh panes --write only writes the file"
        )
    return "zellij"


def _written(tool: Tool, found: Panes, *, force: bool) -> tuple[Path, bool]:
    """Write the file; where it lies, and whether an edited one was left instead."""
    if tool == "zellij":
        path, comment, text = _layouts() / f"{NAME}.kdl", "//", texts.kdl(found)
    else:
        path = Path(paths.config_dir(), f"{NAME}.tmux.conf")
        comment, text = "#", texts.tmux(found)
    edited = _edited(path, comment)
    if edited and not force:
        return path, True
    path.parent.mkdir(parents=True, exist_ok=True)
    if edited:
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.name}.before-opsmesh"))
    path.write_text(f"{comment}{_MARK}{_hash(text)}; edited, it is left alone\n{text}")
    return path, False


def _edited(path: Path, comment: str) -> bool:
    """Whether what stands there is not what we wrote."""
    try:
        first, _, rest = path.read_text().partition("\n")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True
    return not first.startswith(f"{comment}{_MARK}{_hash(rest)};")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _layouts() -> Path:
    """Where Zellij looks for layouts."""
    if told := os.environ.get("ZELLIJ_CONFIG_DIR"):
        return Path(told).expanduser() / "layouts"
    told = os.environ.get("XDG_CONFIG_HOME", "")
    config = Path(told) if told.startswith("/") else Path.home() / ".config"
    return config / "zellij/layouts"


def _zellij(path: Path) -> list[str]:
    if os.environ.get("ZELLIJ"):
        return ["zellij", "action", "new-tab", "--layout", str(path)]
    _need_terminal(f"zellij --layout {path}")
    return ["zellij", "--layout", str(path)]


def _tmux(path: Path) -> list[str]:
    """Make the session where it is not there, and go there."""
    ask = ["tmux", "has-session", "-t", f"={texts.SESSION}"]
    if subprocess.run(ask, capture_output=True, check=False).returncode:
        made = subprocess.run(
            ["tmux", "start-server", ";", "source-file", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            output.fail(f"tmux did not take {path}: {made.stderr.strip()}")
    if os.environ.get("TMUX"):
        return ["tmux", "switch-client", "-t", f"={texts.SESSION}"]
    _need_terminal(f"tmux attach -t {texts.SESSION}")
    return ["tmux", "attach-session", "-t", f"={texts.SESSION}"]


def _need_terminal(then: str) -> None:
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        output.fail("this is no terminal to open it in", hint=f"in one: {then}")
