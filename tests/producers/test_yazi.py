"""The Yazi producer as its own process, with the real Yazi in tmux."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.producers import yazis
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.yazis import RealYazi, Terminal, children, producing

from opsmesh.producers.peer import identity
from opsmesh.producers.yazi.dds import socket_path

YA = f"ya={yazis.YA}"
#: A user without rights, and how to be it.
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.fixture
def terminal(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal, and a Yazi of this test's own."""
    if missing := yazis.missing():
        assert not os.environ.get("CI"), f"{missing} must be there in CI"
        pytest.skip(f"{missing} is not installed")
    monkeypatch.setenv("HOME", str(home))
    with yazis.terminal(home) as made:
        yield made


@pytest.fixture
def work(home: Path) -> Path:
    """A folder with files, and one to put them into."""
    folder = home / "work"
    (folder / "dst").mkdir(parents=True)
    for name in ("a.txt", "b, with\nbreak.txt", "c.txt"):
        (folder / name).write_text(name)
    return folder


def heard(process: subprocess.Popen[bytes]) -> bool:
    """Whether the producer has its `ya` listening: it has been told of the peers."""
    for child in children(process.pid):
        with contextlib.suppress(OSError):  # it went just now
            links = [str(link.readlink()) for link in Path(f"/proc/{child}/fd").iterdir()]
            if any(link.startswith("socket:") for link in links):
                return True
    return False


def topics(events: list[dict[str, Any]]) -> list[str]:
    return [event["topic"] for event in events]


def operations(agent: StandInAgent, count: int) -> list[dict[str, Any]]:
    return agent.wait_for(lambda events: len(events) >= count)


