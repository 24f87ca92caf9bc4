"""What bounds a bundle, and collectors of other packages."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import limited
from tests.handlers.collecting import Context, Made, collect

from opsmesh.handlers.actions import collect as action
from opsmesh.handlers.actions.collect import Collect
from opsmesh.handlers.bundles import write
from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.schemas.registry import load_registry


def test_item_hangs(context: Context) -> None:
    """An item that hangs is ended by its own limit; what it wrote is kept."""
    command = ["sh", "-c", "echo begun; sleep 60"]

    def within(seconds: float) -> Made:
        limit = f"{seconds * 1000:.0f}ms"
        slow = {"name": "slow", "command": command, "timeout": limit}
        made = collect(context, [slow, "disk"])
        assert made.error("slow") == f"stopped after {seconds:g} s"
        return made

    made = limited(within, lambda made: made.text("slow"))
    assert made.text("slow") == "begun\n"
    assert made.error("disk") == "None"


def test_all_items_together(context: Context) -> None:
    """What is not there when the step's time is nearly over is named, and the bundle is written."""
    item = {"name": "slow", "command": ["sleep", "60"], "timeout": "60s"}

    def within(seconds: float) -> Made:
        made = collect(context, [item, "disk"], timeout=2 * seconds)
        assert made.error("slow") == f"not done within {seconds:g} s, which all items together have"
        return made

    limited(within, lambda made: made.error("disk") == "None")


def test_run_is_nearly_over(context: Context) -> None:
    """A run's own limit counts too: its bundle is written before it is stopped."""
    item = {"name": "slow", "command": ["sleep", "60"], "timeout": "60s"}
    made = collect(context, [item], left=0.5)
    assert made.error("slow") == "not done within 0.25 s, which all items together have"


def test_piece_is_cut(context: Context) -> None:
    """A piece beyond its limit is cut and marked."""
    command = ["sh", "-c", "yes | head -c 5000"]
    made = collect(context, [{"name": "yes", "command": command, "max_bytes": 100}])
    assert (made.entry("yes")["size"], made.manifest["truncated"]) == (100, ["yes"])


def test_bundle_is_full(context: Context) -> None:
    """What a bundle has no room for is left out by name, and smaller pieces are still taken."""
    items = [
        {"name": "large", "command": ["sh", "-c", "yes | head -c 9000"]},
        {"name": "small", "command": ["echo", "x"]},
    ]
    made = collect(context, {"items": items, "total_bytes": 5000})
    assert made.error("large").startswith("left out: 9000 bytes")
    assert made.text("small") == "x\n"


