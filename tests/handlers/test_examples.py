"""The examples that people copy are valid, do what their cases say, and are all listed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.conftest import run
from tests.handlers.mesh import mesh
from typer.testing import CliRunner

from opsmesh.cli.main import app
from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.profiles.profile import load_file
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas.registry import load_registry

#: A configuration folder of each test's own.
pytestmark = pytest.mark.usefixtures("home")
FOLDER = Path(__file__).parents[2] / "docs/examples"
TOPICS = FOLDER / "topics.yaml"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path != TOPICS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_wrong_with_it(name: str) -> None:
    """No error and no warning, but of programs that are not here."""
    path = FOLDER / f"{name}.yaml"
    found = load_file(path)
    registry = load_registry(TOPICS)
    assert registry.problems == []
    findings = lint(found, registry, folder=FOLDER, host="laptop", servers={})
    assert [one for one in findings if "is not in PATH" not in one.message] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_cases(name: str) -> None:
    """Every example has cases, and does what they say."""
    done = CliRunner().invoke(
        app, ["profile", "test", str(FOLDER / f"tests/{name}.yaml"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) >= 2


def test_all_are_listed() -> None:
    """The page names every example, and no other."""
    page = (FOLDER / "README.md").read_text()
    listed = re.findall(r"^\| \[[a-z-]+\]\(([a-z-]+)\.yaml\)", page, re.MULTILINE)
    assert sorted(listed) == EXAMPLES


def test_on_save_for_real(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A file with a fault is saved: the linter says so, the tests are not run, and a notice is
    tried, which fails where there is no desktop."""
    (tmp_path / "cart.py").write_text("import os\n")
    text = (FOLDER / "on-save.yaml").read_text().replace("window: 1s", "window: 50ms")
    text = text.replace("timeout: 20s", "timeout: 60s")  # a busy machine starts programs slowly

    async def body() -> None:
        async with mesh(text) as m:
            await m.publish(
                "editor.save",
                workspace=str(tmp_path),
                payload={"path": str(tmp_path / "cart.py")},
            )
            [done] = await m.wait("automation.run.*")
            [ran] = await m.runs()
            lint_step, tests_step = ran.step("lint"), ran.step("tests")
            assert lint_step is not None
            assert "F401" in lint_step.output["stdout"], (done, lint_step)
            assert tests_step is not None
            assert tests_step.state == "skipped"
            tell = ran.step("tell")
            assert tell is not None
            assert tell.state == "failed"
            assert "desktop" in (tell.error or "")

    run(body())


def test_file_audit_for_real(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A burst of operations is one bundle that holds all of them."""
    # its number ends the burst, so that it is one however long a busy machine takes to store it
    text = (FOLDER / "file-audit.yaml").read_text().replace("max: 500", "max: 3")

    async def body() -> None:
        async with mesh(text) as m:
            for number in range(3):
                await m.publish("file.op.delete", payload={"paths": [f"/tmp/{number}"]})
            [done] = await m.wait("automation.run.succeeded")
            assert done.evidence_path is not None
            folder = Path(done.evidence_path)
            assert (folder / "report.md").read_text().startswith("# 3 file operations on ")
            lines = [json.loads(line) for line in (folder / "operations.jsonl").open()]
            deleted = {one["payload"]["paths"][0] for one in lines}
            # the event itself is in the bundle's event.json
            assert deleted == {"/tmp/0", "/tmp/1"}

    run(body())
