"""What one line of a shell's hook says. Pure: no line, whatever it holds, raises.

The hooks write facts as they find them; what they mean is decided here, where it can be tested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from opsmesh.router.session import VARIABLES, tmux_session

#: Exit statuses that a shell can give.
STATUSES: Final = range(1, 256)
#: Longest text that is taken over, in characters; the hooks cut at this many bytes.
LONGEST: Final = 8192


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A command that ended badly. `at_us` is 0 when the shell did not know the time; `lost` counts
    those before it that found no room."""

    command: str
    exit_code: int
    at_us: int
    duration_us: int
    lost: int
    cwd: str
    tty: str
    multiplexer: str
    session: str
    pane: str
    #: What the shell's environment says of session and workspace (router.session).
    env: Mapping[str, str]


def parse(line: bytes) -> Failed | None:
    """The failure that the line tells; None for one that is cut, or a stranger's."""
    try:
        facts = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict):
        return None
    exit_code, at, us, lost = (facts.get(name) for name in ("exit", "at", "us", "lost"))
    command = facts.get("command")
    if not (_count(exit_code) and _count(at) and _count(lost) and isinstance(command, str)):
        return None
    if exit_code not in STATUSES:
        return None
    multiplexer, session, pane = place(facts)
    return Failed(
        command=_clean(command),
        exit_code=exit_code,
        at_us=at,
        # a clock that was set back while the command ran
        duration_us=us if _count(us) else 0,
        lost=lost,
        cwd=_text(facts, "cwd"),
        tty=_text(facts, "tty"),
        multiplexer=multiplexer,
        session=session,
        pane=pane,
        env={name: said for name in VARIABLES if (said := _text(facts, name))},
    )


def place(said: Mapping[str, Any]) -> tuple[str, str, str]:
    """(multiplexer, session, pane) of the innermost one that the environment names.

    Each leaves its variables in what runs inside of it, so that several may be there. tmux and
    screen alone set TERM to their own name: with it, they are the innermost.
    """
    tmux, screen = _text(said, "TMUX"), _text(said, "STY")
    term = _text(said, "TERM")
    if tmux and term.startswith(("tmux", "screen")):
        return "tmux", tmux_session(tmux), _text(said, "TMUX_PANE")
    if screen and term.startswith("screen"):
        return "screen", screen, _text(said, "WINDOW")
    if zellij := _text(said, "ZELLIJ_SESSION_NAME"):
        return "zellij", zellij, _text(said, "ZELLIJ_PANE_ID")
    if tmux:
        return "tmux", tmux_session(tmux), _text(said, "TMUX_PANE")
    for name, variable in (("kitty", "KITTY_WINDOW_ID"), ("wezterm", "WEZTERM_PANE")):
        if pane := _text(said, variable):
            return name, "", pane
    return "", "", ""


def _count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    return _clean(value) if isinstance(value, str) else ""


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON can spell and UTF-8 cannot."""
    return text[:LONGEST].encode(errors="replace").decode()
