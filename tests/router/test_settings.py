"""Settings: which source wins, and that a slip is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from opsmesh.router.settings import Settings


def write(home: Path, text: str) -> None:
    """The config.yaml of this test's own folders."""
    folder = home / "config" / "opsmesh"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(text)


def test_variable_wins_over_file_over_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file overrides a default, and a variable overrides the file."""
    write(home, "events: {max_age: 2h, max_bytes: 1MiB}\n")
    monkeypatch.setenv("OPSMESH_EVENTS__MAX_AGE", "3d")
    events = Settings().events
    assert (events.max_age, events.max_bytes) == (3 * 86400.0, 2**20)
    assert events.duplicate_window == 900.0


def test_short_name_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPSMESH_NATS_URL names the server, whatever the file says."""
    write(home, "nats: {url: 'nats://file:1', user: me}\n")
    monkeypatch.setenv("OPSMESH_NATS_URL", "nats://short:1")
    nats = Settings().nats
    assert (nats.url, nats.user) == ("nats://short:1", "me")


def test_unknown_key_is_an_error(home: Path) -> None:
    """A misspelt key is refused."""
    write(home, "evnts: {}\n")
    with pytest.raises(ValidationError, match="evnts"):
        Settings()


def test_variable_reaches_a_nested_setting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two underscores reach into a section, and sizes are read with their unit."""
    monkeypatch.setenv("OPSMESH_EVIDENCE__SEGMENT_BYTES", "1KiB")
    assert Settings().evidence.segment_bytes == 1024
