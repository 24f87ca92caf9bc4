"""The sandbox `systemd`, with a real manager of the tests' own; and limits by scopes."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, limited, run
from tests.handlers.user_manager import CannotStart, user_manager

from opsmesh.handlers import leash, process
from opsmesh.handlers.actions.command import Command
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.errors import Unstartable
from opsmesh.handlers.sandbox import host, prepare, systemd, units
from opsmesh.handlers.sandbox.confinement import Confinement
from opsmesh.handlers.sandbox.prepare import Step, prepared

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("sandbox_systemd")


Context = Callable[..., StepContext]

#: Root's home.
ROOT = pwd.getpwuid(0).pw_dir


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The runtime folder of a manager that runs."""
    folder = tmp_path_factory.mktemp("runtime")
    manager = user_manager(folder)
    try:
        manager.__enter__()
    except CannotStart as why:
        pytest.skip(f"no manager: {why}")
    yield folder
    manager.__exit__(None, None, None)


@pytest.fixture
def manager(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The manager is the one that systemd-run finds."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    prepare.forget()
    yield runtime
    prepare.forget()


def do(value: Any, ctx: StepContext) -> StepResult:
    result = run(Command.parse(value).run(ctx))
    assert isinstance(result, StepResult)
    return result


def boxed(script: str, **more: Any) -> dict[str, Any]:
    return {"argv": ["sh", "-c", script], "sandbox": "systemd", **more}


def said(result: StepResult) -> list[str]:
    assert result.ok, result
    lines: list[str] = result.output["stdout"].splitlines()
    return lines


def names(left: list[str]) -> bool:
    """Whether no process has one of these words in its command line."""
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.encode() in line for word in left):
            return False
    return True


@pytest.mark.usefixtures("manager")
def test_its_own_folder(context: Context) -> None:
    """A program begins in its run's folder, may write there, and reads its event."""
    ctx = context()
    result = do(boxed('pwd; cat "$OPSMESH_EVENT" >copy; echo $HOME'), ctx)
    assert said(result) == [str(ctx.workdir), "/tmp"]
    assert (ctx.workdir / "copy").read_bytes() == ctx.data


@pytest.mark.usefixtures("manager")
def test_the_rest_is_read_only_or_hidden(context: Context, tmp_path: Path) -> None:
    """The system cannot be written to; homes, the runtime folder, /tmp and shared memory are
    its own."""
    (tmp_path / "other").write_text("x")
    script = (
        "touch /usr/x /etc/x /var/x 2>/dev/null || echo refused;"
        f"cat {tmp_path}/other 2>/dev/null || echo hidden; ls -A /home {ROOT} /run/user;"
        "cat /dev/shm/opsmesh-seen 2>/dev/null; echo x >/dev/shm/opsmesh-written"
    )
    seen = Path("/dev/shm/opsmesh-seen")
    seen.write_text("seen")
    try:
        assert said(do(boxed(script), context())) == [
            *("refused", "hidden", "/home:", "", f"{ROOT}:", "", "/run/user:")
        ]
        assert not seen.with_name("opsmesh-written").exists()
    finally:
        seen.unlink()


@pytest.mark.usefixtures("manager")
def test_no_network(context: Context) -> None:
    """It has a network namespace of its own unless the profile says otherwise."""
    outside = str(Path("/proc/self/ns/net").readlink())
    look = "readlink /proc/self/ns/net"
    assert said(do(boxed(look), context())) != [outside]
    assert said(do(boxed(look, network="yes"), context())) == [outside]


@pytest.mark.usefixtures("manager")
def test_declared_paths(context: Context, tmp_path: Path) -> None:
    """What is declared is there: to read, or to write too."""
    for name in ("in", "out put"):
        (tmp_path / name).mkdir()
    (tmp_path / "in/x").write_text("1\n")
    script = (
        f"cat {tmp_path}/in/x; echo 2 >'{tmp_path}/out put/y';"
        f"touch {tmp_path}/in/z 2>/dev/null || echo refused"
    )
    more = {"read": [f"{tmp_path}/in"], "write": [f"{tmp_path}/out put"]}
    assert said(do(boxed(script, **more), context())) == ["1", "refused"]
    assert (tmp_path / "out put/y").read_text() == "2\n"


