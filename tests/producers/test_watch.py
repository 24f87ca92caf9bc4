"""Waiting for files and folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from opsmesh.producers.feed import Feed
from opsmesh.producers.memory import Memory
from opsmesh.producers.watch import Watch


def test_nothing_is_nothing(tmp_path: Path) -> None:
    """Without a change `wait` comes back when its time is over, and says no."""
    with Watch(tmp_path) as watch:
        assert not watch.wait(0.01)


def replace(file: Path) -> None:
    """Put another file in its place, as an editor saves."""
    other = file.with_name("new")
    other.touch()
    other.rename(file)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.write_text("more"), id="written"),
        pytest.param(lambda file: file.unlink(), id="deleted"),
        pytest.param(lambda file: file.rename(file.with_name("other")), id="moved"),
        pytest.param(os.utime, id="touched"),
        pytest.param(replace, id="replaced"),
    ],
)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_changes(tmp_path: Path, change: Callable[[Path], object], what: str) -> None:
    """Each change of a file is seen by who watches the file, or its folder."""
    file = tmp_path / "file"
    file.write_text("text")
    with Watch(file if what == "file" else tmp_path) as watch:
        change(file)
        assert watch.wait(60)


def test_neighbours_do_not_wake(tmp_path: Path) -> None:
    """A file's watch sleeps through what happens beside it."""
    with Watch(tmp_path / "file") as watch:
        (tmp_path / "other").write_text("text")
        assert not watch.wait(0.05)


def test_path_that_comes_step_by_step(tmp_path: Path) -> None:
    """A path that does not exist is waited for, each folder on the way to it."""
    path = tmp_path / "a/b/file"
    with Watch(path) as watch:
        for step in (tmp_path / "a", tmp_path / "a/b"):
            step.mkdir()
            assert watch.wait(60)
        path.write_text("text")
        assert watch.wait(60)


def test_path_that_comes_at_once(tmp_path: Path) -> None:
    """Folders and file that are there before the watch could follow are not missed."""
    path = tmp_path / "a/b/file"
    with Watch(path) as watch:
        path.parent.mkdir(parents=True)
        assert watch.wait(60)
        path.write_text("text")
        assert watch.wait(60)


def test_folder_that_goes_and_comes(tmp_path: Path) -> None:
    """A folder that is deleted and made again is watched again, as often as that happens."""
    folder = tmp_path / "folder"
    with Watch(folder) as watch:
        for _ in range(20):
            folder.mkdir()
            assert watch.wait(60)
            (folder / "entry").touch()
            assert watch.wait(60)
            (folder / "entry").unlink()
            folder.rmdir()
            assert watch.wait(60)


def test_feed_keeps_the_newest() -> None:
    """A full feed loses its oldest and says how many; putting never waits."""
    feed: Feed[int] = Feed(3)
    for number in range(10):
        feed.put(number)
    assert (feed.lost(), feed.lost()) == (7, 0)
    assert [feed.get(0) for _ in range(4)] == [7, 8, 9, None]


def test_closed_feed_is_emptied() -> None:
    """What was put before the end can still be had; then there is nothing more to wait for."""
    feed: Feed[int] = Feed(3)
    feed.put(1)
    feed.close()
    assert not feed.closed
    assert (feed.get(), feed.get(), feed.closed) == (1, None, True)


def test_memory(home: Path) -> None:
    """A memory is what was stored last; before the first time, and of a broken file, nothing."""
    memory = Memory("thing")
    assert memory.load() == {}
    memory.store({"seen": [1, 2]})
    assert Memory("thing").load() == {"seen": [1, 2]}
    memory.path.write_bytes(b"{cut")
    assert memory.load() == {}
