"""topics_file: a user's own topics, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsmesh.schemas.errors import PayloadError
from opsmesh.schemas.registry import Registry, load_registry

GOOD = """\
version: 1
topics:
  acme.door.opened:
    description: Someone opened the door.
    owner: porch
    severity: info
    payload: {door: str, seconds: "float?", tags: "list[str]?", raw: "dict?"}
    example: {door: front, seconds: 2.5}
"""


def _load(tmp_path: Path, text: str) -> Registry:
    file = tmp_path / "topics.yaml"
    file.write_text(text)
    return load_registry(file)


def test_good_file(tmp_path: Path) -> None:
    """A topic of the file is registered like any other."""
    registry = _load(tmp_path, GOOD)
    assert registry.problems == []
    topic = registry.get("acme.door.opened")
    assert topic is not None
    assert (topic.owner, topic.severity) == ("porch", "info")
    assert [(f.name, f.type, f.required) for f in topic.fields()] == [
        ("door", "str", True),
        ("seconds", "float", False),
        ("tags", "list[str]", False),
        ("raw", "dict[str, any]", False),
    ]
    coerced = registry.check("acme.door.opened", {"door": "d", "seconds": "2"}, coerce=True)
    assert coerced == {"door": "d", "seconds": 2.0}
    with pytest.raises(PayloadError, match="missing field door"):
        registry.check("acme.door.opened", {"dor": "x"})


@pytest.mark.parametrize("text", ["", "version: 1\n", "version: 1\ntopics:\n", "# nothing\n"])
def test_empty_file(tmp_path: Path, text: str) -> None:
    """A file without topics is no problem."""
    assert _load(tmp_path, text).problems == []


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("owner: porch", "ownr: porch", 5, "unknown key 'ownr', expected description, owner"),
        ("owner: porch", "ownr: porch", 5, "did you mean 'owner'?"),
        (
            "severity: info",
            "severity: inf",
            6,
            "is not one of info, warn, error, critical; did you",
        ),
        ('"float?"', '"flot?"', 7, "type 'flot?' is not one of"),
        ("door: str", "v: str", 7, "'v' cannot be a field's name"),
        ("door: str", "do-or: str", 7, "'do-or' cannot be a field's name"),
        ("{door: front,", "{dor: front,", 3, "missing field door"),
        ("acme.door.opened", "Acme", 3, "topic 'Acme' is not 2 to 6 tokens"),
        ("acme.door.opened", "editor.save", 3, "editor.save is already registered"),
        ("description: Someone", "# Someone", 3, "description: expected a text, got None"),
        ("version: 1", "version: 2", 1, "version: expected 1, got 2"),
        ("topics:", "topcs:", 2, "unknown key 'topcs', expected version, topics; did you mean"),
        ("owner: porch", "owner: [porch", 6, "not YAML"),
        ("version: 1", "- version", 2, "not YAML"),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, line: int, text: str) -> None:
    """A mistake is told with file, line and the nearest valid word; the mesh's topics stay."""
    registry = _load(tmp_path, GOOD.replace(old, new, 1))
    (problem,) = registry.problems
    assert problem.startswith(f"{tmp_path / 'topics.yaml'}:{line}: ")
    assert text in problem
    assert registry.is_registered("python.test.failed")


def test_one_bad_topic_does_not_spoil_the_others(tmp_path: Path) -> None:
    """The topic with a mistake is left out, and the others are read."""
    registry = _load(tmp_path, GOOD + "  acme.bell.rung: {descripton: Ring.}\n")
    assert registry.is_registered("acme.door.opened")
    assert not registry.is_registered("acme.bell.rung")
    assert len(registry.problems) == 1


def test_unreadable_file(tmp_path: Path) -> None:
    """A file that is no text is a problem, not a crash."""
    file = tmp_path / "topics.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert len(load_registry(file).problems) == 1
    assert len(load_registry(tmp_path).problems) == 1