def test_one_of_each(
    agent: StandInAgent, terminal: Terminal, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rename, copy, move, bulk rename, trash and delete are told with their paths; several files
    at once are a batch as well."""
    editor = work.parent / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/^/new-/ "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    with producing("yazi", YA) as process:
        yazi = RealYazi(terminal, work)
        until(lambda: heard(process))
        yazi.do("reveal", str(work / "a.txt"))
        yazi.do("rename", "--empty=all")
        yazi.type("r.txt", "Enter", after="Rename")
        [renamed] = operations(agent, 1)
        assert (renamed["topic"], renamed["workspace"]) == ("file.op.move", str(work))
        assert renamed["payload"] == {
            "items": [{"src": str(work / "a.txt"), "dst": str(work / "r.txt")}],
            "rename": True,
            "instance": "77",
        }
        yazi.do("reveal", str(work / "c.txt"))
        yazi.do("yank", "--cut")
        yazi.do("cd", str(work / "dst"))
        yazi.do("paste")
        moved = operations(agent, 2)[1]
        assert moved["topic"] == "file.op.move"
        assert not moved["payload"]["rename"]
        yazi.do("cd", str(work))
        yazi.do("reveal", str(work / "r.txt"))
        yazi.do("toggle", "--state=on")
        yazi.do("reveal", str(work / "b, with\nbreak.txt"))
        yazi.do("toggle", "--state=on")
        yazi.do("yank")
        yazi.do("cd", str(work / "dst"))
        yazi.do("paste")
        copied, batch = operations(agent, 4)[2:]
        assert (copied["topic"], batch["topic"]) == ("file.op.copy", "file.batch.completed")
        names = {Path(item["dst"]).name for item in copied["payload"]["items"]}
        assert names == {"r.txt", "b, with\nbreak.txt"}
        assert batch["payload"]["operation"] == "copy"
        assert batch["payload"]["count"] == 2
        assert batch["correlation_id"] == copied["id"]
        yazi.do("escape")
        (work / "b, with\nbreak.txt").unlink()
        yazi.do("cd", str(work / "dst"))
        for name in ("c.txt", "r.txt"):
            yazi.do("reveal", str(work / "dst" / name))
            yazi.do("toggle", "--state=on")
        yazi.do("bulk_rename")
        yazi.type("y", "Enter", after="(y/N)")
        bulk, batch = operations(agent, 6)[4:]
        assert bulk["payload"]["rename"]
        assert {Path(item["dst"]).name for item in bulk["payload"]["items"]} == {
            "new-c.txt",
            "new-r.txt",
        }
        assert batch["payload"]["operation"] == "rename"
        yazi.do("escape")
        yazi.do("reveal", str(work / "dst/new-c.txt"))
        yazi.do("remove", "--force")
        trashed = operations(agent, 7)[6]
        assert trashed["payload"]["paths"] == [str(work / "dst/new-c.txt")]
        assert trashed["payload"]["trash"]
        yazi.do("reveal", str(work / "dst/new-r.txt"))
        yazi.do("remove", "--permanently", "--force")
        deleted = operations(agent, 8)[7]
        assert deleted["topic"] == "file.op.delete"
        assert not deleted["payload"]["trash"]
        yazi.quit()
    assert len(agent.events) == 8
    assert [event["seq"] for event in agent.events] == list(range(1, 9))


@pytest.mark.slow
def test_a_folder_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Yazi, as a user without rights, is not let in is told with path and error number."""
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv, to be a user without rights")
    if missing := yazis.missing():
        assert not os.environ.get("CI"), f"{missing} must be there in CI"
        pytest.skip(f"{missing} is not installed")
    with tempfile.TemporaryDirectory(
        ignore_cleanup_errors=True
    ) as name:  # pytest's own folders let nobody else in
        home = Path(name)
        for variable in ("CONFIG_HOME", "STATE_HOME", "DATA_HOME", "RUNTIME_DIR", "CACHE_HOME"):
            monkeypatch.setenv(f"XDG_{variable}", str(home / variable))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
        monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
        monkeypatch.setenv("HOME", name)
        (home / "open").mkdir()
        os.chown(home, NOBODY, NOBODY)
        (home / "run").mkdir()
        os.chown(home / "run", NOBODY, NOBODY)
        with (
            standing_in(home) as agent,
            yazis.terminal(home) as terminal,
            producing("yazi", YA, before=AS_NOBODY) as process,
        ):
            for path in (home / "run/opsmesh", home / "run/opsmesh/ingest.sock"):
                os.chown(path, NOBODY, NOBODY)
            yazi = RealYazi(terminal, home / "open", before=AS_NOBODY)
            until(lambda: heard(process))

            tries = itertools.count()

            def tried() -> bool:
                """Connected is not yet heard by Yazi, which tells a folder's failure once."""
                secret = home / f"open/secret-{next(tries)}"
                secret.mkdir(mode=0o700)
                yazi.do("cd", str(secret))
                return bool(agent.events)

            until(tried)
            denied = agent.events[0]
            yazi.quit()
    assert denied["topic"] == "file.path.access.denied"
    assert denied["payload"].pop("path").startswith(f"{name}/open/secret-")
    assert denied["payload"] == {
        "errno": 13,
        "message": "Permission denied",
        "instance": "77",
    }


@pytest.mark.slow
def test_two_instances_and_a_ya_that_is_killed(
    agent: StandInAgent, terminal: Terminal, work: Path
) -> None:
    """All instances are heard, also when the one with the socket quits; a `ya` that is killed comes
    again, and the time without it is a gap."""
    with producing("yazi", YA) as process:
        first, second = RealYazi(terminal, work, id=1), RealYazi(terminal, work / "dst", id=2)
        until(lambda: heard(process))
        remove(second, work / "dst/1")
        remove(first, work / "2")
        assert {e["payload"]["instance"] for e in operations(agent, 2)} == {"1", "2"}
        [child] = children(process.pid)
        os.kill(child, signal.SIGKILL)
        gap = operations(agent, 3)[2]
        assert gap["topic"] == "mesh.gap.detected"
        assert gap["payload"]["kind"] == "listener_died"
        until(lambda: heard(process))
        remove(first, work / "3")
        operations(agent, 4)
        server = identity(socket_path())
        first.quit()
        until(lambda: identity(socket_path()) != server)  # the second one takes over
        until(lambda: heard(process))
        remove(second, work / "dst/4")
        assert Path(operations(agent, 5)[4]["payload"]["paths"][0]).name == "4"
        second.quit()
        until(lambda: not children(process.pid))  # nobody is left: nothing to listen to
        assert socket_path().exists()  # Yazi leaves it behind
    assert len(agent.events) == 5


@pytest.mark.slow
def test_yazi_starts_and_quits_twenty_times(
    agent: StandInAgent, terminal: Terminal, work: Path
) -> None:
    """Each of twenty Yazis is heard, once; between them no `ya` is left behind."""
    with producing("yazi", YA) as process:
        for number in range(20):
            yazi = RealYazi(terminal, work)
            until(lambda: heard(process))
            remove(yazi, work / str(number))
            operations(agent, number + 1)
            yazi.hang_up()
            until(lambda: not children(process.pid))
    names = [Path(event["payload"]["paths"][0]).name for event in agent.events]
    assert names == [str(number) for number in range(20)]


@pytest.mark.slow
def test_a_mesh_that_hangs_and_a_producer_that_comes_again(
    home: Path, terminal: Terminal, work: Path
) -> None:
    """Yazi never waits for a mesh that hangs: what it told is in the spool. A next life of the
    producer tells the time without it as a gap, since the same Yazi went on."""
    yazi = RealYazi(terminal, work)
    with standing_in(home, hang=True) as agent, producing("yazi", YA) as process:
        until(lambda: heard(process))
        begun = time.monotonic()
        for number in range(3):
            remove(yazi, work / str(number))
            until(lambda: len(agent.events) == 0 and not (work / str(number)).exists())  # noqa: B023
        took = time.monotonic() - begun
        until(lambda: sum(len(e["payload"]["paths"]) for e in spooled(home)) == 3)
    assert took < 5
    shutil.rmtree(home / "run/opsmesh")
    with standing_in(home) as agent, producing("yazi", YA) as process:
        [gap] = operations(agent, 1)
        assert gap["payload"]["kind"] == "not_running"
        assert gap["payload"]["from_time"] < gap["payload"]["to_time"]
        until(lambda: heard(process))
        remove(yazi, work / "last")
        operations(agent, 2)
    yazi.quit()


def remove(yazi: RealYazi, file: Path) -> None:
    """Make a file, and have Yazi delete it."""
    file.write_text("gone soon")
    yazi.do("cd", str(file.parent))
    yazi.do("reveal", str(file))
    yazi.do("remove", "--permanently", "--force", "--hovered")
