"""The dotfiles producer as its own process, on folders of real git, stow and yadm."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle
from tests.producers.strokes import put, unseen

CHANGED, DRIFTED = "config.change.detected", "config.drift.detected"
QUICK = ("settle=200ms", "max_wait=5s")
NO_DRIFT = (*QUICK, "drift_every=off")


def needs(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            assert not os.environ.get("CI"), f"{tool} must be there in CI"
            pytest.skip(f"{tool} is not installed (Debian: {tool})")


@pytest.fixture
def user(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a git that knows its user."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (home / ".gitconfig").write_text(
        "[user]\n name = Dev\n email = dev@example.org\n[init]\n defaultBranch = main\n"
    )
    return home


@pytest.fixture
def dots(user: Path) -> Path:
    """A git repository of dotfiles with one commit."""
    needs("git")
    folder = user / "dots"
    (folder / "nvim").mkdir(parents=True)
    (folder / "bashrc").write_text("alias ll='ls -l'\n")
    (folder / "nvim/init.lua").write_text("vim.o.number = true\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True
    )
    return done.stdout


@contextmanager
def producing(source: Path | str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The producer as a process, once it watches; SIGTERM ends it, with exit code 0."""
    pairs = [word for pair in (f"source={source}", *options) for word in ("-o", pair)]
    command = [sys.executable, "-P", "-m", "opsmesh.producers.host", "dotfiles", *pairs]
    log = Path(os.environ["XDG_STATE_HOME"], f"said.{os.urandom(4).hex()}")
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file)
    try:
        until(lambda: b"in place" in log.read_bytes() or process.poll() is not None)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 0, log.read_text()


def of(events: list[dict[str, Any]], topic: str) -> list[dict[str, Any]]:
    return [event for event in events if event["topic"] == topic]


def names(event: dict[str, Any], root: Path) -> list[str]:
    """The event's paths below the root."""
    return [os.path.relpath(path, root) for path in event["payload"]["paths"]]


def changes(agent: StandInAgent, count: int) -> list[dict[str, Any]]:
    return of(agent.wait_for(lambda events: len(of(events, CHANGED)) >= count), CHANGED)


def test_a_burst_is_one_event_and_editors_leavings_are_none(
    dots: Path, agent: StandInAgent
) -> None:
    """A save through a new file, swap files and all, is one event with one path."""
    with producing(dots, *NO_DRIFT) as process:
        with unseen(process):
            (dots / ".bashrc.swp").write_text("swap")
            (dots / "4913").write_text("")
            (dots / "4913").unlink()
            (dots / "bashrc").rename(dots / "bashrc~")
            (dots / "bashrc").write_text("alias ll='ls -la'\n")
            (dots / "bashrc~").unlink()
            (dots / ".bashrc.swp").unlink()
        (event,) = changes(agent, 1)
        assert names(event, dots) == ["bashrc"]
        assert event["payload"]["tool"] == "git"
        assert event["payload"]["changes"] >= 1
        put(dots / "zshrc", "z")
        assert names(changes(agent, 2)[1], dots) == ["zshrc"]


def test_new_and_moved_folders_are_followed(dots: Path, agent: StandInAgent) -> None:
    """A folder made, moved, and moved out again: its files are told, and later ones too."""
    outside = dots.parent / "outside"
    with producing(dots, *NO_DRIFT):
        (dots / "a/b/c").mkdir(parents=True)
        put(dots / "a/b/c/one", "1")
        assert names(changes(agent, 1)[0], dots) == ["a/b/c/one"]
        (dots / "a").rename(dots / "z")
        assert names(changes(agent, 2)[1], dots) == ["a/b/c/one", "z/b/c/one"]
        put(dots / "z/b/c/one", "2")
        assert names(changes(agent, 3)[2], dots) == ["z/b/c/one"]
        (dots / "z").rename(outside)
        assert names(changes(agent, 4)[3], dots) == ["z/b/c/one"]
        (outside / "b/c/one").write_text("3")  # ours no more
        put(dots / "last", "l")
        assert names(changes(agent, 5)[4], dots) == ["last"]


