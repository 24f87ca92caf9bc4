"""`opsmesh exec` around real commands: what they see, what comes out, and what is told."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import limited
from tests.producers.agent import StandInAgent, spooled, standing_in, until

from opsmesh.schemas import registry

RUN = """
import sys
from opsmesh.producers.exec import run
options, argv = eval(sys.argv[1]), sys.argv[2:]
sys.exit(run.run(argv, **options))
"""


def words(argv: Sequence[str], **options: Any) -> list[str]:
    return [sys.executable, "-c", RUN, repr({"watch_pytest": False, **options}), *argv]


def execute(
    *argv: str, stdin: str = "", cwd: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words(argv, **options),
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def overdue(
    *argv: str, says: str, **options: Any
) -> tuple[subprocess.CompletedProcess[str], float]:
    """What becomes of a command that has said this when its time limit is over; the limit."""

    def within(seconds: float) -> tuple[subprocess.CompletedProcess[str], float]:
        return execute(*argv, timeout=seconds, **options), seconds

    return limited(within, lambda done: says in done[0].stdout)


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def test_a_good_command_is_no_event(agent: StandInAgent) -> None:
    """Success passes input and output through, and tells nothing."""
    done = execute("sh", "-c", "cat; echo err >&2", stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "err\n")
    assert agent.events == []


def test_a_failing_command_is_told_with_the_end_of_its_output(
    agent: StandInAgent, tmp_path: Path
) -> None:
    """The exit code passes through, and the event holds command, folder, code and last output."""
    done = execute("sh", "-c", "echo begin; echo broken >&2; exit 3", cwd=tmp_path)
    assert done.returncode == 3
    [event] = agent.events
    assert event["topic"] == "shell.command.failed"
    assert event["payload"]["exit_code"] == 3
    assert event["payload"]["cwd"] == str(tmp_path)
    assert sorted(event["payload"]["output_tail"].split()) == ["begin", "broken"]
    assert (event["source"], event["component"], event["workspace"]) == (
        "exec",
        "sh",
        str(tmp_path),
    )
    registry.load_registry(None).check(event["topic"], event["payload"])


def test_the_event_is_of_the_repository_and_the_terminal(
    agent: StandInAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workspace is the git root, its session that of the terminal it runs in."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "src").mkdir()
    monkeypatch.setenv("TERM", "tmux-256color")
    monkeypatch.setenv("TMUX", "/tmp/tmux-1000/default,4711,3")
    execute("false", cwd=tmp_path / "src")
    [event] = agent.events
    assert (event["workspace"], event["session_id"]) == (str(tmp_path), "tmux:default:$3")


def test_the_kept_output_is_bounded_and_the_passed_one_is_not(agent: StandInAgent) -> None:
    """A megabyte comes out byte for byte; the event has its last 8 kB."""
    done = execute(*python("print('x' * 1_000_000 + 'end'); raise SystemExit(1)"))
    assert len(done.stdout) == 1_000_004
    assert len(agent.events[0]["payload"]["output_tail"]) == 8 * 1024
    assert agent.events[0]["payload"]["output_tail"].endswith("end\n")


def test_one_file_for_both_streams_keeps_their_order(home: Path) -> None:
    """With 2>&1 the lines of both streams stay in the order in which they were written."""
    code = "import os\nfor n in range(200): os.write(1 + n % 2, b'%d\\n' % n)"
    done = subprocess.run(
        words(python(code)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    )
    assert done.stdout.split() == [b"%d" % n for n in range(200)]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGTERM"])
def test_a_signal_is_128_and_its_number(agent: StandInAgent, name: str) -> None:
    """A command that a signal ends gives 128 + n, and the event names the signal."""
    done = execute("sh", "-c", f"kill -{name[3:]} $$")
    assert done.returncode == 128 + signal.Signals[name]
    assert agent.events[0]["payload"]["signal"] == name
    assert "exit_code" not in agent.events[0]["payload"]


def test_an_interrupted_command_is_no_event(agent: StandInAgent) -> None:
    """Ctrl-C is what the user wanted: 130, and nothing is told."""
    assert execute("sh", "-c", "kill -INT $$").returncode == 130
    assert execute("sh", "-c", "exit 130").returncode == 130
    assert agent.events == []


def test_a_command_that_turns_an_interrupt_into_a_failure_is_no_event(
    agent: StandInAgent,
) -> None:
    """SIGINT to exec reaches the command; answered with exit code 2, it is still an interrupt."""
    code = "trap 'exit 2' INT; echo up; while :; do sleep 0.01; done"
    process = subprocess.Popen(words(["sh", "-c", code]), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert agent.events == []


def test_a_signal_to_us_reaches_everything_that_the_command_started(
    agent: StandInAgent, tmp_path: Path
) -> None:
    """SIGTERM to exec ends the command and its children."""
    code = "sleep 600 & echo $! > child; echo up; wait"
    process = subprocess.Popen(words(["sh", "-c", code]), cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_time_limit_ends_the_command_and_is_told(agent: StandInAgent, tmp_path: Path) -> None:
    """TERM comes after the limit: exit code 124, and python.run.timeout."""
    code = "sleep 600 & echo $! > child; echo up; wait"
    done, seconds = overdue("sh", "-c", code, says="up", grace=60, cwd=tmp_path)
    assert done.returncode == 124
    event = agent.events[-1]
    assert event["topic"] == "python.run.timeout"
    assert event["payload"]["signal"] == "SIGTERM"
    assert event["payload"]["timeout_s"] == seconds
    assert event["payload"]["output_tail"] == "up\n"
    registry.load_registry(None).check(event["topic"], event["payload"])
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child))


def test_what_ignores_term_is_killed_after_the_grace(agent: StandInAgent) -> None:
    """KILL follows the grace, and the event says so."""
    code = "trap '' TERM; echo deaf; while :; do sleep 0.05; done"
    done, _ = overdue("sh", "-c", code, says="deaf", grace=0.1)
    assert done.returncode == 124
    assert agent.events[-1]["payload"]["signal"] == "SIGKILL"


def test_the_grace_is_for_all_that_the_command_started(agent: StandInAgent, tmp_path: Path) -> None:
    """A shell ends at TERM; what it started may still write down where it was, and its last words
    are heard."""
    saves = "trap 'sleep 0.3; : > saved; echo saved; exit' TERM; echo epoch\n"
    saves += "while :; do sleep 0.05; done\n"
    (tmp_path / "train").write_text(saves)
    pipe = "sh train; echo never"
    done, _ = overdue("sh", "-c", pipe, says="epoch", grace=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (124, "epoch\nsaved\n")
    assert (tmp_path / "saved").exists()
    assert agent.events[-1]["payload"]["signal"] == "SIGTERM"


def test_what_outlives_the_command_is_killed_after_the_grace(
    agent: StandInAgent, tmp_path: Path
) -> None:
    """A child that ignores TERM has the grace, and no more, when its shell is gone."""
    deaf = "trap '' TERM; until [ -s child ]; do sleep 0.01; done; echo up"
    code = f"({deaf}; while :; do sleep 0.05; done) & echo $! > child; wait"
    done, _ = overdue("sh", "-c", code, says="up", grace=0.3, cwd=tmp_path)
    assert done.returncode == 124
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child))


def test_a_command_that_is_not_there_is_127(agent: StandInAgent, tmp_path: Path) -> None:
    """As in a shell: 127 for no such command, 126 for no executable; one line, no traceback."""
    done = execute("no-such-command-here")
    assert (done.returncode, done.stderr.count("\n")) == (127, 1)
    (tmp_path / "plain").write_text("")
    assert execute(str(tmp_path / "plain")).returncode == 126
    assert [event["payload"]["exit_code"] for event in agent.events] == [127, 126]


def test_a_reader_that_has_enough_ends_the_command_without_an_event(agent: StandInAgent) -> None:
    """`opsmesh exec -- yes | head` ends, and is no failure."""
    process = subprocess.Popen(words(["yes"]), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert agent.events == []


def test_a_background_process_does_not_hold_us_up(home: Path) -> None:
    """exec ends with its command, although a process that it left behind has the output open."""
    process = subprocess.Popen(
        words(["sh", "-c", "sleep 600 & echo $!"]), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.wait(60) == 0
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_background_process_that_writes_on_does_not_hold_us_up(home: Path) -> None:
    """exec ends with its command, although something that it left behind writes without end."""
    writer = "while :; do echo more; done"
    process = subprocess.Popen(words(["sh", "-c", f"({writer}) & true"]), stdout=subprocess.DEVNULL)
    assert process.wait(60) == 0


def test_with_no_agent_the_event_is_in_the_spool(home: Path) -> None:
    """The failure is kept, and the exit code is the command's."""
    assert execute("false").returncode == 1
    assert [event["topic"] for event in spooled(home)] == ["shell.command.failed"]


