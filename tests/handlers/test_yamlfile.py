"""YAML with positions."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import yamlfile


def parse(text: str) -> yamlfile.Document:
    return yamlfile.parse(text.encode(), file="f.yaml")


def test_positions() -> None:
    """Every key and value knows its line and column."""
    document = parse("a:\n  b: [1, two]\n")
    assert document.data == {"a": {"b": [1, "two"]}}
    assert document.position(("a", "b", 1)) == (2, 10)
    assert document.key_position(("a", "b")) == (2, 3)


def test_position_of_what_is_missing() -> None:
    """A path that is not there has the place of the nearest part around it."""
    assert parse("a:\n  b: 1\n").position(("a", "x", "y")) == (2, 3)


def test_plain_words() -> None:
    """Plain words follow YAML 1.2: `on` is a key, `yes` and `1:30` are text, a date is text."""
    document = parse("on: yes\nat: 1:30\nday: 2026-11-23\nn: -3\nf: 1e3\nt: true\nz: ~\n1: x\n")
    assert document.data == {
        "on": "yes",
        "at": "1:30",
        "day": "2026-11-23",
        "n": -3,
        "f": 1000.0,
        "t": True,
        "z": None,
        "1": "x",
    }


def test_anchors_and_merges() -> None:
    """An anchor may be used again and merged; a mapping's own keys win."""
    document = parse("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\n")
    assert document.data["b"] == {"y": 3, "x": 1}
    assert document.data["c"] == {"x": 1, "y": 2}
    assert document.position(("b", "y")) == (4, 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: key 'a' a second time; line 1 has it already"),
        ("a: !!python/object:os.system {}\n", "f.yaml:1:4: tag"),
        ("a: !custom 1\n", "f.yaml:1:4: tag !custom is not allowed"),
        ("a:\n\tb: 1\n", "f.yaml:2:1: a tab indents this line"),
        ("a: [1, 2\n", "f.yaml:2:1:"),
        ("a: 1\nbroken\nc: 2\n", "f.yaml:2:1: a key without its ':'"),
        ("? [a]\n: 1\n", "f.yaml:1:3: a key is plain text"),
        ("a: &a [*a]\n", "nested deeper than"),
        ("a: &a\n  <<: *a\n", "merges deeper than"),
        ("a: *nowhere\n", "f.yaml:1:4: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1:"),
        ("\x00", "f.yaml:1:1:"),
    ],
)
def test_errors(text: str, said: str) -> None:
    """What is wrong is said with its file, line and column, in one line."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_expansion_is_bounded() -> None:
    """A small file whose anchors expand without bounds is refused."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError, match="once anchors are expanded"):
        parse("\n".join(lines))


def test_not_utf8() -> None:
    """Bytes that are not UTF-8 are named by their place."""
    with pytest.raises(ConfigError, match=r"f\.yaml:2:4: not UTF-8 text"):
        yamlfile.parse(b"a: 1\nb: \xff\n", file="f.yaml")


def test_size_is_bounded(tmp_path: Path) -> None:
    """A file over the limit is refused before it is parsed."""
    path = tmp_path / "big.yaml"
    path.write_text("#" * (yamlfile.MAX_SIZE + 1))
    with pytest.raises(ConfigError, match=r"big\.yaml:1:1: more than 1048576 bytes"):
        yamlfile.load(path)


def test_empty() -> None:
    """An empty file is the data None."""
    assert parse("# nothing\n").data is None