@pytest.mark.slow
def test_twenty_git_operations_give_one_event_each_and_none_from_git(
    dots: Path, agent: StandInAgent
) -> None:
    """checkout, stash, rebase: one event each of the files; commits and refs are none."""
    git(dots, "checkout", "-qb", "other")
    (dots / "nvim/init.lua").write_text("-- other\n")
    (dots / "tmux.conf").write_text("set -g mouse on\n")
    git(dots, "add", ".")
    git(dots, "commit", "-qm", "two")
    git(dots, "checkout", "-q", "main")
    done = 0

    def one(*words: str) -> None:
        nonlocal done
        git(dots, *words)
        done += 1
        told = changes(agent, done)
        assert len(told) == done
        assert not [path for event in told for path in event["payload"]["paths"] if ".git" in path]

    with producing(dots, *NO_DRIFT):
        for _ in range(6):
            one("checkout", "-q", "other")
            git(dots, "commit", "-q", "--allow-empty", "-m", "nothing in the files")
            one("checkout", "-q", "main")
        for _ in range(3):
            (dots / "bashrc").write_text(f"# {done}\n")
            done += 1
            changes(agent, done)
            one("stash", "-q")
            one("stash", "pop", "-q")
            git(dots, "checkout", "-q", "bashrc")
            done += 1
            changes(agent, done)
        git(dots, "commit", "-q", "--allow-empty", "-m", "main goes on")
        one("checkout", "-q", "other")
        git(dots, "rebase", "-q", "main")  # the same files again: no change at its end
        one("checkout", "-q", "main")
        (dots / "end").write_text("e")
        assert names(changes(agent, done + 1)[-1], dots) == ["end"]
    assert len(of(agent.events, CHANGED)) == done + 1


def test_hostile_names_are_told_as_text(dots: Path, agent: StandInAgent) -> None:
    """Newlines, bytes that are no UTF-8, pipes and links in a circle hurt nobody."""
    with producing(dots, *NO_DRIFT) as process:
        root = os.fsencode(dots)
        with unseen(process):
            for name in (b"new\nline", b"bad\xff\xfe", b"\x1b[31mred", b"x" * 255):
                with open(os.path.join(root, name), "wb") as file:  # noqa: PTH118, PTH123
                    file.write(b"x")
            os.mkfifo(dots / "pipe")
            (dots / "circle").symlink_to(dots)
        (event,) = changes(agent, 1)
    assert set(names(event, dots)) == {
        "new\nline",
        "bad\\xff\\xfe",
        "\x1b[31mred",
        "x" * 255,
        "pipe",
        "circle",
    }


@pytest.mark.slow
def test_ten_thousand_files_at_once_are_events_that_fit(dots: Path, agent: StandInAgent) -> None:
    """The paths of an event are bounded, and the number of changes is told beside them."""
    with producing(dots, "settle=1s", "max_wait=30s", "drift_every=off"):
        for folder in range(20):
            (dots / f"d{folder}").mkdir()
            for file in range(500):
                (dots / f"d{folder}" / f"{file} \n{'é' * 40}").touch()
        told = agent.wait_for(
            lambda events: sum(event["payload"]["changes"] for event in events) >= 10_000
        )
    assert all(0 < len(event["payload"]["paths"]) <= 500 for event in told)


