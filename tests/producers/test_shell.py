"""The shell producer as its own process, on files as the hooks write them, and by a real bash."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle
from tests.producers.shells import LAST, need, place, terminal, wire

from opsmesh.producers.errors import OptionError
from opsmesh.producers.shell import Shell, inbox
from opsmesh.producers.shell.line import Failed, parse
from opsmesh.producers.shell.wanted import Filter
from opsmesh.producers.shell.wiring import ShellWiring, hook
from opsmesh.producers.wiring import PROBED, OwnFile, SourceLine

#: As bash's hook writes it.
FACT: dict[str, Any] = {
    "exit": 2, "at": 1_795_000_000_123_456, "us": 4_000, "lost": 0, "command": "ls /nonexistent",
    "cwd": "/home/dev/app", "TERM": "tmux-256color", "TMUX": "/tmp/tmux-1000/work,77,3",
    "TMUX_PANE": "%5", "tty": "/dev/pts/4",
}  # fmt: skip


@contextmanager
def producing(*options: str, end: int = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
    """The producer as a process, once it watches; SIGTERM ends it, with exit code 0."""
    pairs = [word for pair in options for word in ("-o", pair)]
    command = [sys.executable, "-P", "-m", "opsmesh.producers.host", "shell", *pairs]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert b"watching" in process.stderr.readline()
        yield process
    finally:
        process.send_signal(end)
        _, said = process.communicate(timeout=60)
    assert process.returncode == (0 if end == signal.SIGTERM else -end), said.decode()


def write(file: Path, *facts: dict[str, Any]) -> None:
    """Lines of facts, each FACT with something else."""
    with file.open("a") as out:
        for fact in facts:
            out.write(f"\n{json.dumps({**FACT, **fact})}\n")


def commands(events: list[dict[str, Any]]) -> list[str]:
    return [e["payload"]["command"] for e in events if e["topic"] == "term.pane.command.failed"]


def several(enough: int, events: list[dict[str, Any]]) -> bool:
    """Whether so many different commands have been told."""
    return len({*commands(events)}) >= enough


def own(n: int = 1) -> str:
    """The name of a file whose shell is alive: this process."""
    return f"bash-{os.getpid()}-17950000.{n}.jsonl"


def failed(**other: Any) -> Failed:
    found = parse(json.dumps({**FACT, **other}).encode())
    assert found is not None
    return found


def test_a_line_becomes_an_event(agent: StandInAgent) -> None:
    """Everything that the hook saw, at the command's own time."""
    write(place() / own(), {})
    with producing():
        [event] = agent.wait_for(lambda events: bool(events))
    assert event["topic"] == "term.pane.command.failed"
    assert (event["source"], event["component"]) == ("shell", "bash")
    assert event["ts_utc"].startswith("2026-11-18T")
    assert event["ts_utc"].endswith(".123456Z")
    assert (event["exit_code"], event["duration_ms"]) == (2, 4.0)
    assert event["payload"] == {
        "command": "ls /nonexistent",
        "exit_code": 2,
        "shell": "bash",
        "duration_ms": 4.0,
        "cwd": "/home/dev/app",
        "multiplexer": "tmux",
        "session": "work:$3",
        "pane": "%5",
        "tty": "/dev/pts/4",
    }


def test_a_probe_is_told_and_fires_nothing(agent: StandInAgent) -> None:
    """What `doctor --probe` types is told whatever the user ignores, as no news, and farther from
    its first cause than a profile may allow."""
    write(place() / own(), {"command": f"{PROBED}1", "exit": 127}, {"exit": 127})
    with producing("ignore_exit=127"):
        [event] = agent.wait_for(lambda events: bool(events))
    assert commands([event]) == [f"{PROBED}1"]
    assert event["severity"] == "info"
    assert event["hops"] > 64


