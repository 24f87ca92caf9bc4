"""The panes as a layout of Zellij, and as a file of tmux commands; pure.

Both put control on the left, oracle and dashboard on the right, alerts across the bottom.
"""

from __future__ import annotations

import shlex
from typing import Final

from opsmesh.cli.panes.plan import Pane, Panes

#: The session of tmux.
SESSION: Final = "opsmesh"


def kdl(panes: Panes) -> str:
    """A layout of Zellij."""
    right = [_kdl_pane(pane, "") for pane in (panes.oracle, panes.dashboard) if pane is not None]
    return f"""layout {{
    tab name="opsmesh" focus=true {{
        pane size=1 borderless=true {{
            plugin location="zellij:tab-bar"
        }}
        pane split_direction="vertical" {{
{_kdl_pane(panes.control, ' size="60%" focus=true', 12)}
            pane split_direction="horizontal" {{
{_indented(right)}
            }}
        }}
{_kdl_pane(panes.alerts, ' size="30%"', 8)}
        pane size=1 borderless=true {{
            plugin location="zellij:status-bar"
        }}
    }}
}}
"""


def _indented(blocks: list[str]) -> str:
    return "\n".join(f"{' ' * 16}{line}" for block in blocks for line in block.splitlines())


def _kdl_pane(pane: Pane, more: str, indent: int = 0) -> str:
    program, *arguments = pane.argv
    folder = f" cwd={_kdl(str(pane.folder))}" if pane.folder is not None else ""
    lines = [f"pane name={_kdl(pane.name)} command={_kdl(program)}{folder}{more} {{"]
    if arguments:
        lines.append(f"    args {' '.join(map(_kdl, arguments))}")
    return "\n".join(" " * indent + line for line in (*lines, "}"))


def _kdl(text: str) -> str:
    """A string of KDL 1, which Zellij reads."""
    made = text.replace("\\", "\\\\").replace('"', '\\"')
    for raw, written in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        made = made.replace(raw, written)
    return f'"{made}"'


def tmux(panes: Panes) -> str:
    """Commands of tmux that make the session."""
    here = f"-t {SESSION}:"
    control = f"-t '{SESSION}:.{{top-left}}'"
    lines = [
        f"new-session -d -s {SESSION} -n opsmesh -x 200 -y 50 {_tmux(panes.control)}",
        # what ends stays to be read, and is started again with prefix :respawn-pane
        f"set-option -w {here} remain-on-exit on",
        f"set-option -w {here} pane-border-status top",
        f"set-option -w {here} pane-border-format ' #{{pane_title}} '",
        _titled(panes.control),
        f"split-window -v -l 30% {here} {_tmux(panes.alerts)}",
        _titled(panes.alerts),
        f"split-window -h -l 40% {control} {_tmux(panes.oracle)}",
        _titled(panes.oracle),
    ]
    if panes.dashboard is not None:
        lines += [
            f"split-window -v {here} {_tmux(panes.dashboard)}",
            _titled(panes.dashboard),
        ]
    lines.append(f"select-pane {control}")
    return "\n".join((*lines, ""))


def _titled(pane: Pane) -> str:
    """The title of the pane that was made last."""
    return f"select-pane -t {SESSION}: -T {_quoted(pane.name)}"


def _tmux(pane: Pane) -> str:
    folder = f"-c {_quoted(str(pane.folder))} " if pane.folder is not None else ""
    return f"{folder}{_quoted(shlex.join(pane.argv))}"


def _quoted(text: str) -> str:
    """One word of a tmux file; single quotes there know no escapes, like a shell's."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
