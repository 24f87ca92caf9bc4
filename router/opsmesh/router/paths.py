"""Where opsmesh keeps things, following the XDG base directories. Standard library only: `emit`
imports this module, and must cost little more than starting Python.

Every function reads the environment at the call, so that a second mesh beside the first is nothing
but other XDG variables.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def _xdg(variable: str, fallback: str, env: Mapping[str, str]) -> str:
    base = env.get(variable, "")
    if not base.startswith("/"):  # the specification: a relative path is invalid, ignore it
        base = os.path.expanduser(fallback)  # noqa: PTH111 (pathlib costs start-up time)
    return base + "/opsmesh"


def config_dir(env: Mapping[str, str] = os.environ) -> str:
    """`$XDG_CONFIG_HOME/opsmesh`"""
    return _xdg("XDG_CONFIG_HOME", "~/.config", env)


def state_dir(env: Mapping[str, str] = os.environ) -> str:
    """`$XDG_STATE_HOME/opsmesh`"""
    return _xdg("XDG_STATE_HOME", "~/.local/state", env)


def runtime_dir(env: Mapping[str, str] = os.environ) -> str:
    """`$XDG_RUNTIME_DIR/opsmesh`; `run` in the state folder where there is no runtime directory."""
    if env.get("XDG_RUNTIME_DIR", "").startswith("/"):
        return env["XDG_RUNTIME_DIR"] + "/opsmesh"
    return state_dir(env) + "/run"


def ingest_socket(env: Mapping[str, str] = os.environ) -> str:
    """The agent's socket: one JSON object a line."""
    return runtime_dir(env) + "/ingest.sock"


def spool_dir(env: Mapping[str, str] = os.environ) -> str:
    """Events that the broker has not acknowledged yet."""
    return state_dir(env) + "/spool"


def evidence_dir(env: Mapping[str, str] = os.environ) -> str:
    """The hash-chained JSONL archive."""
    return state_dir(env) + "/evidence"


def keys_dir(env: Mapping[str, str] = os.environ) -> str:
    """The key that seals the evidence, and what it sealed last; never inside the archive."""
    return state_dir(env) + "/keys"


def bundles_dir(env: Mapping[str, str] = os.environ) -> str:
    """Evidence bundles, a folder each."""
    return state_dir(env) + "/bundles"


def private_dir(path: str) -> str:
    """The folder, made for its owner alone where it is missing; those above it, too, as the XDG
    specification has it (`makedirs` gives them what the umask leaves: the first event of a machine
    would open the state folder to everybody on it)."""
    try:
        os.mkdir(path, 0o700)  # noqa: PTH102
    except FileExistsError:
        if not os.path.isdir(path):  # noqa: PTH112
            raise
    except FileNotFoundError:
        above = os.path.dirname(path)  # noqa: PTH120
        if above in ("", path):
            raise
        private_dir(above)
        return private_dir(path)
    return path
