"""Which session and which workspace an event belongs to: one rule for every tool, so that what
happens in several of them can be told to belong together. docs/sessions.md is the same for people,
tests/data/sessions.json for every port of it (Lua, JavaScript, the plug-ins in foreign processes).

Standard library only: `emit` imports this module. Pure but for `workspace`, which looks at folders.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a person, or the handler that starts a command, says the session and the workspace are.
SESSION, WORKSPACE = "OPSMESH_SESSION", "OPSMESH_WORKSPACE"
#: What an editor's plug-in tells those that the editor starts.
EDITOR_SESSION = "OPSMESH_EDITOR_SESSION"
#: Every variable that the rule reads.
VARIABLES = (
    *(SESSION, WORKSPACE, EDITOR_SESSION, "TERM", "TMUX", "STY", "ZELLIJ_SESSION_NAME"),
    *("KITTY_WINDOW_ID", "WEZTERM_PANE", "XDG_SESSION_ID"),
)


def of_environment(env: Mapping[str, str]) -> str:
    """The session of a process with this environment; empty when nothing tells one.

    For what a person starts. A daemon's environment is that of whoever started it first: it uses
    `login`.
    """
    if said := env.get(SESSION):
        return said
    inner, outer = _multiplexer(env)
    return (
        inner
        or env.get(EDITOR_SESSION)
        or _named("zellij", env.get("ZELLIJ_SESSION_NAME"))
        or outer
        or _named("kitty", env.get("KITTY_WINDOW_ID"))
        or _named("wezterm", env.get("WEZTERM_PANE"))
        or login(env)
    )


def login(env: Mapping[str, str]) -> str:
    """The login session, as pam_systemd(8) numbers it; empty where there is none."""
    return env.get("XDG_SESSION_ID", "")


def tmux_session(variable: str) -> str:
    """TMUX is `socket,pid of the server,number of the session` (tmux(1), environment): the session
    as tmux's own target, `$3`, after the socket's name."""
    socket, _, rest = variable.partition(",")
    number = rest.rpartition(",")[2]
    return f"{socket.rpartition('/')[2]}:${number}"


def workspace(path: str, env: Mapping[str, str] = os.environ) -> str:
    """The project that a file or a folder is of: the folder above it, or itself, that holds
    `.git`; else the folder. A home that is a repository (dotfiles) is the project of what lies in
    it directly, not of everything below."""
    if said := env.get(WORKSPACE):
        return said
    if not path:
        return ""
    try:
        # os.path, for pathlib costs start-up time
        real = os.path.realpath(path)
        folder = real if os.path.isdir(real) else os.path.dirname(real)  # noqa: PTH112, PTH120
        home = os.path.realpath(env.get("HOME") or "/")
        found = folder
        while not os.path.lexists(found + "/.git"):  # "//.git" at the top
            if found == "/":
                return folder
            found = os.path.dirname(found)  # noqa: PTH120
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return path
    return folder if found in ("/", home) else found


def _multiplexer(env: Mapping[str, str]) -> tuple[str, str]:
    """tmux's or screen's session: when it is the innermost, and when its variable alone is here.

    Each leaves its variable in what runs inside of it, and these two alone set TERM to their own
    name: with it, they are the innermost.
    """
    tmux, screen, term = env.get("TMUX", ""), env.get("STY", ""), env.get("TERM", "")
    session = f"tmux:{tmux_session(tmux)}" if tmux else ""
    if session and term.startswith(("tmux", "screen")):
        return session, ""
    if screen and term.startswith("screen"):
        return f"screen:{screen}", ""
    return "", session or _named("screen", screen)


def _named(kind: str, name: str | None) -> str:
    return f"{kind}:{name}" if name else ""