@pytest.mark.usefixtures("manager")
def test_arguments_and_variables_stay_as_they_are(context: Context) -> None:
    """systemd reads neither arguments nor variables: no `$`, no `%`, no quotes."""
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no python3 in /usr")
    words = ["$HOME", "${HOME}", "$$", "%h", "%%", "a b", "", "x\ny", "é", "`id`", "\x1b[2J", "\\"]
    value = "x\"y'z $HOME ${A} `id` \\ \\n %h \t é\nnext"
    script = "import json, os, sys; print(json.dumps([sys.argv[2:], os.environ['A']]))"
    argv = [python, "-c", script, "--", *words]
    result = do({"argv": argv, "sandbox": "systemd", "env": {"A": value}}, context())
    assert json.loads(said(result)[0]) == [words, value]


@pytest.mark.usefixtures("manager")
def test_environment_is_not_the_managers(context: Context, runtime: Path) -> None:
    """What a person imported into the manager does not reach the program."""
    subprocess.run(["systemctl", "--user", "set-environment", "IMPORTED=1"], check=True)
    env = dict(line.split("=", 1) for line in said(do(boxed("env"), context())))
    assert not {"IMPORTED", "XDG_RUNTIME_DIR"} & env.keys()
    assert env["OPSMESH_RUN_ID"] == "run1"


@pytest.mark.usefixtures("manager")
def test_secrets_in_no_argument_and_no_property(context: Context) -> None:
    """A variable's value is neither in systemd-run's arguments nor in what the manager shows."""
    step = Step(run_id="r", step_id="s", workdir=context().workdir, timeout=10)
    env = {"PATH": os.environ["PATH"], "LAMP": "swordfish"}
    with prepared(
        ["sh", "-c", "echo ${#LAMP}; systemctl --version >/dev/null; sleep 60"],
        Confinement(kind="systemd"),
        step,
        env=env,
        own=frozenset(["LAMP"]),
        cwd=step.workdir,
    ) as ready:
        assert ready.unit is not None
        assert not any("swordfish" in word for word in ready.argv)
        unit = ready.unit

        async def look() -> str:
            running = asyncio.create_task(
                process.run(ready.argv, env=os.environ, cwd=step.workdir, unit=unit)
            )

            async def there() -> bool:
                return bool(units.pids(unit.name))

            await eventually(there)
            show = ["systemctl", "--user", "show", unit.name]
            shown = await asyncio.to_thread(subprocess.check_output, show, text=True)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return shown

        shown = run(look())
    assert "ExecMainPID" in shown
    assert "swordfish" not in shown


@pytest.mark.usefixtures("manager")
def test_exit_code_and_output(context: Context) -> None:
    """The program's exit code, outputs and limits are its own."""
    result = do(boxed("echo why >&2; printf 0123456789; exit 7", output_limit=4), context())
    assert (result.exit_code, result.error) == (7, "exit code 7: why")
    assert result.output["stdout"] == "6789"


@pytest.mark.usefixtures("manager")
def test_nothing_outlives_its_step(context: Context) -> None:
    """At the time limit the whole service ends, whatever session its processes are in."""
    mark = f"5{os.getpid()}1"
    program = boxed(f"setsid sleep {mark} & echo begun; sleep {mark}")
    result = limited(
        lambda seconds: do(program, context(timeout=seconds)), lambda one: one.output["stdout"]
    )
    assert result.timed_out

    async def gone() -> bool:
        return names([mark])

    run(eventually(gone))


@pytest.mark.usefixtures("manager")
def test_a_successor_finds_it(context: Context, tmp_path: Path) -> None:
    """A service whose handler was killed is ended by who takes its step over."""
    mark = f"5{os.getpid()}2"
    step = Step(run_id="r", step_id="s", workdir=context().workdir, timeout=60)
    file = tmp_path / "leash"
    with prepared(
        ["sleep", mark], Confinement(kind="systemd"), step, env=os.environ, cwd=step.workdir
    ) as ready:
        assert ready.unit is not None
        tie = leash.Leash(file)
        with tie.starting() as held:
            tie.unit(held, ready.unit)
            client = subprocess.Popen(ready.argv, cwd=step.workdir)
            tie.started(held, client.pid)
        unit = ready.unit

        async def there() -> bool:
            return bool(units.pids(unit.name))

        run(eventually(there))
        client.kill()  # as its handler was
        client.wait()
        assert units.pids(unit.name)
        run(leash.clear(file, spare=0))
    assert not units.pids(unit.name)
    assert names([mark])