def test_an_event_is_of_the_shells_session_and_repository(
    agent: StandInAgent, tmp_path: Path
) -> None:
    """Not of the producer's, which runs elsewhere; a hook of before tells no login session."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "src").mkdir()
    here = {"cwd": str(tmp_path / "src"), "XDG_SESSION_ID": "9", "TMUX": ""}
    write(place() / own(), {"exit": 1, **here}, {"exit": 1, "OPSMESH_SESSION": "mine", **here})
    with producing():
        events = agent.wait_for(lambda events: len(events) == 2)
    assert [(event["session_id"], event["workspace"]) for event in events] == [
        ("9", str(tmp_path)),
        ("mine", str(tmp_path)),
    ]


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"ZELLIJ_SESSION_NAME": "d", "ZELLIJ_PANE_ID": "3", "TERM": "x"}, ("zellij", "d", "3")),
        ({"ZELLIJ_SESSION_NAME": "dev", "ZELLIJ_PANE_ID": "3"}, ("tmux", "work:$3", "%5")),
        ({"TMUX": "", "KITTY_WINDOW_ID": "7"}, ("kitty", "", "7")),
        ({"TMUX": "", "WEZTERM_PANE": "0"}, ("wezterm", "", "0")),
        ({"TMUX": "", "STY": "9.x", "WINDOW": "1", "TERM": "screen"}, ("screen", "9.x", "1")),
        ({"TMUX": ""}, ("", "", "")),
    ],
)  # fmt: skip
def test_the_innermost_place_is_told(variables: dict[str, str], found: tuple[str, ...]) -> None:
    """Of several multiplexers the one that the shell runs in."""
    fact = failed(**variables)
    assert (fact.multiplexer, fact.session, fact.pane) == found


def test_what_the_user_does_not_want_is_not_told() -> None:
    """Exit statuses, short ones, programs by name, commands by pattern, and private ones."""
    usual = {"ignore_exit": "130", "min_duration": "1ms", "ignore": "", "private": "told"}

    def takes(fact: Failed, **other: str) -> bool:
        return Filter.of(**{**usual, **other}).takes(fact)

    assert takes(failed())
    assert not takes(failed(exit=130))
    assert not takes(failed(us=999))
    assert not takes(failed(command="X=1 /bin/grep x"), ignore="test, grep")
    assert takes(failed(command="egrep x"), ignore="grep")
    assert not takes(failed(command="git bisect run x"), ignore="git bisect *")
    assert takes(failed(command=""), ignore="*")
    assert not takes(failed(command=""), private="dropped")


@pytest.mark.parametrize(
    "wrong",
    [{"ignore_exit": "0"}, {"ignore_exit": "²"}, {"min_duration": "x"}, {"private": "yes"}],
)
def test_a_wrong_option_is_named(wrong: dict[str, str]) -> None:
    """With its name and why."""
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Shell(**wrong)


def test_hostile_lines_never_become_events(agent: StandInAgent) -> None:
    """10,000 lines, cut, mangled or strange: each is skipped, and the good one after them told."""
    rng = random.Random(7)
    good = json.dumps(FACT).encode()
    lines = [b"[" * 5000, b"null", b'"x"', b"{}", b"\xff\xfe", b"NaN", b"9" * 5000]
    strange: list[dict[str, Any]] = [
        {"exit": True}, {"exit": 0}, {"exit": 256}, {"exit": -1}, {"exit": "2"}, {"at": -1},
        {"at": 1e300}, {"at": 10**30}, {"command": None}, {"command": ["x"]}, {"lost": None},
    ]  # fmt: skip
    lines += [json.dumps({**FACT, **other}).encode() for other in strange]
    while len(lines) < 10_000:
        lines.append(good[: rng.randrange(1, len(good))])
    assert [line for line in lines if parse(line) is not None] == []
    file = place() / own()
    file.write_bytes(b"\n".join(lines) + b"\n" + good + b"\n")
    (file.parent / "bash-x.jsonl").write_bytes(good + b"\n")
    (file.parent / own(2)).symlink_to("/dev/zero")
    os.mkfifo(file.parent / own(3))
    with producing():
        agent.wait_for(lambda events: bool(events))
    assert commands(agent.events) == ["ls /nonexistent"]


def test_a_cut_line_waits_for_its_end_and_spoils_nothing(agent: StandInAgent) -> None:
    """What is not whole yet is told once it is; what a killed shell left is dropped by the next."""
    file = place() / own()
    text = json.dumps({**FACT, "command": "first"})
    with producing():
        file.write_text("\n" + text[:50])
        # of another shell: one that has begun its next file writes to this one no more
        write(place() / f"zsh-{os.getpid()}-1.1.jsonl", {"command": "other"})
        agent.wait_for(lambda events: bool(events))
        with file.open("a") as out:
            out.write(text[50:] + "\n" + text[:30])
        write(file, {"command": "last"})
        agent.wait_for(lambda events: len(events) == 3)
    assert commands(agent.events) == ["other", "first", "last"]


def test_files_go_when_nobody_writes_them_any_more(agent: StandInAgent) -> None:
    """A file of a shell that is gone, and one whose shell has begun the next; not the last one."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    folder = place()
    write(folder / f"zsh-{gone.pid}-1.1.jsonl", {"command": "a"})
    (folder / f".bash-{gone.pid}").touch()
    (folder / f"fish-{gone.pid}-1.1.jsonl").write_text('\n{"exit":')
    write(folder / own(1), {"command": "b"})
    write(folder / own(2), {"command": "c"})
    with producing():
        until(lambda: [path.name for path in folder.iterdir()] == [own(2)])
    assert sorted(commands(agent.events)) == ["a", "b", "c"]