def test_what_changed_while_it_was_away_is_told_at_its_start(
    dots: Path, home: Path, agent: StandInAgent
) -> None:
    """The first start tells nothing; a later one what came, went and changed meanwhile, once."""
    with producing(dots, *NO_DRIFT):
        pass
    assert agent.events == []
    (dots / "bashrc").write_text("changed\n")
    (dots / "nvim/init.lua").unlink()
    (dots / "new").write_text("n")
    memory = home / "state/opsmesh/producers/dotfiles/memory.json"
    for _ in range(2):
        with producing(dots, *NO_DRIFT):
            (event,) = changes(agent, 1)
            # noted as told: one that is stopped before that is told again, under the same id
            until(lambda: '"pending": null' in memory.read_text())
    assert names(event, dots) == ["bashrc", "new", "nvim/init.lua"]


@pytest.mark.slow
def test_killed_and_started_twenty_times_it_tells_everything_once(
    dots: Path, agent: StandInAgent
) -> None:
    """kill -9 at whatever moment: each content is told, under one id."""
    for turn in range(20):
        (dots / f"f{turn}").write_text(str(turn))
        with producing(dots, *NO_DRIFT) as process:
            (dots / f"g{turn}").write_text(str(turn))
            if turn % 2:
                process.kill()
                process.wait()
                process.returncode = 0
    with producing(dots, *NO_DRIFT):
        agent.wait_for(
            lambda events: (
                {f"g{turn}" for turn in range(20)} | {f"f{turn}" for turn in range(1, 20)}
                <= {path for event in of(events, CHANGED) for path in names(event, dots)}
            )
        )
    told = {event["id"]: names(event, dots) for event in of(agent.events, CHANGED)}
    paths = [path for each in told.values() for path in each]
    assert len(paths) == len(set(paths))


@pytest.mark.slow
def test_a_source_that_goes_and_comes_back_twenty_times(dots: Path, agent: StandInAgent) -> None:
    """Each time its files are told as gone, and told again."""
    kept, staging = dots.parent / "kept", dots.parent / "staging"
    shutil.copytree(dots, kept, ignore=shutil.ignore_patterns(".git"))
    shutil.rmtree(dots / ".git")
    with producing(f"{dots}:git", *NO_DRIFT):
        for turn in range(20):
            shutil.rmtree(dots)
            changes(agent, 2 * turn + 1)
            shutil.copytree(kept, staging)
            staging.rename(dots)
            changes(agent, 2 * turn + 2)
        (dots / "bashrc").write_text("still watched\n")
        told = changes(agent, 41)
    assert len(told) == 41
    assert {tuple(names(event, dots)) for event in told[:40]} == {("bashrc", "nvim/init.lua")}
    assert names(told[40], dots) == ["bashrc"]


@pytest.mark.slow
def test_a_mesh_that_hangs_keeps_nobody_waiting(dots: Path, home: Path) -> None:
    """Changes go to the spool, every one."""
    with standing_in(home, hang=True), producing(dots, *NO_DRIFT):
        for turn in range(2):
            put(dots / f"n{turn}", "x")
            until(lambda turn=turn: len(spooled(home)) > turn)  # type: ignore[misc]
        # looked at while it runs: a write that SIGTERM meets is taken back, and made again later
        until(lambda: [names(event, dots) for event in spooled(home)] == [["n0"], ["n1"]])


def test_git_drift_is_told_when_it_changes_and_when_it_is_gone(
    dots: Path, agent: StandInAgent
) -> None:
    """Modified and untracked files with git's letters; an empty list at the end; no lock."""
    with producing(dots, *QUICK):
        (dots / "bashrc").write_text("other\n")
        (event,) = of(agent.wait_for(lambda events: bool(of(events, DRIFTED))), DRIFTED)
        assert event["payload"]["states"] == {"bashrc": " M"}
        git(dots, "checkout", "-q", "bashrc")
        agent.wait_for(lambda events: len(of(events, DRIFTED)) == 2)
    gone = of(agent.events, DRIFTED)[1]
    assert gone["payload"]["paths"] == []
    assert gone["severity"] == "info"


