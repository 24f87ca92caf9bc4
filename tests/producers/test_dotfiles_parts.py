"""Parts of the dotfiles producer: what the tools say, what is noise, where sources are."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from opsmesh.producers.ask import NoAnswer, ask
from opsmesh.producers.dotfiles import Dotfiles, drift, sources
from opsmesh.producers.dotfiles.memory import Remembered
from opsmesh.producers.dotfiles.snapshot import differences, noise, of_tree
from opsmesh.producers.dotfiles.wiring import DotfilesWiring
from opsmesh.producers.errors import OptionError
from opsmesh.producers.notices import Notices
from opsmesh.producers.wiring import OwnFile


def test_what_stow_says() -> None:
    """Links that are missing, conflicts in every wording of 2.3 and 2.4, nothing of a restow."""
    assert drift.of_stow(
        "UNLINK: .bashrc\n"
        "LINK: .bashrc => ../dots/bash/.bashrc (reverts previous action)\n"
        "LINK: .zshrc => dots/zsh/.zshrc\n"
        "WARNING! stowing zsh would cause conflicts:\n"
        "  * existing target is neither a link nor a directory: .a\n"
        "  * existing target is not owned by stow: .b\n"
        "  * existing target is stowed to a different package: .c => dots/x/.c\n"
        "  * cannot stow dots/d/.d over existing target .d since neither a link nor a directory "
        "and --adopt not specified\n"
        "All operations aborted.\n"
    ) == {
        ".zshrc": "missing",
        ".a": "conflict",
        ".b": "conflict",
        ".c": "conflict",
        ".d": "conflict",
    }


def test_what_git_and_chezmoi_say() -> None:
    """State letters by path; a path may hold a newline, or bytes that are no UTF-8."""
    assert drift.of_git(b" M a\0?? new\nline\0D  b\xff\0") == {
        "a": " M",
        "new\nline": "??",
        "b\\xff": "D ",
    }
    assert drift.of_chezmoi("MM .bashrc\n A .config/x y\n R run_once.sh\nchezmoi: warning\n") == {
        ".bashrc": "MM",
        ".config/x y": " A",
        "run_once.sh": " R",
    }


def test_ten_thousand_hostile_answers_are_no_drift() -> None:
    """Whatever a tool says that it does not say, nothing is made of it, and nothing breaks."""
    chance = random.Random(5)
    for _ in range(10_000):
        junk = bytes(chance.choices(b"\x00\xff\n *:=>abc", k=chance.randrange(60)))
        said = junk.decode("utf-8", "backslashreplace")
        assert all(drift.of_git(junk)) or b"" in junk.split(b"\0")
        assert not drift.of_chezmoi(said)
        assert not drift.of_stow(said)


@pytest.mark.parametrize(
    "name",
    [".git", ".bashrc.swp", ".x.swx", "4913", "init.lua~", ".#init.el", "#init.el#", ".nfs00a1"],
)
def test_noise(name: str) -> None:
    """What editors leave for a while, and version control, is left out."""
    assert noise(name)


@pytest.mark.parametrize("name", [".gitignore", ".gitconfig", "bashrc", "swp", "49130", "~x"])
def test_no_noise(name: str) -> None:
    """What only looks like it is told."""
    assert not noise(name)


def test_written_again_alike_is_no_change(tmp_path: Path) -> None:
    """A file is what it holds, its kind, and whether it can be run."""
    file = tmp_path / "f"
    file.write_text("same")
    before = of_tree(str(tmp_path), {}, lambda path: None)
    file.unlink()
    file.write_text("same")
    now = of_tree(str(tmp_path), before, lambda path: None)
    assert differences(before, now) == []
    file.chmod(0o755)
    assert differences(now, of_tree(str(tmp_path), now, lambda path: None)) == ["f"]


def test_a_full_queue_means_look_everywhere(tmp_path: Path) -> None:
    """Notices that the kernel dropped concern every source."""
    notices = Notices(lambda name, is_folder: not noise(name))
    try:
        for key in ("a", "b"):
            (tmp_path / key).mkdir()
            notices.arm(key, str(tmp_path / key))
        assert sorted(notices._keys(-1, 0x4000, "")) == ["a", "b"]  # IN_Q_OVERFLOW
    finally:
        notices.close()


def test_a_question_that_hangs_is_ended() -> None:
    """Its time over, a child and its children are gone."""
    with pytest.raises(NoAnswer, match="no answer within"):
        ask([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.2)
    with pytest.raises(NoAnswer):
        ask(["no-such-tool-here"], cwd="/no/such/folder")


def test_sources_are_found_by_folders_and_configuration(tmp_path: Path) -> None:
    """chezmoi's default and configured folder, yadm's repository with its work tree, bare ones."""
    env = {"HOME": str(tmp_path)}
    assert sources.guess(env) == []
    (tmp_path / ".local/share/chezmoi").mkdir(parents=True)
    (tmp_path / ".local/share/yadm/repo.git/objects").mkdir(parents=True)
    (tmp_path / ".local/share/yadm/repo.git/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".cfg/objects").mkdir(parents=True)
    (tmp_path / ".cfg/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".cfg/config").write_text("[core]\n\tworktree = /srv/home\n")
    found = {(s.tool, os.path.relpath(s.path, tmp_path), s.work_tree) for s in sources.guess(env)}
    assert found == {
        ("chezmoi", ".local/share/chezmoi", None),
        ("yadm", ".local/share/yadm/repo.git", str(tmp_path)),
        ("git", ".cfg", "/srv/home"),
    }
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".config/chezmoi").mkdir(parents=True)
    (tmp_path / ".config/chezmoi/chezmoi.toml").write_text('sourceDir = "~/elsewhere"\n')
    assert sources.guess(env)[0].path == str(tmp_path / "elsewhere")


def test_several_sources_are_told_with_commas(tmp_path: Path) -> None:
    """PATH:TOOL:MORE; packages of stow with a plus."""
    one, two = sources.find(f"{tmp_path}/a:stow:bash+zsh,{tmp_path}/b:git")
    assert (one.tool, one.packages, two.tool) == ("stow", ("bash", "zsh"), "git")


@pytest.mark.parametrize(
    "options",
    [
        {"source": "/tmp:vcsh"},
        {"source": "/nowhere"},
        {"source": "/nowhere:chezmoi:x"},
        {"settle": "soon"},
        {"drift_every": "0s"},
    ],
)
def test_wrong_options(options: dict[str, str], home: Path) -> None:
    """A value that makes no sense is an OptionError, which names the option."""
    with pytest.raises(OptionError, match=next(iter(options))):
        Dotfiles(**options).available()


def test_nothing_there_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dotfiles the reason names the option."""
    monkeypatch.setenv("HOME", str(home / "empty"))
    assert "source" in str(Dotfiles().available())