def test_disk_is_full(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that cannot be written leaves nothing half done behind."""

    def full(path: Path, data: bytes) -> None:
        if path.name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(write, "write_file", full)
    with pytest.raises(OSError, match="No space"):
        collect(context, ["disk"])
    assert [path.name for path in context().bundles.rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    assert collect(context, ["disk"]).error("disk") == "None"


def test_manifest(context: Context) -> None:
    """The manifest counts what was taken out by rule, and never says what it was."""
    token = "ghp_" + "a1B2" * 9
    made = collect(context, [{"name": "said", "command": ["echo", token, token]}])
    assert made.manifest["removed"] == {"github_token": 2}
    assert token not in (made.folder / "manifest.json").read_text()
    assert made.manifest["bytes"] == sum(one["size"] or 0 for one in made.manifest["files"])
    assert made.entry("said")["duration_ms"] > 0


PLUGIN = """
from opsmesh.handlers.actions.spec import Spec

class Nothing(Spec):
    word: str = "hello"

class Greeting:
    key, spec = "greeting", Nothing

    def __init__(self, spec):
        self.word = spec.word

    async def collect(self, request):
        if self.word == "fail":
            raise ZeroDivisionError("no greeting")
        return [request.piece(self.word, facts={"word": self.word})]
"""


def test_collector_of_another_package(tmp_path: Path) -> None:
    """A package adds a collector by an entry point; one that is broken is named, and skipped."""
    (tmp_path / "mybox.py").write_text(PLUGIN)
    info = tmp_path / "mybox-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mybox\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[opsmesh.collectors]\ngreeting = mybox:Greeting\nbroken = mybox:Nowhere\n"
        "name = mybox:Greeting\n"
    )
    program = """
import asyncio, json, sys
from pathlib import Path
from tests.handlers.conftest import EVENT
from opsmesh.handlers.actions import registry
from opsmesh.handlers.actions.collect import Collect
from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.schemas.registry import load_registry
from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.schemas.envelope import encode

async def publish(event): pass
folder = Path(sys.argv[1])
ctx = StepContext(event=EVENT, data=encode(EVENT), profile="p", profile_hash="h", run_id="r",
    step_id="s", attempt=1, idempotency_key="r:s", variables={}, timeout=None, host="dev",
    folder=folder / "work", bundles=folder / "bundles", publish=publish)
items = ["greeting", {"name": "bad", "greeting": {"word": "fail"}}]
result = asyncio.run(Collect.parse(items).run(ctx))
try:
    Collect.parse(["broken"])
except ValueError as error:
    refused = str(error)
print(json.dumps([result.output, sorted(registry.discover().problems), refused,
    load_profiles(folder).problems]))
"""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    output, problems, refused, said = json.loads(done.stdout)
    assert output["facts"]["greeting"] == {"word": "hello"}
    assert output["errors"] == ["ZeroDivisionError: no greeting"]
    assert problems == ["broken", "name"]
    assert "the plug-in for 'broken' is broken" in refused
    assert any("mybox:Nowhere of mybox 1.0" in text for text in said)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"items": ["journal"], "reprot": True}, "reprot"),
        ({"items": []}, "at least 1 item"),
        (["command"], "'command' needs a value"),
        ([{"config_snapshot": {}}], "paths"),
        ([{"git_state": {"sinc": "x"}}], "sinc"),
        ([{"events": {"topics": ["a;b"]}}], "is no pattern of topics"),
        ([{"env_summary": {"variables": ["A B"]}}], "pattern"),
        ({"items": ["disk"], "report": "${{ nope }}"}, "unknown name 'nope'"),
        ({"items": ["disk"], "report": "${{ event. }}"}, "unexpected"),
    ],
)
def test_refused(value: object, said: str) -> None:
    """What cannot be collected is refused when the profile is loaded."""
    with pytest.raises(ValueError, match=said):
        Collect.parse(value)


def test_described_alike() -> None:
    """The short form and the long one of the same items are the same profile."""
    short = Collect.parse(["journal"]).describe()
    assert short == Collect.parse({"items": [{"journal": None}]}).describe()
    assert set(short) == {"items"}
    assert Collect.parse({"items": ["disk"], "share": False}).describe()["share"] is False


def test_words() -> None:
    """A collector that needs no value may be written as a word, one that needs one may not."""
    assert {"coredump", "disk", "events", "git_state", "journal"} <= set(action.FOUND.words)
    assert {"command", "config_snapshot", "file"}.isdisjoint(action.FOUND.words)


LINTED = """\
profiles:
  p:
    on: service.start.failed
    actions:
      - id: evidence
        collect:
          items: [journal, {name: failed, command: [no-such-tool]}]
          report: |
            ${{ pieces.journal.matching("x").tail(3) }} ${{ event.payload.nope }}
      - command: ["true", --, "${{ steps.evidence.report }}", "${{ steps.evidence.facts.x }}"]
      - command: ["true", --, "${{ tail(event.payload.unit, 1) }}", "${{ steps.evidence.bundel }}"]
"""


def test_lint(tmp_path: Path) -> None:
    """A report has functions of its own, a step's output its names; everything else is told."""
    (tmp_path / "profiles.yaml").write_text(LINTED)
    found = lint(load_profiles(tmp_path), load_registry(), folder=tmp_path, host="dev")
    assert [(one.line, one.message) for one in sorted(found, key=lambda one: one.line)] == [
        (7, "program 'no-such-tool' is not in PATH"),
        (9, "service.start.failed has no payload field 'nope'"),
        (11, "CEL has no function tail()"),
        (11, "step 'evidence' (collect) gives no 'bundel'"),
    ]
