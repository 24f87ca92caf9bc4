"""The sandbox `bwrap`, with real programs in it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, limited, run

from opsmesh.handlers.actions.command import Command
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.sandbox import host
from opsmesh.router import paths

Context = Callable[..., StepContext]

#: Root's home.
ROOT = pwd.getpwuid(0).pw_dir


def _why_not() -> str:
    return host.bwrap()


pytestmark = pytest.mark.skipif(
    bool(_why_not()) and "CI" not in os.environ, reason=f"no sandbox: {_why_not()}"
)


def do(value: Any, ctx: StepContext) -> StepResult:
    result = run(Command.parse(value).run(ctx))
    assert isinstance(result, StepResult)
    return result


def boxed(script: str, **more: Any) -> dict[str, Any]:
    return {"argv": ["sh", "-c", script], "sandbox": "bwrap", **more}


def said(result: StepResult) -> list[str]:
    assert result.ok, result
    lines: list[str] = result.output["stdout"].splitlines()
    return lines


def test_its_own_folder(context: Context) -> None:
    """A program begins in its run's folder, may write there, and reads its event."""
    ctx = context()
    result = do(boxed('pwd; cat "$OPSMESH_EVENT" >copy; echo $HOME'), ctx)
    assert said(result) == [str(ctx.workdir), "/tmp"]
    assert (ctx.workdir / "copy").read_bytes() == ctx.data


def test_sees_no_home_and_no_other_file(context: Context, tmp_path: Path) -> None:
    """Homes, the runtime folder and what lies beside its own folder are not there."""
    (tmp_path / "other").write_text("x")
    script = f"ls -A /home {ROOT} /run {tmp_path}; cat {tmp_path}/other; cat ~/.profile; true"
    result = do(boxed(script), context())
    assert sorted(said(result)) == sorted(["/run:", "", f"{tmp_path}:", "work"])


def test_cannot_write_to_the_system(context: Context) -> None:
    """The system's folders are read-only, also for root."""
    result = do(boxed("touch /usr/x /etc/ld.so.cache /bin/x || echo refused"), context())
    assert said(result) == ["refused"]
    assert not Path("/usr/x").exists()


def test_private_tmp(context: Context) -> None:
    """What it writes to /tmp is gone with it."""
    name = f"/tmp/opsmesh-{os.getpid()}"
    assert said(do(boxed(f"echo x >{name}; cat {name}"), context())) == ["x"]
    assert not Path(name).exists()


def test_sees_its_own_processes_alone(context: Context) -> None:
    """No other process is in sight, and so none can be signalled."""
    result = do(boxed(f"kill -0 {os.getpid()} 2>/dev/null || echo none"), context())
    assert said(result) == ["none"]


def listening() -> socket.socket:
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    return server


DIAL = (
    "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); print('in')"
)


@pytest.mark.parametrize(("network", "there"), [("no", False), (None, False), ("yes", True)])
def test_network(context: Context, network: str | None, there: bool) -> None:
    """There is a network where the profile says so, and only there."""
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no python3 in /usr")
    with listening() as server:
        argv = [python, "-c", DIAL, str(server.getsockname()[1])]
        result = do({"argv": argv, "sandbox": "bwrap", "network": network}, context())
    assert result.ok is there


def test_declared_paths(context: Context, tmp_path: Path) -> None:
    """What is declared is there: to read, or to write too."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "in/x").write_text("1\n")
    script = f"cat {tmp_path}/in/x; echo 2 >{tmp_path}/out/y; touch {tmp_path}/in/z || echo refused"
    result = do(boxed(script, read=[f"{tmp_path}/in"], write=[f"{tmp_path}/out"]), context())
    assert said(result) == ["1", "refused"]
    assert (tmp_path / "out/y").read_text() == "2\n"


def test_a_path_within_another(context: Context, tmp_path: Path) -> None:
    """A read-only path within one that may be written stays read-only."""
    (tmp_path / "a/b").mkdir(parents=True)
    result = do(
        boxed(
            f"touch {tmp_path}/a/x; touch {tmp_path}/a/b/x || echo refused",
            write=[f"{tmp_path}/a"],
            read=[f"{tmp_path}/a/b"],
        ),
        context(),
    )
    assert said(result) == ["refused"]


def test_environment(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that lead outside are gone; the step's own and the profile's are there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus")
    ctx = context()
    result = do({"argv": ["env"], "sandbox": "bwrap", "env": {"EXTRA": "1"}}, ctx)
    env = dict(line.split("=", 1) for line in said(result))
    assert not {"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"} & env.keys()
    assert (env["EXTRA"], env["OPSMESH_RUN_ID"]) == ("1", "run1")


def test_exit_code(context: Context) -> None:
    """The program's exit code and output are its own."""
    result = do(boxed("echo why >&2; exit 7"), context())
    assert (result.exit_code, result.error) == (7, "exit code 7: why")


def test_output_limit(context: Context) -> None:
    """The output limit holds inside."""
    result = do(boxed("printf 0123456789", output_limit=4), context())
    assert (result.output["stdout"], result.output["truncated"]) == ("6789", True)