@pytest.mark.parametrize(
    "text", ["", "[]", '{"sources": 3}', '{"sources": {"git:/x": {"files": {"a": 1}}}}', "\x00"]
)
def test_a_broken_memory_is_an_empty_one(text: str, home: Path) -> None:
    """Whatever stands in the file, nothing of it is believed that does not look right."""
    file = home / "state/opsmesh/producers/dotfiles/memory.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert not Remembered("dotfiles").files("git:/x")


def test_hooks_of_the_users_own_are_left_alone(home: Path) -> None:
    """A hook file that is not ours is no piece, and is named."""
    wiring = DotfilesWiring()
    pieces = [piece for piece in wiring.pieces() if isinstance(piece, OwnFile)]
    assert [piece.path.name for piece in pieces] == ["post_pull", "post_bootstrap"]
    assert wiring.after() == ""
    theirs = pieces[0].path
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n")
    pieces[1].path.write_text(pieces[1].text)
    assert [piece.path.name for piece in wiring.pieces() if isinstance(piece, OwnFile)] == [
        "post_bootstrap"
    ]
    assert str(theirs) in wiring.after()


def test_a_tool_that_is_being_started_ends_with_us(tmp_path: Path) -> None:
    """SIGTERM in the very moment of the start raises once the tool is known, and ends it."""
    code = (
        "import os, signal, subprocess, sys\n"
        "from opsmesh.producers.ask import ask\n"
        "signal.signal(signal.SIGTERM, lambda *about: sys.exit(0))\n"
        "start = subprocess.Popen._execute_child\n"
        "def started(self, *about):\n"
        "    start(self, *about)\n"
        "    print(self.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "subprocess.Popen._execute_child = started\n"
        "ask(['sleep', '1000'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path("/proc", done.stdout.strip()).exists()
