"""What a stranger's text is freed of."""

from __future__ import annotations

import pytest

from opsmesh.schemas import unseen


@pytest.mark.parametrize(
    "character",
    [
        "\x00",
        "\x1b",
        "\x7f",
        "\x9b",
        "\u202e",
        "\u2066",
        "\u200b",
        "\u2028",
        "\ufeff",
        "\U000e0041",
    ],
)
def test_what_deceives_is_dropped_marked_or_escaped(character: str) -> None:
    """What steers a terminal, turns text around or hides in it goes, or can be seen."""
    text = f"a{character}b"
    assert unseen.dropped(text) == "ab"
    assert unseen.marked(text) == "a\ufffdb"
    assert unseen.escaped(text) == f"a{ascii(character)[1:-1]}b"


def test_what_people_write_stays() -> None:
    """Tabs, lines, words of Persian and composed emoji come through."""
    text = "a\tb\nنمی\u200cخواهم 👩\u200d👩\u200d👧 é"
    assert unseen.dropped(text) == unseen.marked(text) == unseen.escaped(text) == text