def test_what_a_shell_could_not_write_is_a_gap(agent: StandInAgent) -> None:
    """The number of failures that found no room is told before the one that did."""
    write(place() / own(), {"lost": 12})
    with producing():
        gap, _ = agent.wait_for(lambda events: len(events) == 2)
    assert gap["topic"] == "mesh.gap.detected"
    assert (gap["payload"]["kind"], gap["payload"]["lost"]) == ("inbox_full", 12)


def test_refused_events_do_not_stop_it(home: Path) -> None:
    """What the agent will not take is said, and passed over."""
    write(place() / own(), {"command": "a"}, {"command": "b"})
    with standing_in(home, refuse="no") as agent, producing():
        agent.wait_for(lambda events: len(events) == 2)


def emptied() -> bool:
    """Nothing is left in the inbox. The end of a shell wakes nobody, a new file does."""
    wake = inbox.folder() / "wake"
    wake.touch()
    wake.unlink()
    return not list(inbox.folder().iterdir())


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_tell_nothing_twice(
    agent: StandInAgent, home: Path, tmp_path: Path, kills: int
) -> None:
    """A real bash writes on and on, into ever new files, while the producer is killed."""
    need("bash")
    place()
    (tmp_path / "hook").write_text(hook("bash"))
    (tmp_path / "script").write_text(
        ". ./hook\n__opsmesh_typed() { REPLY=n$n; }\n__opsmesh_full=20000\n"
        "n=0\nwhile [[ ! -e stop || $__opsmesh_lost != 0 ]]; do\n"
        "    __opsmesh_failed 1 1 2 0\n    ((n += 1))\ndone\necho $n\n"
    )
    writer = subprocess.Popen(
        ["bash", "--norc", "-i", "script"], cwd=tmp_path, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    try:
        for n in range(kills):
            with producing(end=signal.SIGKILL):
                enough = 20 * (n + 1)
                agent.wait_for(partial(several, enough))
        (tmp_path / "stop").touch()
        with producing():
            out, _ = writer.communicate(timeout=60)
            until(emptied)
    finally:
        writer.kill()
    by_id = {event["id"]: event for event in agent.events}
    said = commands(list(by_id.values()))
    lost = sum(e["payload"].get("lost", 0) for e in by_id.values())
    assert len(said) == len({*said})
    assert len(said) + lost == int(out)


@pytest.mark.slow
def test_a_mesh_that_hangs_keeps_no_shell_waiting(home: Path) -> None:
    """A real bash goes on at once, and its failures arrive through the spool."""
    need("tmux", "bash")
    wire(home, "bash")
    with standing_in(home, hang=True), producing(), terminal(home, "bash") as pane:
        pane.type(*(f"sh -c 'exit {n}'" for n in (1, 2)), LAST, "echo do''ne")
        pane.shows("\ndone")
        # looked at while it runs: a write that SIGTERM meets is taken back, and made again later
        until(lambda: [event["exit_code"] for event in spooled(home)] == [1, 2, 99])


def test_it_is_light(home: Path) -> None:
    """Idle, it holds less than 30 MB and uses no CPU."""
    rss, cpu = idle("shell", {}, home)
    assert rss < 30
    assert cpu < 0.5


def test_the_wiring_names_hooks_and_lines(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A hook for each shell that is installed; bash and zsh load theirs by a safe line."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ZDOTDIR", str(home / "z"))
    assert ShellWiring().missing() == "none of bash, zsh, fish is on PATH"
    for shell in ("bash", "zsh", "fish"):
        (programs / shell).write_text("")
        (programs / shell).chmod(0o755)
    assert ShellWiring().missing() is None
    pieces = ShellWiring().pieces()
    files = [piece.path for piece in pieces if isinstance(piece, OwnFile)]
    lines = {piece.path: piece.line for piece in pieces if isinstance(piece, SourceLine)}
    data = home / "data/opsmesh/shell"
    fish = home / "config/fish/conf.d/opsmesh.fish"
    assert files == [data / "opsmesh.bash", data / "opsmesh.zsh", fish]
    assert [*lines] == [home / ".bashrc", home / "z/.zshrc"]
    for line in lines.values():  # the files do not exist
        subprocess.run(["/bin/sh", "-euc", line], check=True)