def test_no_agent_and_no_spool_only_cost_a_line(tmp_path: Path, home: Path) -> None:
    """When the event cannot be kept, the exit code is still the command's."""
    (home / "state/opsmesh").write_text("a file where the folder should be")
    done = execute("sh", "-c", "exit 4", watch_pytest=True)
    assert done.returncode == 4
    assert done.stderr.startswith("opsmesh exec: the event was not kept: ")


def test_an_agent_that_hangs_does_not_hold_the_event(home: Path) -> None:
    """With no answer in time the spool takes the event."""
    with standing_in(home, hang=True):
        assert execute("false").returncode == 1
    assert len(spooled(home)) == 1


def test_pytest_below_a_command_is_seen_in_any_project(agent: StandInAgent, tmp_path: Path) -> None:
    """A pytest of a shell script is told, and shares run and correlation with the command."""
    (tmp_path / "test_it.py").write_text("def test_bad(): assert 0\n")
    line = f"cd . && {sys.executable} -m pytest -q -p no:cacheprovider"
    # -I would hide PYTHONPATH; the plugin that is installed beside us must not be what is found
    done = execute("sh", "-c", line, cwd=tmp_path, watch_pytest=True)
    assert done.returncode == 1
    by_topic = {event["topic"]: event for event in agent.events}
    assert set(by_topic) == {"python.test.failed", "shell.command.failed"}
    assert len({(event["run_id"], event["correlation_id"]) for event in agent.events}) == 1


