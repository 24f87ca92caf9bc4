"""registry: plug-ins, checks with clear texts, coercion, versions."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.schemas import envelope
from opsmesh.schemas.errors import PayloadError
from opsmesh.schemas.payloads import TOPICS
from opsmesh.schemas.registry import Registry, Topic, load_registry
from opsmesh.schemas.topics import Payload


class Build(Payload, frozen=True, kw_only=True):
    """Version 2 of a user's payload: version 1 had `seconds`, and `ok` as a text."""

    duration_ms: float
    ok: bool = True


def _to_2(old: dict[str, Any]) -> dict[str, Any]:
    return {
        **{k: v for k, v in old.items() if k != "seconds"},
        "duration_ms": old["seconds"] * 1000,
        "ok": old["ok"] == "yes",
    }


BUILD = Topic(
    "acme.build.done",
    payload=Build,
    owner="acme",
    severity="info",
    description="A build came to its end.",
    example={"v": 2, "duration_ms": 1500.0, "ok": True},
    version=2,
    upcasters={1: _to_2},
)
FAILED = {"nodeid": "t.py::test_a", "phase": "call"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The built-in topics."""
    return Registry(TOPICS)


def _plugin(folder: Path, points: dict[str, str], code: str) -> None:
    """A distribution `acme` in a folder, with entry points, as pip would lay it out."""
    (folder / "acme_topics.py").write_text(code)
    info = folder / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("[opsmesh.topics]\n" + "\n".join(lines) + "\n")


def test_built_in_topics_come_by_the_entry_point() -> None:
    """Without anything of the user's, the registry holds the built-in topics and no problem."""
    loaded = load_registry(None)
    assert [topic.name for topic in loaded] == sorted(topic.name for topic in TOPICS)
    assert loaded.problems == []


def test_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in gives one topic or many; a broken one is named and the others are loaded."""
    code = """
from opsmesh.schemas.topics import Payload, Topic
class P(Payload, frozen=True, kw_only=True):
    n: int
def topic(name, **more):
    return Topic(name, payload=P, owner="acme", description="One.", **{"example": {"n": 1}, **more})
ONE = topic("acme.one")
MANY = [topic("acme.two"), topic("python.test.failed"), topic("acme.three", example={"n": "x"}), 7]
"""
    points = {
        "one": "acme_topics:ONE",
        "many": "acme_topics:MANY",
        "gone": "acme_topics:NOWHERE",
        "none": "acme_nowhere:X",
    }
    _plugin(tmp_path, points, code)
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_registry(None)
    assert loaded.is_registered("acme.one")
    assert loaded.is_registered("acme.two")
    assert len(loaded) == len(TOPICS) + 2
    told = "\n".join(sorted(loaded.problems))
    assert "'gone' (acme, acme_topics:NOWHERE): AttributeError" in told
    assert "'none' (acme, acme_nowhere:X): ModuleNotFoundError" in told
    assert "python.test.failed is already registered, owner pytest" in told
    assert "payload of acme.three: field n: expected int, got 'x'" in told
    assert "expected a Topic, got int" in told
    assert len(loaded.problems) == 5


def test_import_is_light() -> None:
    """The registry loads neither pydantic nor YAML nor NATS when the user has no file."""
    code = (
        "import sys; from opsmesh.schemas.registry import load_registry; load_registry(None);"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "yaml", "nats", "typer", "rich"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("topic", "payload", "text"),
    [
        ("python.test.failed", {**FAILED, "lineno": "3"}, "field lineno: expected int, got '3'"),
        (
            "python.test.failed",
            {**FAILED, "phase": "cal"},
            "field phase: expected call | setup | teardown | collect | crash, got 'cal'",
        ),
        (
            "python.test.failed",
            {"node_id": "t", "phase": "call"},
            "missing field nodeid (str: pytest's or unittest's name of the test); "
            "'node_id' is given, did you mean 'nodeid'?",
        ),
        ("service.start.failed", {}, "missing field unit (str: unit name, like backup.service)"),
        ("file.op.move", {"items": [{"src": "a"}]}, "missing field dst in items[0]"),
        (
            "file.op.move",
            {"items": [{"src": "a", "dst": 3}]},
            "field items[0].dst: expected str, got 3",
        ),
        ("editor.save", {"path": None}, "field path: expected str, got None"),
        ("editor.save", {"path": ["x"] * 99}, "…"),
    ],
)
def test_mistakes_are_told(
    registry: Registry, topic: str, payload: dict[str, Any], text: str
) -> None:
    """A payload that does not fit is refused with field, expectation and value."""
    with pytest.raises(PayloadError) as caught:
        registry.check(topic, payload)
    assert caught.value.topic == topic
    assert text in caught.value.reason
    assert len(str(caught.value)) < 200


def test_unregistered_topic(registry: Registry) -> None:
    """A topic that is not registered is not checked, and says so by None."""
    assert registry.check("acme.unknown", {"x": 1}) is None
    assert registry.get("acme.unknown") is None
    assert registry.nearest("python.tests.failed") == "python.test.failed"


def test_coerce(registry: Registry) -> None:
    """Strings become the numbers, booleans, lists and objects of the type; other keys stay."""
    given_ = {
        **FAILED,
        "nodeid": "5",
        "lineno": "17",
        "duration_ms": "3",
        "totals": '{"failed": "1"}',
        "mine": "1",
    }
    assert registry.check("python.test.failed", given_, coerce=True) == {
        **FAILED,
        "nodeid": "5",
        "lineno": 17,
        "duration_ms": 3.0,
        "totals": {"failed": 1},
        "mine": "1",
    }
    assert given_["lineno"] == "17"
    locked = registry.check("desktop.idle.locked", {"locked": "true", "idle_s": "0"}, coerce=True)
    assert locked == {"locked": True, "idle_s": 0.0}
    argv = {"argv": '["make", "all"]', "timeout_s": "2.5"}
    assert registry.check("python.run.timeout", argv, coerce=True) == {
        "argv": ["make", "all"],
        "timeout_s": 2.5,
    }


@pytest.mark.parametrize(
    "payload",
    [
        {"argv": "make all", "timeout_s": 1},
        {"argv": '{"a": 1}', "timeout_s": 1},
        {"argv": "[1]", "timeout_s": 1},
        {"argv": [], "timeout_s": "soon"},
    ],
)
def test_coerce_refuses(registry: Registry, payload: dict[str, Any]) -> None:
    """What cannot be read as the wanted type is refused."""
    with pytest.raises(PayloadError):
        registry.check("python.run.timeout", payload, coerce=True)


@given(
    st.dictionaries(st.sampled_from(["nodeid", "phase", "totals", "lineno", "x", "v"]), st.text())
)
def test_any_text_is_coerced_or_refused(payload: dict[str, str]) -> None:
    """Whatever text `emit key=value` passes, the answer is a payload or a PayloadError."""
    for name in ("python.test.failed", "mesh.stream.regressed"):
        registry = Registry(topic for topic in TOPICS if topic.name == name)
        with suppress(PayloadError):
            assert registry.check(name, payload, coerce=True) is not None


def _event(payload: dict[str, Any]) -> envelope.Event:
    raw = {"topic": "acme.build.done", "payload": payload}
    defaults = dict.fromkeys(("source", "component", "host", "session_id", "workspace"), "x")
    return envelope.complete(raw, defaults={**defaults, "severity": "info"}, now_us=0)[1]


def test_old_event_is_brought_to_today() -> None:
    """An event of version 1 is read in today's form, and what was stored is not changed."""
    registry = Registry([BUILD])
    old = _event({"seconds": 2, "ok": "yes", "extra": "kept"})
    new = registry.upcast(old)
    assert new.payload == {"duration_ms": 2000, "ok": True, "extra": "kept", "v": 2}
    assert old.payload == {"seconds": 2, "ok": "yes", "extra": "kept"}
    assert msgspec.structs.replace(new, payload=old.payload) == old
    assert registry.upcast(new) is new


def test_versions_are_checked_as_what_they_are() -> None:
    """A payload is checked in its own version; one from the future is taken as it is."""
    registry = Registry([BUILD])
    for payload in ({"seconds": 1, "ok": "no"}, BUILD.example, {"v": 3, "new": "shape"}):
        assert registry.check("acme.build.done", payload) is payload
    assert registry.upcast(_event({"v": 3, "new": "shape"})).payload == {"v": 3, "new": "shape"}
    with pytest.raises(PayloadError, match="from version 1 to 2: KeyError"):
        registry.check("acme.build.done", {"ok": "yes"})
    with pytest.raises(PayloadError, match="field duration_ms: expected float"):
        registry.check("acme.build.done", {"v": 2, "duration_ms": "long"})
    with pytest.raises(PayloadError, match="field v: expected the payload's version"):
        registry.check("acme.build.done", {"v": True, "duration_ms": 1})


def test_coerce_reads_the_version_too() -> None:
    """`emit v=2 …` writes a payload of version 2."""
    given_ = {"v": "2", "duration_ms": "7", "ok": "false"}
    coerced = Registry([BUILD]).check("acme.build.done", given_, coerce=True)
    assert coerced == {"v": 2, "duration_ms": 7.0, "ok": False}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "Acme"}, "2 to 6 tokens"),
        ({"severity": "fatal"}, "'fatal' is not one of"),
        ({"version": 3}, r"needs an upcaster from each of the versions \[1, 2\], has \[1\]"),
        ({"upcasters": {}}, r"\[1\], has \[\]"),
        ({"example": {"duration_ms": 1}}, "not of version 2"),
        ({"payload": msgspec.defstruct("V", [("v", int)])}, "field 'v' is the payload's version"),
    ],
)
def test_wrong_definitions(change: dict[str, Any], text: str) -> None:
    """A topic that is defined wrongly cannot be made or registered."""
    fields = {
        "payload": Build,
        "owner": "acme",
        "description": "Done.",
        "example": BUILD.example,
        "version": 2,
        "upcasters": {1: _to_2},
        **change,
    }
    with pytest.raises(ValueError, match=text):
        Registry([Topic(fields.pop("name", "acme.build.done"), **fields)])
