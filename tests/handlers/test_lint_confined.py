"""What `profile validate` says of sandboxes, limits and arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.handlers.test_lint import said

from opsmesh.handlers.sandbox import host, prepare
from opsmesh.schemas.registry import Registry, load_registry

TEXT = """\
profiles:
  p:
    on: service.start.failed
    actions:
      - command: {value}
"""


@pytest.fixture
def registry() -> Registry:
    return load_registry()


def found(tmp_path: Path, registry: Registry, value: str) -> list[str]:
    """Findings, but for programs that are not here."""
    told = said(tmp_path, TEXT.format(value=value), registry)
    return [one for one in told if not one.startswith("warning: program")]


def test_an_open_argument(tmp_path: Path, registry: Registry) -> None:
    """An argument that could become an option is a warning, and says what to write."""
    [one] = found(tmp_path, registry, '[sh, -x, "${{ event.payload.unit }}"]')
    assert one == (
        "warning: argument 2 comes from an event: the step fails when it begins with '-'"
    )


@pytest.mark.parametrize(
    "value",
    [
        '[sh, --, "${{ event.payload.unit }}"]',
        '[sh, "--unit=${{ event.payload.unit }}"]',
        '{argv: [sh, "${{ event.payload.unit }}"], options_from_events: true}',
        '[sh, "${{ event.topic }}", "${{ event.id }}"]',
        "[sh, x]",
    ],
)
def test_data(tmp_path: Path, registry: Registry, value: str) -> None:
    """What cannot become one is none."""
    assert found(tmp_path, registry, value) == []


def test_no_sandbox_here(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox that this host cannot make is a warning with the reason."""
    monkeypatch.setattr(host, "bwrap", lambda: "bwrap is not in PATH")
    [one] = found(tmp_path, registry, "{argv: [sh], sandbox: bwrap}")
    assert one == "warning: this step cannot start here: bwrap is not in PATH"


@pytest.mark.parametrize("limit", ["cpu: 50%", "tasks: 9"])
def test_no_limit_here(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """So is a limit that nothing would hold."""
    monkeypatch.setattr(host, "manager", lambda: None)
    [one] = found(tmp_path, registry, f"{{argv: [sh], {limit}}}")
    assert one.startswith("warning: this step cannot start here: ")
    assert "no systemd manager answers" in one


def test_memory_of_each_process(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that holds for each process alone is worth a note."""
    monkeypatch.setattr(host, "controllers", frozenset)
    monkeypatch.setattr(prepare, "_prlimit", lambda: True)
    [one] = found(tmp_path, registry, "{argv: [sh], memory: 64M}")
    assert one.startswith("note: memory: 67108864 bytes hold for each process by itself here")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{argv: [sh], read: [/x]}", "read means nothing without a sandbox"),
        ("{argv: [sh], network: no}", "network means nothing without a sandbox"),
        ("{argv: [sh], sandbox: firejail}", "sandbox"),
        ("{argv: [sh], memory: 512}", "is no size"),
        ("{argv: [sh], memory: 1K}", "less than any program needs"),
        ("{argv: [sh], cpu: 0.5}", "is no share"),
        ("{argv: [sh], cpu: 0%}", "is no share"),
        ("{argv: [sh], tasks: 0}", "tasks"),
        (
            '{argv: [sh], sandbox: bwrap, write: ["${{ event.workspace }}"]}',
            "cannot come from an event",
        ),
        ("""{argv: [sh, '${{ secret("lamp") }}']}""", "every process can read the arguments"),
    ],
)
def test_refused(tmp_path: Path, registry: Registry, value: str, said: str) -> None:
    """What means nothing, or would be no wall, is an error of the profile."""
    assert any(
        one.startswith("error: ") and said in one for one in found(tmp_path, registry, value)
    )
