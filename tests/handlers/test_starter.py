"""The profiles of a first start."""

from __future__ import annotations

from pathlib import Path

from opsmesh.handlers.profiles import starter
from opsmesh.handlers.profiles.profile import load_profiles


def test_first_start_has_valid_profiles(tmp_path: Path) -> None:
    """Without any profiles a valid file is written, and with all of its comments it stays one."""
    path = starter.write(tmp_path / "config")
    assert path is not None
    found = load_profiles(tmp_path / "config")
    assert (list(found.profiles), found.errors) == (["first-aid", "failed-unit"], [])
    text = path.read_text()
    example = (
        text[text.index("  # tell-me:") :]
        .replace("\n  # ", "\n  ")
        .replace("  # tell", "  tell", 1)
    )
    path.write_text(text[: text.index("  # tell-me:")] + example)
    found = load_profiles(tmp_path / "config")
    assert (len(found.profiles), found.errors) == (3, [])


def test_what_a_person_wrote_stays(tmp_path: Path) -> None:
    """A file that is there, even an empty one, and a profiles.d are left alone."""
    (tmp_path / "profiles.yaml").touch()
    assert starter.write(tmp_path) is None
    (tmp_path / "other" / "profiles.d").mkdir(parents=True)
    assert starter.write(tmp_path / "other") is None