@pytest.mark.usefixtures("manager")
def test_limits_are_the_units(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Memory, processor and tasks are limited by the control group of a scope, also without a
    sandbox, and the program stays our own child."""
    # which controllers the kernel delegates to a test is not ours to say: what is asked for is seen
    monkeypatch.setattr(host, "controllers", lambda: frozenset({"cpu", "memory", "pids"}))
    shown = "MemoryMax,MemorySwapMax,CPUQuotaPerSecUSec,TasksMax"
    runtime = os.environ["XDG_RUNTIME_DIR"]
    script = (
        "unit=$(grep -o 'opsmesh-[^/]*[.]scope' /proc/self/cgroup | head -n1);"
        f"XDG_RUNTIME_DIR={runtime} systemctl --user show --property={shown} $unit"
    )
    value = {"argv": ["sh", "-c", script], "memory": "64M", "cpu": "50%", "tasks": 9}
    assert sorted(said(do(value, context()))) == [
        "CPUQuotaPerSecUSec=500ms",
        "MemoryMax=67108864",
        "MemorySwapMax=0",
        "TasksMax=9",
    ]


@pytest.mark.usefixtures("manager")
def test_limits_around_bwrap(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox of bubblewrap is in the scope as a whole, and still hides what leads outside."""
    if why := host.bwrap():
        pytest.skip(why)
    monkeypatch.setattr(host, "controllers", lambda: frozenset({"cpu", "memory", "pids"}))
    value = {
        "argv": ["sh", "-c", "cat /proc/self/cgroup; env"],
        "sandbox": "bwrap",
        "tasks": 9,
    }
    lines = said(do(value, context()))
    assert any(line.startswith("0::/") for line in lines)
    assert not any(line.startswith(("XDG_RUNTIME_DIR", "DBUS_")) for line in lines)
    assert "HOME=/tmp" in lines


@pytest.mark.usefixtures("manager")
def test_nothing_outlives_a_scope(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit, what a program left in a session of its own ends with it, without a sandbox
    too."""
    monkeypatch.setattr(host, "controllers", lambda: frozenset({"cpu", "memory", "pids"}))
    mark = f"5{os.getpid()}3"
    script = f"setsid sleep {mark} >/dev/null 2>&1 & echo done"
    assert said(do({"argv": ["sh", "-c", script], "tasks": 50}, context())) == ["done"]
    assert names([mark])


@pytest.mark.usefixtures("manager")
def test_a_limit_that_nothing_would_hold(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager without the controller leaves a limit out in silence: the step is not started."""
    monkeypatch.setattr(host, "controllers", lambda: frozenset({"memory", "pids"}))
    ctx = context()
    result = do({"argv": ["touch", "ran"], "cpu": "50%"}, ctx)
    assert result.error == (
        "not started: cpu cannot be limited: the manager here has no controller 'cpu'"
    )
    assert not (ctx.workdir / "ran").exists()


def test_without_a_manager(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no manager answers the step fails: it never runs unconfined or unlimited."""
    monkeypatch.setattr(host, "manager", lambda: None)
    prepare.forget()
    ctx = context()
    for value in (boxed("touch ran"), {"argv": ["touch", "ran"], "tasks": 5}):
        result = do(value, ctx)
        assert (result.ok, result.retryable) == (False, False)
        assert "no systemd manager answers here" in (result.error or "")
    assert not (ctx.workdir / "ran").exists()
    prepare.forget()


def test_a_manager_that_confines_nothing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that sees the same file system is no sandbox, whatever the manager said."""
    monkeypatch.setattr(host, "manager", lambda: "--user")
    spaces = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "net")]
    monkeypatch.setattr(host, "run", lambda argv: (0, "\n".join(spaces)))
    monkeypatch.setattr(prepare, "_managers_variables", lambda manager: frozenset())
    prepare.forget()
    result = do(boxed("true"), context())
    assert "systemd does not confine a service here" in (result.error or "")
    prepare.forget()


@pytest.mark.parametrize("value", ["\x1b[2J", "a\rb", "\x7f"])
def test_variables_that_would_get_lost(value: str) -> None:
    """systemd drops a variable with a control character in silence: it is refused aloud."""
    with pytest.raises(Unstartable, match="control character"):
        systemd.variables({"A": value})


@pytest.mark.parametrize("value", ["\uffff", "a\U0001fffe", "\ufdd0", "\ud800"])
def test_what_is_no_character_to_systemd(value: str) -> None:
    """A variable that systemd would drop, and an argument that it would refuse, is named."""
    with pytest.raises(Unstartable, match="the variable A holds what is no character"):
        systemd.variables({"A": value})


@pytest.mark.parametrize("path", ["/a%h", '/a"b', "/a\\b", "/a:b", "/a\nb"])
def test_paths_that_systemd_would_read(path: str) -> None:
    """A path with a character that means something to systemd is refused."""
    with pytest.raises(Unstartable, match="a meaning to systemd"):
        systemd._path(Path(path))
