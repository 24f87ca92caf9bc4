"""`opsmesh install` and `uninstall`, with a stranger's wiring that comes by a real entry point."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import Cli

from opsmesh.producers.install import lines
from opsmesh.producers.wiring import SourceLine

WIRING = """
from pathlib import Path
from opsmesh.producers.wiring import OwnFile, SourceLine
HOME = Path({home!r})
TEXT = HOME / "text"

class Wiring:
    name, description, topics, producer = "strange", "a stranger's tool", (), None
    def missing(self):
        return None
    def pieces(self):
        own = TEXT.read_text() if TEXT.exists() else "hook 1"
        return [
            OwnFile(path=HOME / "new/folder/hook", text=own, mode=0o755),
            SourceLine(path=HOME / "rc", line="load hook"),
        ]
    def after(self):
        return "restart the tool"

class Broken:
    def __init__(self):
        raise RuntimeError("no luck today")
"""
LINE = b"load hook  # opsmesh install strange"


@pytest.fixture
def tool(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a tool whose wiring is a stranger's."""
    packages, user = tmp_path / "packages", tmp_path / "user"
    user.mkdir()
    facts = packages / "strange_wiring-1.0.dist-info"
    facts.mkdir(parents=True)
    (packages / "strange_wiring.py").write_text(WIRING.format(home=str(user)))
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-wiring\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[opsmesh.wirings]\nstrange = strange_wiring:Wiring\nunlucky = strange_wiring:Broken\n"
    )
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.delitem(sys.modules, "strange_wiring", raising=False)
    return user


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, folders too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


def state(cli: Cli) -> str:
    """How far the tool is wired."""
    rows: list[dict[str, Any]] = json.loads(cli("install", "--check", "strange", "--json").stdout)
    return str(rows[0]["state"])


def test_shown_then_written(cli: Cli, tool: Path) -> None:
    """What is written was shown as a diff, and the user is told what is left to do."""
    done = cli("install", "strange", "--yes")
    assert done.exit_code == 0
    assert "+hook 1" in done.stdout
    assert f"+{LINE.decode()}" in done.stdout
    assert "restart the tool" in done.stdout
    assert files(tool)["new/folder/hook"] == b"hook 1"
    assert (tool / "new/folder/hook").stat().st_mode & 0o777 == 0o755
    assert (tool / "rc").read_bytes() == LINE + b"\n"


def test_nothing_without_a_yes(cli: Cli, tool: Path) -> None:
    """Without a terminal and without --yes nothing is written, and the way on is named."""
    done = cli("install", "strange")
    assert (done.exit_code, files(tool)) == (1, {})
    assert "--yes" in done.stderr


def test_dry_run_writes_nothing(cli: Cli, tool: Path) -> None:
    """--dry-run shows the same and leaves the disk alone."""
    done = cli("install", "strange", "--dry-run")
    assert done.exit_code == 0
    assert "+hook 1" in done.stdout
    assert files(tool) == {}


def test_twice_is_once(cli: Cli, tool: Path) -> None:
    """The second installation has nothing to do, and there is still one line."""
    cli("install", "strange", "--yes")
    before = files(tool)
    assert "nothing to do" in cli("install", "strange", "--yes").stdout
    assert files(tool) == before


def test_everything_is_undone(cli: Cli, tool: Path) -> None:
    """After uninstall the home is as it was, without the folders that were made."""
    cli("install", "strange", "--yes")
    assert cli("uninstall", "strange", "--yes").exit_code == 0
    assert files(tool) == {}
    assert cli("uninstall", "strange", "--yes").exit_code == 3


def test_what_the_user_added_stays(cli: Cli, tool: Path) -> None:
    """Lines around ours, written before and after it, survive both ways."""
    (tool / "rc").write_bytes(b"before")
    cli("install", "strange", "--yes")
    (tool / "rc").write_bytes((tool / "rc").read_bytes() + b"after\n")
    (tool / "new/folder/theirs").touch()
    cli("uninstall", "strange", "--yes")
    assert files(tool) == {
        "rc": b"before\nafter\n",
        "new": b"folder",
        "new/folder": b"folder",
        "new/folder/theirs": b"",
    }


def test_link_stays_a_link(cli: Cli, tool: Path) -> None:
    """A startup file that a dotfile manager has linked is written where the link leads."""
    (tool / "dots").mkdir()
    (tool / "dots/rc").write_bytes(b"mine\n")
    (tool / "dots/rc").chmod(0o600)
    (tool / "rc").symlink_to("dots/rc")
    cli("install", "strange", "--yes")
    assert (tool / "rc").is_symlink()
    assert (tool / "dots/rc").read_bytes() == b"mine\n" + LINE + b"\n"
    assert (tool / "dots/rc").stat().st_mode & 0o777 == 0o600
    cli("uninstall", "strange", "--yes")
    assert (tool / "dots/rc").read_bytes() == b"mine\n"


