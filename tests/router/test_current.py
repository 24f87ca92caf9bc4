"""Settings that are changed while a process goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from opsmesh.router import paths
from opsmesh.router.current import Current
from opsmesh.router.settings import Settings


def write(text: str) -> None:
    """What config.yaml says from now on."""
    config = Path(paths.config_dir())
    config.mkdir(parents=True, exist_ok=True)
    (config / "config.yaml").write_text(text)


def test_what_is_changed_is_in_force(home: Path) -> None:
    """A file that is made, changed or removed is heard at the next look; until then it is the same
    object, and nothing is read."""
    current = Current()
    assert current.get().notify.per_minute == Settings().notify.per_minute
    write("notify: {per_minute: 7}")
    first = current.get()
    assert first.notify.per_minute == 7
    assert current.get() is first
    Path(paths.config_dir(), "config.yaml").unlink()
    assert current.get().notify.per_minute != 7


def test_broken_leaves_the_last_good_ones(home: Path) -> None:
    """A mistake is told once, and what was in force stays so, until it is mended."""
    write("notify: {per_minute: 7}")
    current = Current(Settings())
    write("notify: {per_minutes: 8}")
    with capture_logs() as said:
        assert [current.get().notify.per_minute for _ in range(3)] == [7, 7, 7]
    assert [(one["event"], "per_minutes" in one["error"]) for one in said] == [
        ("settings.broken", True)
    ]
    write("notify: {per_minute: 9}")
    assert current.get().notify.per_minute == 9


def test_broken_from_the_beginning(home: Path) -> None:
    """Without settings to go on with, the mistake is raised, each time, until it is mended."""
    write("notify: {per_minutes: 8}")
    current = Current()
    for _ in range(2):
        with pytest.raises(ValidationError, match="per_minutes"):
            current.get()
    write("notify: {per_minute: 9}")
    assert current.get().notify.per_minute == 9


def test_read_once_for_all_threads(home: Path) -> None:
    """Threads that look at once get the same settings, which were read once."""
    write("notify: {per_minute: 7}")
    current, together, found = Current(), threading.Barrier(8), []

    def look() -> None:
        together.wait(60)
        found.append(current.get())

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len({id(one) for one in found}) == 1
