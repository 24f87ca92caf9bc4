"""`opsmesh install` and `uninstall`, with a stranger's wiring that comes by a real entry point."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.conftest import until as wait

from opsmesh.producers.install import apply
from opsmesh.producers.install import record as records

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

class Hook(Wiring):
    name, producer = "hook", "journal"
    def pieces(self):
        return [OwnFile(path=HOME / "etc/hook", text="kick", root=True)]

class Raising(Wiring):
    name = "raising"
    def pieces(self):
        raise LookupError("not today")

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
        "hook = strange_wiring:Hook\nraising = strange_wiring:Raising\n"
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
        assert "-hook 1" in done.stdout
        assert "+hook, mine now" in done.stdout
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


def test_json_is_one_document(cli: Cli, tool: Path) -> None:
    """Programs get the plan alone, and with --yes what was done; also where nothing is written."""
    [planned] = json.loads(cli("install", "strange", "--json").stdout)
    assert (planned["written"], files(tool)) == (False, {})
    assert [change["needed"] for change in planned["changes"]] == [True, True]
    assert "+hook 1" in planned["changes"][0]["diff"]
    assert planned["after"] == "restart the tool"
    [done, nothing] = json.loads(cli("install", "strange", "journal", "--json", "--yes").stdout)
    assert done["written"] is True
    assert (nothing["changes"], nothing["producer"]) == ([], "journal")
    assert "no mesh runs" in nothing["silent"]
    [checked] = json.loads(cli("install", "--check", "strange", "--json").stdout)
    assert checked["pieces"] == [
        {"path": str(tool / "new/folder/hook"), "state": "there"},
        {"path": str(tool / "rc"), "state": "there"},
    ]
    [undone] = json.loads(cli("uninstall", "strange", "--json").stdout)
    assert (undone["written"], (tool / "rc").exists()) == (False, True)
    [undone] = json.loads(cli("uninstall", "strange", "--json", "--yes").stdout)
    assert (undone["written"], files(tool)) == (True, {})


def test_what_is_wrong_is_named(cli: Cli, tool: Path) -> None:
    """--check names the file that is not as it should be."""
    cli("install", "strange", "--yes")
    (tool / "rc").unlink()
    checked = cli("install", "--check")
    assert checked.exit_code == 1
    assert f"{tool / 'rc'} is missing" in checked.stdout


def test_only_root_may_write_there(cli: Cli, tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is for root is shown with the whole command, and not written; the others are."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = cli("install", "hook", "strange", "--yes", "--force")
    assert done.exit_code == 1
    assert "+kick" in done.stdout
    program = Path(sys.executable).with_name("opsmesh")
    assert f"sudo -H {program} install hook --force" in done.stderr
    assert not (tool / "etc").exists()
    assert state(cli) == "wired"


def test_what_root_has_wired_is_known(
    cli: Cli, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user who did not write it sees that it is there, and is told how it goes."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    cli("install", "hook", "--yes")
    monkeypatch.setenv("XDG_STATE_HOME", str(tool.parent / "another"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    [row] = json.loads(cli("install", "--check", "--json").stdout)
    assert (row["tool"], row["state"]) == ("hook", "wired")
    assert "hook: nothing to do" in cli("install", "hook", "--yes").stdout
    done = cli("uninstall", "hook", "--yes")
    assert done.exit_code == 3
    assert "sudo -H" in done.stderr
    assert (tool / "etc/hook").exists()


def test_wiring_that_raises_is_named(cli: Cli, tool: Path) -> None:
    """A wiring that raises when it is asked is told with its error; the others are listed."""
    rows = {row["tool"]: row for row in json.loads(cli("install", "--list", "--json").stdout)}
    assert rows["raising"]["state"] == rows["unlucky"]["state"] == "broken"
    assert rows["strange"]["state"] == "not wired"
    assert rows["journal"]["state"] == "needs nothing"
    done = cli("install", "raising", "--yes")
    assert done.exit_code == 1
    assert "the wiring of raising is broken: LookupError: not today" in done.stderr


def test_nothing_is_written_when_one_cannot(cli: Cli, tool: Path) -> None:
    """Of several tools none is written before all are known to be possible."""
    assert cli("install", "strange", "raising", "--yes").exit_code == 1
    assert cli("install", "strange", "strangr", "--yes").exit_code == 3
    assert files(tool) == {}


def test_files_that_are_there_already_get_a_record(cli: Cli, tool: Path) -> None:
    """What dotfiles have brought to this machine is taken over, and can be undone."""
    cli("install", "strange", "--yes")
    records.forget("strange")
    assert "is wired" in cli("install", "strange").stdout
    assert cli("uninstall", "strange", "--yes").exit_code == 0
    assert (tool / "rc").read_bytes() == b""
    assert not (tool / "new/folder/hook").exists()


def test_tool_whose_package_is_gone(cli: Cli, tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote is told as stale, and undone from the record alone."""
    cli("install", "strange", "--yes")
    shutil.rmtree(tool.parent / "packages/strange_wiring-1.0.dist-info")
    checked = cli("install", "--check")
    assert checked.exit_code == 1
    assert "its plug-in is gone" in checked.stdout
    assert cli("uninstall", "strange", "--yes").exit_code == 0
    assert files(tool) == {}