def test_the_private_folder_alone_makes_the_plugin_found(home: Path, tmp_path: Path) -> None:
    """The folder on PYTHONPATH holds the plug-ins and their metadata, and nothing else."""
    done = execute(*python("import os; print(os.environ['PYTHONPATH'])"), watch_pytest=True)
    folder = Path(done.stdout.strip().rpartition(":")[2])
    held = {path.name for path in folder.iterdir() if path.suffix != ".dist-info"}
    assert held - {"__pycache__"} == {"marimo_opsmesh", "pytest_opsmesh", "sitecustomize.py"}
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import importlib.metadata as metadata;"
        "print([point.value for point in metadata.entry_points(group='pytest11')])"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "['pytest_opsmesh']"


def test_an_outdated_plugin_in_the_private_folder_is_replaced(home: Path) -> None:
    """The next exec writes the plugin anew."""
    folder = home / "state/opsmesh/pytest"
    (folder / "pytest_opsmesh").mkdir(parents=True)
    stale = [folder / "pytest_opsmesh/hooks.py", folder / "pytest_opsmesh.py"]
    for path in stale:
        path.write_text("raise SystemExit('stale')\n")
    execute("true", watch_pytest=True)
    assert "stale" not in stale[0].read_text()
    assert not stale[1].exists()


def test_a_replaced_pythonpath_does_not_fail_pytest(agent: StandInAgent, tmp_path: Path) -> None:
    """A Makefile's `PYTHONPATH=src pytest` runs as it would without us."""
    (tmp_path / "test_it.py").write_text("def test_good(): pass\n")
    line = f"PYTHONPATH=src {sys.executable} -m pytest -q -p no:cacheprovider"
    assert execute("sh", "-c", line, cwd=tmp_path, watch_pytest=True).returncode == 0


