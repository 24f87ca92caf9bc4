"""nearest: suggestions for misspelt words."""

from __future__ import annotations

from opsmesh.schemas.nearest import did_you_mean, nearest


def test_typo() -> None:
    """A misspelt word finds the one that was meant, whatever its case."""
    assert nearest("debonce", ["debounce", "retry"]) == "debounce"
    assert nearest("DEBOUNCE", ["Debounce"]) == "Debounce"
    assert did_you_mean("debonce", ["debounce"]) == "; did you mean 'debounce'?"


def test_nothing_near() -> None:
    """Nothing is suggested where nothing is alike."""
    assert nearest("xyz", ["debounce", "retry"]) is None
    assert did_you_mean("xyz", []) == ""