def test_stow_missing_links_and_conflicts(user: Path, agent: StandInAgent) -> None:
    """Packages that are stowed are asked for, one that never was is not."""
    needs("stow")
    dots = user / "dotfiles"
    for package, name in (("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".fishrc")):
        (dots / package).mkdir(parents=True)
        (dots / package / name).write_text(package)
    subprocess.run(["stow", "bash", "zsh"], cwd=dots, check=True)
    with producing("auto", *QUICK):
        memory = user / "state/opsmesh/producers/dotfiles/memory.json"
        until(lambda: memory.exists() and '"drift"' in memory.read_text())
    assert agent.events == []
    (user / ".zshrc").unlink()
    (user / ".zshrc").write_text("written by an installer\n")
    (user / ".bashrc").unlink()
    with producing("auto", *QUICK):
        (event,) = agent.wait_for(lambda events: len(events) == 1)
    assert event["payload"] == {
        "tool": "stow",
        "source_dir": str(dots),
        "paths": [".bashrc", ".zshrc"],
        "states": {".bashrc": "missing", ".zshrc": "conflict"},
    }


def test_yadm_its_tracked_files_alone_are_watched(user: Path, agent: StandInAgent) -> None:
    """A tracked file of the home folder is told, and drifts; its neighbours are nobody's matter."""
    needs("yadm", "git")
    (user / ".vimrc").write_text("set nu\n")

    def yadm(*words: str) -> None:
        subprocess.run(["yadm", *words], check=True, capture_output=True)

    yadm("init")
    yadm("add", str(user / ".vimrc"))
    yadm("commit", "-qm", "one")
    with producing("auto", *QUICK):
        (user / "novel.txt").write_text("not a dotfile")
        put(user / ".vimrc", "set nonu\n")
        agent.wait_for(lambda events: len(events) == 2)
        (user / ".tmux.conf").write_text("t")
        yadm("add", str(user / ".tmux.conf"))
        agent.wait_for(lambda events: len(events) == 4)
    change, added = of(agent.events, CHANGED)
    drift, _ = of(agent.events, DRIFTED)  # it is asked for at the start too: in either order
    assert names(change, user) == [".vimrc"]
    assert drift["payload"]["states"] == {".vimrc": " M"}
    assert names(added, user) == [".tmux.conf"]
    assert drift["payload"]["tool"] == "yadm"


def test_a_bare_repository_with_its_work_tree_in_home(user: Path, agent: StandInAgent) -> None:
    """`git --git-dir ~/.cfg --work-tree ~` is recognised, and only what it tracks is watched."""
    needs("git")
    (user / ".inputrc").write_text("set bell-style none\n")
    bare = user / ".cfg"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    git(user, "--git-dir", str(bare), "--work-tree", str(user), "add", ".inputrc")
    with producing("auto", *NO_DRIFT):
        (user / "other").write_text("x")
        put(user / ".inputrc", "set bell-style visible\n")
        (event,) = changes(agent, 1)
    assert names(event, user) == [".inputrc"]
    assert event["payload"]["tool"] == "git"


def test_chezmoi_drift(user: Path, agent: StandInAgent) -> None:
    """A file of the home folder that chezmoi would write again is drift."""
    if shutil.which("chezmoi") is None:
        pytest.skip("chezmoi is not on PATH (opt-in: its binary from chezmoi.io)")
    source = user / "data/chezmoi"
    source.mkdir()
    (source / "dot_bashrc").write_text("b\n")
    subprocess.run(["chezmoi", "apply"], check=True, stdin=subprocess.DEVNULL)
    (user / ".bashrc").write_text("edited in place\n")
    with producing("auto", *QUICK):
        (event,) = agent.wait_for(lambda events: len(events) == 1)
    assert event["payload"]["states"] == {".bashrc": "MM"}


def test_it_is_light(dots: Path, home: Path, agent: StandInAgent) -> None:
    """Idle, it needs less than 30 MB and no CPU."""
    rss, cpu = idle("dotfiles", {"source": str(dots)}, home)
    assert rss < 30
    assert cpu < 0.5