def test_unreadable_record_is_an_error(
    cli: Cli, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a record that cannot be read would undo is not guessed; the other tools are checked."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    cli("install", "strange", "--yes")
    cli("install", "hook", "--yes")
    (records.folder() / "strange.json").write_text("{")
    before = files(tool)
    done = cli("uninstall", "strange", "--yes")
    assert (done.exit_code, files(tool)) == (1, before)
    assert "strange.json cannot be read" in done.stderr
    rows = json.loads(cli("install", "--check", "--json").stdout)
    assert [(row["tool"], row["state"]) for row in rows] == [
        ("hook", "wired"),
        ("strange", "broken"),
    ]


def test_installations_wait_for_each_other(cli: Cli, tool: Path) -> None:
    """A second installation says that it waits, and goes on when the first is done."""
    with apply.alone():
        second = subprocess.Popen(
            [sys.executable, "-m", "opsmesh.cli.entry", "install", "strange", "--yes"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert second.stderr is not None
        said = iter(second.stderr.readline, b"")  # "skipped unlucky" comes first
        assert any(b"another opsmesh install is at work" in line for line in said)
        assert files(tool) == {}
    assert second.wait(60) == 0
    second.communicate()
    assert state(cli) == "wired"


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.said = b""
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-m", "opsmesh.cli.entry", *arguments])

    def asks(self) -> None:
        wait(lambda: b"Write this?" in self._read())

    def types(self, text: bytes) -> int:
        """Answer; the command's exit code."""
        os.write(self._end, text)
        with contextlib.suppress(OSError):  # EIO: it has ended
            while self._read():
                pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._end)
        return code

    def _read(self) -> bytes:
        self.said += os.read(self._end, 65536)
        return self.said


def test_asks_on_a_terminal(cli: Cli, tool: Path) -> None:
    """On a terminal the diff has colours, nothing is written before the answer, and none but yes
    means yes."""
    asked = Terminal("install", "strange")
    asked.asks()
    assert b"\x1b[" in asked.said
    assert files(tool) == {}
    assert asked.types(b"n\n") == 1
    assert files(tool) == {}
    asked = Terminal("install", "strange")
    asked.asks()
    assert asked.types(b"y\n") == 0
    assert state(cli) == "wired"


def test_saved_by_an_editor_before_the_answer(cli: Cli, tool: Path) -> None:
    """A startup file that was saved while the question stood keeps what was saved."""
    (tool / "rc").write_bytes(b"old\n")
    asked = Terminal("install", "strange")
    asked.asks()
    (tool / "rc").write_bytes(b"new\n")
    assert asked.types(b"y\n") == 1
    assert b"was changed meanwhile" in asked.said
    assert files(tool) == {"rc": b"new\n"}