def test_unittest_before_pytest_is_no_warning(home: Path, tmp_path: Path) -> None:
    """A program that imports unittest, and runs pytest with warnings as errors, runs as ever."""
    (tmp_path / "test_it.py").write_text("def test_good(): pass\n")
    code = (
        "import unittest, pytest, sys; sys.exit(pytest.main(['-q', '-W', 'error', '-p',"
        " 'no:cacheprovider', '-p', 'pytest_opsmesh']))"
    )
    done = execute(*python(code), cwd=tmp_path, watch_pytest=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pytest_that_vanishes_is_told_with_its_test(agent: StandInAgent, tmp_path: Path) -> None:
    """os._exit(0) in a test looks like success to all but exec."""
    (tmp_path / "test_it.py").write_text("import os\ndef test_gone(): os._exit(0)\n")
    argv = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert execute(*argv, cwd=tmp_path, watch_pytest=True).returncode == 0
    [event] = agent.events
    assert event["topic"] == "python.test.failed"
    assert event["payload"]["nodeid"] == "test_it.py::test_gone"
    assert event["payload"]["phase"] == "crash"
    registry.load_registry(None).check(event["topic"], event["payload"])


def on_a_terminal(
    argv: Sequence[str], keys: bytes = b"", after: bytes = b"", *, around: str = 'exec "$@"'
) -> tuple[int, bytes]:
    """Exit code and screen of exec on a terminal; `keys` are pressed once `after` was seen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", around, "sh", *words(argv)])
    screen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if keys and after in screen:
            os.write(terminal, keys)
            keys = b""
        readable, _, _ = select.select([terminal], [], [], 1)
        try:
            data = os.read(terminal, 4096) if readable else b""
        except OSError:  # nobody has the terminal open any more
            break
        screen += data
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), screen


def test_on_a_terminal_the_command_has_one_too(agent: StandInAgent) -> None:
    """All three streams are terminals for the command, and it can open /dev/tty."""
    code = (
        "import os, sys; print([os.isatty(n) for n in (0, 1, 2)]);"
        "open('/dev/tty').close(); sys.exit(5)"
    )
    status, screen = on_a_terminal(python(code))
    assert status == 5
    assert b"[True, True, True]\r\n" in screen
    assert agent.events[0]["payload"]["output_tail"].startswith("[True, True, True]")


def test_on_a_terminal_ctrl_c_reaches_the_command(agent: StandInAgent) -> None:
    """Ctrl-C interrupts the command, and is no event."""
    sleeper = python("import time; print('ready', flush=True); time.sleep(600)")
    status, _ = on_a_terminal(sleeper, b"\x03", b"ready")
    assert status == 130
    assert agent.events == []


def test_on_a_terminal_an_interrupt_that_is_caught_is_no_event(agent: StandInAgent) -> None:
    """Ctrl-C as the last key makes any exit code the user's own doing."""
    code = "trap 'exit 2' INT; echo ready; while :; do sleep 0.01; done"
    status, _ = on_a_terminal(["sh", "-c", code], keys=b"\x03", after=b"ready")
    assert status == 2
    assert agent.events == []


def test_on_a_terminal_keys_reach_the_command(home: Path) -> None:
    """What is typed is the command's input."""
    code = "echo ready; read line; echo got $line"
    status, screen = on_a_terminal(["sh", "-c", code], keys=b"hello\r", after=b"ready")
    assert status == 0
    assert b"got hello" in screen


def test_with_redirected_output_the_command_keeps_the_terminal(
    agent: StandInAgent, tmp_path: Path
) -> None:
    """`opsmesh exec -- ssh … > file` can still ask for a password, and hears Ctrl-C."""
    out = tmp_path / "out"
    code = "echo kept; echo ask > /dev/tty; read line < /dev/tty; echo got $line; exit 3"
    around = f'exec "$@" > {out}'
    status, screen = on_a_terminal(["sh", "-c", code], b"word\r", b"ask", around=around)
    assert (status, out.read_text()) == (3, "kept\ngot word\n")
    assert b"kept" not in screen
    assert agent.events[0]["payload"]["output_tail"] == "kept\ngot word\n"
    sleeper = python("import os, time; os.write(0, b'ready'); time.sleep(600)")
    status, _ = on_a_terminal(sleeper, b"\x03", b"ready", around=around)
    assert (status, len(agent.events)) == (130, 1)


@pytest.mark.skipif(shutil.which("stty") is None, reason="stty is not installed")
def test_the_terminal_is_left_as_it_was(home: Path) -> None:
    """The settings of the terminal after exec are those before it."""
    script = 'stty -g; "$@"; stty -g'
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", script, "sh", *words(["true"])])
    screen = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        screen += data
    os.waitpid(pid, 0)
    os.close(terminal)
    before, after = screen.split()
    assert before == after
