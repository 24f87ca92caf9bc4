"""From what a profile asks for to what is started. The one rule: a program whose sandbox or limit
cannot be had here is not started at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from opsmesh.handlers.errors import Unstartable
from opsmesh.handlers.sandbox import bwrap, host, systemd, units
from opsmesh.handlers.sandbox.confinement import Confinement, Kind, Shown, shown
from opsmesh.handlers.sandbox.units import Unit
from opsmesh.router import paths

#: Seconds between TERM and KILL in a confined service.
GRACE_S: Final = 2.0
#: What is written in the place of a limit's controller.
CONTROLLERS: Final = {"memory": "memory", "cpu": "cpu", "tasks": "pids"}

_LOOK: Final = (
    "touch /usr/.opsmesh 2>/dev/null && exit 3; "
    "readlink /proc/self/ns/mnt; readlink /proc/self/ns/net; ls -A /run"
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Where a program belongs."""

    run_id: str
    step_id: str
    workdir: Path
    timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is started, and the unit that it becomes."""

    argv: tuple[str, ...]
    env: dict[str, str]
    unit: Unit | None = None


@contextlib.asynccontextmanager
async def ready(
    argv: list[str],
    confinement: Confinement,
    step: Step,
    *,
    env: Mapping[str, str],
    own: frozenset[str],
    cwd: Path,
) -> AsyncIterator[Prepared]:
    """`prepared`, for a loop: the first time it tries what the host can do, which takes a while."""
    making = prepared(argv, confinement, step, env=env, own=own, cwd=cwd)
    if confinement == Confinement():
        found = making.__enter__()
    else:
        found = await asyncio.to_thread(making.__enter__)
    try:
        yield found
    finally:
        making.__exit__(None, None, None)


@contextlib.contextmanager
def prepared(
    argv: list[str],
    confinement: Confinement,
    step: Step,
    *,
    env: Mapping[str, str],
    own: frozenset[str] = frozenset(),
    cwd: Path,
) -> Iterator[Prepared]:
    """`own`: names of variables that the step and its profile set; Unstartable for what cannot be
    had. What is given holds in the body alone."""
    if confinement == Confinement():
        yield Prepared(argv=tuple(argv), env=dict(env))
        return
    if why := lacking(confinement):
        raise Unstartable(tuple(argv), f"not started: {why}")
    through = shown(confinement)
    with contextlib.ExitStack() as stack:
        unit = None
        line, inside = list(argv), dict(env)
        if confinement.kind != "none":
            inside = bwrap.environment(env, own)
            found = _looked_at(line, inside, confinement.kind, through, step.workdir, cwd)
            if confinement.kind == "systemd":  # systemd-run would look for it outside
                line = [found, *line[1:]]
        if confinement.kind == "bwrap":
            line = bwrap.command(
                _limited(line, confinement),
                confinement=confinement,
                shown=through,
                workdir=step.workdir,
                cwd=cwd,
            )
        if confinement.kind == "systemd":
            unit = units.new(step.run_id, step.step_id, manager=_manager())
            yield Prepared(
                argv=tuple(_service(line, unit, confinement, through, step, cwd, inside, stack)),
                env=dict(env),  # of systemd-run itself, which has to find its manager
                unit=unit,
            )
            return
        if confinement.kind == "none":
            line = _limited(line, confinement)
        if confinement.limited and _by_unit(confinement):
            unit = units.new(step.run_id, step.step_id, manager=_manager(), kind="scope")
            line = systemd.scope(line, unit=unit, confinement=confinement)
            if confinement.kind == "bwrap":
                # systemd-run has to find its manager; bwrap takes what is not the sandbox's away
                taken = sorted(env.keys() - inside.keys())
                at = line.index("--") + 1
                line[at + 1 : at + 1] = [w for name in taken for w in ("--unsetenv", name)]
                inside = {**env, "HOME": inside["HOME"]}
        yield Prepared(argv=tuple(line), env=inside, unit=unit)


def lacking(confinement: Confinement) -> str:
    """Why this host cannot do it; "" when it can. May take a second, the first time."""
    tried = {"bwrap": host.bwrap, "systemd": _systemd}.get(confinement.kind)
    if tried is not None and (why := tried()):
        host.forget()  # it may be installed before the next step
        _systemd.cache_clear()
        return why
    for key, controller in CONTROLLERS.items():
        if getattr(confinement, key) is None or (key == "memory" and _prlimit()):
            continue
        if host.manager() is None:
            return f"{key} cannot be limited: {host.NO_MANAGER}"
        if controller not in host.controllers():
            return f"{key} cannot be limited: the manager here has no controller {controller!r}"
    return ""


def enforced(confinement: Confinement) -> dict[str, str]:
    """What holds each limit here."""
    return {
        key: "control group" if controller in host.controllers() else "RLIMIT_AS of each process"
        for key, controller in CONTROLLERS.items()
        if getattr(confinement, key) is not None
    }


def _prlimit() -> bool:
    return shutil.which("prlimit") is not None


def _by_unit(confinement: Confinement) -> bool:
    return confinement.cpu is not None or confinement.tasks is not None or _counts_memory()


def _counts_memory() -> bool:
    return "memory" in host.controllers()


def _limited(argv: list[str], confinement: Confinement) -> list[str]:
    """Where no control group counts memory, each process has a limit of its own."""
    if confinement.memory is None or _counts_memory():
        return argv
    return ["prlimit", f"--as={confinement.memory}", "--", *argv]


def _manager() -> str:
    found = host.manager()
    if found is None:
        raise Unstartable((), host.NO_MANAGER)
    return found


def _looked_at(
    argv: list[str], env: Mapping[str, str], kind: Kind, through: Shown, workdir: Path, cwd: Path
) -> str:
    """The program's file; one, or a folder, that the sandbox does not show gets a reason, and not
    an exit code."""
    seen = Shown(read=through.read, write=(*through.write, workdir))

    def inside(path: Path) -> bool:
        return bwrap.sees(path, seen) or (kind == "systemd" and not _hidden(path))

    if not (inside(cwd) and inside(Path(os.path.realpath(cwd)))):
        raise Unstartable(
            tuple(argv),
            f"the working directory {str(cwd)!r} is not in the sandbox; add it to read or write",
        )
    program = argv[0]
    if "/" in program:
        found = str(cwd / program) if (cwd / program).exists() else None
    else:
        folders = env.get("PATH", os.defpath).split(":")
        found = shutil.which(program, path=":".join(f for f in folders if inside(Path(f))))
        found = found or shutil.which(program, path=env.get("PATH"))
    if found is None:
        raise Unstartable(tuple(argv), f"command {program!r} is not found")
    if not all(inside(Path(one)) for one in (found, os.path.realpath(found))):
        raise Unstartable(
            tuple(argv), f"command {found!r} is not in the sandbox; add it, or its folder, to read"
        )
    return found


def _hidden(path: Path) -> bool:
    folders = ("/home", "/tmp", "/var/tmp", "/run", "/dev", pwd.getpwuid(0).pw_dir)  # noqa: S108
    return any(path.is_relative_to(folder) for folder in folders)


def _service(
    argv: list[str],
    unit: Unit,
    confinement: Confinement,
    through: Shown,
    step: Step,
    cwd: Path,
    env: dict[str, str],
    stack: contextlib.ExitStack,
) -> list[str]:
    file = stack.enter_context(os.fdopen(os.memfd_create("environment", os.MFD_CLOEXEC), "wb"))
    file.write(systemd.variables(env))
    file.flush()
    limits = confinement if _counts_memory() else replace(confinement, memory=None)
    return systemd.service(
        _limited(argv, confinement),
        unit=unit,
        confinement=limits,
        shown=through,
        hidden=[Path(paths.config_dir()), Path(paths.keys_dir())],
        workdir=step.workdir,
        cwd=cwd,
        environment=f"/proc/{os.getpid()}/fd/{file.fileno()}",
        unset=sorted(_managers_variables(unit.manager) - env.keys()),
        limit_s=step.timeout,
        grace_s=GRACE_S,
    )


def _managers_variables(manager: str) -> frozenset[str]:
    """What every service of a manager inherits: people import their sessions' variables into it."""
    try:
        told = subprocess.run(
            ["systemctl", manager, "show-environment"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=units.ASK_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unstartable((), f"not started: the manager does not answer ({error})") from None
    lines = told.stdout.decode(errors="replace").splitlines()
    return frozenset(name for name, is_one, _ in (line.partition("=") for line in lines) if is_one)


@functools.cache
def _systemd() -> str:
    """Why a confined service cannot be had; "" when a program in one has seen its walls."""
    if (manager := host.manager()) is None:
        return host.NO_MANAGER
    with tempfile.TemporaryDirectory(prefix="opsmesh-probe-") as folder:
        unit = units.new("probe", str(os.getpid()), manager=manager)
        probe = Step(run_id="probe", step_id="probe", workdir=Path(folder), timeout=host.TRY_S)
        with contextlib.ExitStack() as stack:
            line = _service(
                ["/bin/sh", "-c", _LOOK],
                unit,
                Confinement(kind="systemd"),
                Shown(read=(), write=()),
                probe,
                Path(folder),
                {"PATH": os.defpath},
                stack,
            )
            code, text = host.run(line)
    spaces = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net")]  # noqa: PTH115
    if code == 0 and len(lines := text.splitlines()) >= 2 and not set(lines[:2]) & set(spaces):
        return ""
    return f"systemd does not confine a service here: {text or f'it ended with {code}'}"


def forget() -> None:
    """Try everything again."""
    host.forget()
    _systemd.cache_clear()