def _found(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark in line and "pytest" not in line:
            found.append(line)
    return found


def test_nothing_outlives_its_step(context: Context) -> None:
    """At the time limit all of it ends, also what moved to a session of its own."""
    mark = f"3{os.getpid()}4"
    program = boxed(f"setsid sleep {mark} & echo begun; sleep {mark}")
    result = limited(
        lambda seconds: do(program, context(timeout=seconds)), lambda one: one.output["stdout"]
    )
    assert result.timed_out

    async def gone() -> bool:
        return not _found(mark)

    run(eventually(gone))


def test_nothing_outlives_a_program_that_ended(context: Context) -> None:
    """A program's end is the end of what it left in the background, in any session."""
    mark = f"3{os.getpid()}5"
    result = do(boxed(f"setsid sleep {mark} >/dev/null 2>&1 & echo done"), context())
    assert said(result) == ["done"]

    async def gone() -> bool:
        return not _found(mark)

    run(eventually(gone))


HANDLER = """
import asyncio, os, sys
from pathlib import Path
from opsmesh.handlers import process
from opsmesh.handlers.sandbox.confinement import Confinement
from opsmesh.handlers.sandbox.prepare import Step, prepared
workdir = Path(sys.argv[1])
step = Step(run_id="r", step_id="s", workdir=workdir)
argv = ["sh", "-c", f"setsid sleep {sys.argv[2]} & sleep {sys.argv[2]}"]
with prepared(argv, Confinement(kind="bwrap"), step, env=os.environ, cwd=workdir) as ready:
    asyncio.run(process.run(ready.argv, env=ready.env, cwd=workdir))
"""


def test_ends_with_its_handler(tmp_path: Path) -> None:
    """What runs inside ends when the process that started it is killed, in any session."""
    mark = f"3{os.getpid()}6"
    parent = subprocess.Popen([sys.executable, "-c", HANDLER, str(tmp_path), mark])

    def sleeping() -> int:
        return sum(line.startswith("sleep") for line in _found(mark))

    async def there() -> bool:
        return sleeping() == 2

    async def gone() -> bool:
        return not sleeping()

    run(eventually(there))
    parent.kill()
    parent.wait()
    run(eventually(gone))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"read": ["/no/such/path"]}, "read: '/no/such/path': No such file"),
        ({"write": ["/"]}, "write: '/' is too much"),
        ({"read": ["~"]}, "is too much"),
        ({"read": ["relative"]}, "read: 'relative' is not an absolute path"),
        ({"cwd": ROOT}, f"the working directory {ROOT!r} is not in the sandbox"),
    ],
)
def test_refused(context: Context, more: dict[str, Any], said: str) -> None:
    """What would be no sandbox, or is not there, is not started, and not tried again."""
    result = do(boxed("true", **more), context())
    assert (result.ok, result.retryable) == (False, False)
    assert result.error is not None
    assert said in result.error


def test_own_files_are_never_shown(context: Context) -> None:
    """Secrets, keys and the ledger's folder cannot be declared."""
    Path(paths.config_dir()).mkdir(parents=True, exist_ok=True)
    result = do(boxed("true", read=[str(Path(paths.config_dir()).parent)]), context())
    assert "what opsmesh itself keeps" in (result.error or "")


def test_a_program_that_it_does_not_show(context: Context, tmp_path: Path) -> None:
    """A program outside of the system's folders has to be declared, and then runs."""
    tool = tmp_path / "bin/tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho ran\n")
    tool.chmod(0o755)
    value = {"argv": [str(tool)], "sandbox": "bwrap"}
    assert "is not in the sandbox" in (do(value, context()).error or "")
    assert said(do({**value, "read": [str(tool.parent)]}, context())) == ["ran"]


def test_without_bwrap(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed the step fails: it never runs unconfined."""
    monkeypatch.setattr(host, "bwrap", lambda: "bwrap is not in PATH")
    ctx = context()
    result = do(boxed("touch ran"), ctx)
    assert (result.ok, result.retryable) == (False, False)
    assert result.error == "not started: bwrap is not in PATH"
    assert not (ctx.workdir / "ran").exists()


def test_memory(context: Context) -> None:
    """A program over its memory fails, by a control group or by a limit of each process."""
    result = do(
        boxed("head -c 200000000 /dev/zero | tail -c 100000000 | wc -c", memory="64M"), context()
    )
    assert result.output["stdout"].strip() != "100000000"


def test_time_of_a_step(context: Context) -> None:
    """A sandbox costs a step milliseconds."""
    do(boxed("true"), context())
    before = os.times()
    do(boxed("true"), context())
    assert sum(os.times()[:4]) - sum(before[:4]) < 0.5


def test_arguments_stay_as_they_are(context: Context, tmp_path: Path) -> None:
    """Through the sandbox every argument arrives byte for byte."""
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no python3 in /usr")
    words = ["$HOME", "$$", "%h", "a b", "", "x\ny", "é", "--ro-bind", "`id`", "${X}", "\x1b[2J"]
    script = "import json, sys; print(json.dumps(sys.argv[1:]))"
    result = do({"argv": [python, "-c", script, "--", *words], "sandbox": "bwrap"}, context())
    assert json.loads(result.output["stdout"]) == ["--", *words]