def test_newer_text_is_stale_and_written(cli: Cli, tool: Path) -> None:
    """A newer opsmesh finds the old text stale, writes its own, and can undo it still."""
    cli("install", "strange", "--yes")
    assert state(cli) == "wired"
    (tool / "text").write_text("hook 2")
    assert state(cli) == "stale"
    assert cli("install", "--check").exit_code == 1
    cli("install", "strange", "--yes")
    assert (state(cli), files(tool)["new/folder/hook"]) == ("wired", b"hook 2")
    cli("uninstall", "strange", "--yes")
    assert set(files(tool)) == {"text"}


def test_edited_file_is_left_alone(cli: Cli, tool: Path) -> None:
    """A file of ours that was changed since is neither replaced nor removed, until --force."""
    cli("install", "strange", "--yes")
    (tool / "new/folder/hook").write_text("hook, mine now")
    assert state(cli) == "edited"
    for command in ("install", "uninstall"):
        done = cli(command, "strange", "--yes")
        assert done.exit_code == 1
        assert "was changed since" in done.stderr
    assert files(tool)["new/folder/hook"] == b"hook, mine now"
    assert cli("uninstall", "strange", "--yes", "--force").exit_code == 0
    assert files(tool)["new/folder/hook.before-opsmesh"] == b"hook, mine now"


def test_file_of_another_comes_back(cli: Cli, tool: Path) -> None:
    """A file that stood there is kept with --force, and is back after uninstall."""
    (tool / "new/folder").mkdir(parents=True)
    (tool / "new/folder/hook").write_text("theirs")
    (tool / "new/folder/hook").chmod(0o640)
    before = files(tool)
    assert "not from opsmesh" in cli("install", "strange", "--yes").stderr
    assert files(tool) == before
    cli("install", "strange", "--yes", "--force")
    assert files(tool)["new/folder/hook"] == b"hook 1"
    cli("uninstall", "strange", "--yes")
    assert files(tool) == before
    assert (tool / "new/folder/hook").stat().st_mode & 0o777 == 0o640


def test_deleted_piece_is_missed_and_mended(cli: Cli, tool: Path) -> None:
    """A line that somebody deleted makes the tool incomplete; installing again mends it."""
    cli("install", "strange", "--yes")
    (tool / "rc").write_text("mine")
    assert state(cli) == "incomplete"
    cli("install", "strange", "--yes")
    assert (tool / "rc").read_bytes() == b"mine\n" + LINE + b"\n"
    cli("uninstall", "strange", "--yes")
    assert (tool / "rc").read_bytes() == b"mine"


KILLED = """
import os, signal, sys
from pathlib import Path
count = int(sys.argv[1])
def dying(self, target, real=Path.replace):
    global count
    if str(target).endswith("lock"):
        return real(self, target)
    count -= 1
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = dying
from opsmesh.cli.main import app
app(["install", "strange", "--yes"])
"""


@pytest.mark.parametrize("writes", range(4))
def test_killed_in_between(cli: Cli, tool: Path, writes: int) -> None:
    """Killed before any of its writes, an installation can be undone, and can be done again."""
    (tool / "rc").write_bytes(b"mine")
    argv = [sys.executable, "-c", KILLED, str(writes)]
    ended = subprocess.run(argv, capture_output=True, env=dict(os.environ))
    assert ended.returncode == (-signal.SIGKILL if writes < 3 else 0), ended.stderr
    if writes:
        assert cli("uninstall", "strange", "--yes").exit_code == 0
    assert files(tool) == {"rc": b"mine"}
    assert cli("install", "strange", "--yes").exit_code == 0
    assert state(cli) == "wired"


def test_broken_plug_in_is_named_and_skipped(cli: Cli, tool: Path) -> None:
    """A wiring that cannot be made is named with its package; the others can be installed."""
    done = cli("install", "--list")
    assert "strange" in done.stdout
    assert "skipped unlucky" in done.stderr
    assert "no luck today" in done.stderr
    assert "strange-wiring 1.0" in done.stderr


def test_misspelt_tool(cli: Cli, tool: Path) -> None:
    """An unknown tool is an error with the name that was likely meant."""
    done = cli("install", "strangr", "--yes")
    assert done.exit_code == 3
    assert "did you mean strange?" in done.stderr


def test_producer_without_a_half(cli: Cli, tool: Path) -> None:
    """A tool that needs nothing written is told so, and why its producer does not run."""
    done = cli("install", "journal")
    assert done.exit_code == 0
    assert "nothing has to be written" in done.stdout
    assert "no mesh runs" in done.stdout


@given(data=st.binary(max_size=60), at=st.sampled_from(["start", "end"]))
def test_line_and_back(data: bytes, at: Any) -> None:
    """A line that is put into any file stands there once, and taking it out gives the file back,
    byte for byte."""
    piece = SourceLine(path=Path("rc"), line="load", at=at)
    made, unended = lines.put(data, "tool", piece)
    again, _ = lines.put(made, "tool", piece)
    assert again == made
    assert made.count(lines.text("tool", piece)) == 1
    assert lines.take(made, lines.mark("tool", "#"), unended=unended) == data
