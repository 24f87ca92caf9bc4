"""`opsmesh evidence bundle`: found, read, packed, proved, removed; of this host and others."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.conftest import eventually, run
from tests.handlers.collecting import Made, collect
from tests.handlers.conftest import *  # noqa: F403 (its fixtures)
from tests.handlers.mesh import Mesh, mesh
from typer.testing import Result

from opsmesh.cli.evidence import bundles as evidence_bundles
from opsmesh.handlers.bundles.store import Object, Store
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer

PROFILE = """
version: 1
profiles:
  triage:
    on: service.start.failed
    actions:
      - {id: evidence, collect: {items: [disk], report: true}}
"""

Make = Callable[..., Made]


@pytest.fixture
def make(cli: Cli, context: Callable[..., object]) -> Make:
    """Bundles in this test's own state folder."""

    def made(*items: object, **changes: Any) -> Made:
        spec = {"items": list(items) or [{"name": "said", "command": ["echo", "hello"]}]}
        report = changes.pop("report", False)
        return collect(
            context,  # type: ignore[arg-type]
            {**spec, "report": report},
            bundles=Path(paths.bundles_dir()),
            **changes,
        )

    return made


def test_ls(cli: Cli, make: Make) -> None:
    """The newest bundles are listed, the newest last, as people and programs read them."""
    make(run_id="run1")
    newest = make(run_id="run2", profile="other")
    listed = json.loads(cli("evidence", "bundle", "ls", "--local", "--json").stdout)
    assert [one["run_id"] for one in listed] == ["run1", "run2"]
    assert listed[1]["folder"] == str(newest.folder)
    shown = cli("evidence", "bundle", "ls", "--local", "--profile", "other").stdout
    assert newest.result.output["bundle"][:12] in shown
    assert len(shown.splitlines()) == 2


def test_ls_without_a_mesh(cli: Cli, make: Make) -> None:
    """Without a broker what is here is listed, with a note."""
    make()
    result = cli("evidence", "bundle", "ls")
    assert result.exit_code == 0
    assert "triage" in result.stdout
    assert "the mesh cannot be reached" in result.stderr


@pytest.mark.parametrize("since", ["1h", "2000-01-01T00:00:00Z"])
def test_since(cli: Cli, make: Make, since: str) -> None:
    """`--since` is about when the bundle was made."""
    make()
    arguments = ("evidence", "bundle", "ls", "--local", "--json", "--since")
    assert len(json.loads(cli(*arguments, since).stdout)) == 1
    assert json.loads(cli(*arguments, "2999-01-01T00:00:00Z").stdout) == []


def test_show(cli: Cli, make: Make) -> None:
    """What a bundle holds, what is missing and why, and what was taken out, on one screen."""
    token = "ghp_" + "a1B2" * 9
    made = make(
        {"name": "said", "command": ["echo", token]}, {"file": "/no/such.conf"}, report=True
    )
    shown = cli("evidence", "bundle", "show", made.result.output["bundle"][:8]).stdout
    assert "triage step step, on dev" in shown
    assert "4 pieces" in shown
    assert "1 with an error" in shown
    assert "github_token" in shown
    assert "/no/such.conf: No such file or directory" in shown
    assert "--file report.md" in shown
    assert token not in shown


def test_show_what_lies(cli: Cli, make: Make) -> None:
    """A manifest that another host made of anything is shown, and drives no terminal."""
    made = make()
    manifest = json.loads((made.folder / "manifest.json").read_text())
    odd = {"size": "many", "removed": {"x": []}, "redacted": True, "error": {"a": "\x1b[2J"}}
    manifest |= {"host": "\x1b]0;evil\x07", "removed": None, "duration_ms": "long", "run_id": 3}
    manifest |= {"created_utc": [], "files": [*manifest["files"], {"name": "x", **odd}, "y"]}
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    shown = cli("evidence", "bundle", "show", str(made.folder))
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert cli("evidence", "bundle", "ls", "--local").exit_code == 0


def test_show_by_run(cli: Cli, make: Make) -> None:
    """A bundle is found by its run, as `run show` names it, and by its folder."""
    made = make(run_id="0198c0de-run")
    for ref in ("0198c0de", str(made.folder)):
        found = json.loads(cli("evidence", "bundle", "show", ref, "--json").stdout)
        assert found["bundle"] == made.result.output["bundle"]


def test_show_file(cli: Cli, make: Make) -> None:
    """One file of a bundle is printed as it is; one that is not there is told with those that
    are."""
    ref = make().result.output["bundle"][:12]
    assert cli("evidence", "bundle", "show", ref, "--file", "said").stdout == "hello\n"
    result = cli("evidence", "bundle", "show", ref, "--file", "../../secret")
    assert result.exit_code == 3
    assert "it holds event.json, said" in result.stderr


@pytest.mark.parametrize("ref", ["nope", "abc", "0000000000"])
def test_unknown(cli: Cli, make: Make, ref: str) -> None:
    """A bundle that is not known is told with the next step, and exit code 3."""
    make()
    result = cli("evidence", "bundle", "show", ref)
    assert result.exit_code == 3
    assert f"no bundle '{ref}' is known" in result.stderr
    assert "opsmesh evidence bundle ls" in result.stderr


def test_two_of_one_run(cli: Cli, make: Make) -> None:
    """A run with two bundles does not name one of them."""
    make(run_id="run-x", step_id="one")
    make(run_id="run-x", step_id="two")
    result = cli("evidence", "bundle", "show", "run-x")
    assert "2 bundles are named 'run-x'" in result.stderr


def test_open(cli: Cli, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`open` gives the folder to the desktop; `--print-path` to a script."""
    made = make()
    ref = made.result.output["bundle"][:12]
    printed = cli("evidence", "bundle", "open", ref, "--print-path").stdout
    assert printed == f"{made.folder}\n"
    opener = tmp_path / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened.part\n'
                      f"mv {tmp_path}/opened.part {tmp_path}/opened\n")  # fmt: skip
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{opener.parent}:/usr/bin:/bin")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-9")
    assert cli("evidence", "bundle", "open", ref).exit_code == 0
    run(eventually(lambda: (tmp_path / "opened").exists()))
    assert (tmp_path / "opened").read_text() == f"{made.folder}\n"


def test_open_without_a_desktop(cli: Cli, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a desktop, and into a pipe, the folder is printed."""
    for variable in ("WAYLAND_DISPLAY", "DISPLAY", "PAGER"):
        monkeypatch.delenv(variable, raising=False)
    made = make()
    result = cli("evidence", "bundle", "open", made.result.output["bundle"][:12])
    assert result.stdout == f"{made.folder}\n"


@pytest.mark.parametrize("name", ["out.tar.zst", "out.zip"])
def test_export(cli: Cli, make: Make, tmp_path: Path, name: str) -> None:
    """A bundle becomes one file, the same one each time; another file is not replaced unasked."""
    ref, out = make().result.output["bundle"][:12], tmp_path / name
    assert cli("evidence", "bundle", "export", ref, str(out)).exit_code == 0
    first = out.read_bytes()
    again = cli("evidence", "bundle", "export", ref, str(out))
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)
    assert cli("evidence", "bundle", "export", ref, str(out), "--force").exit_code == 0
    assert out.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_export_of_another_form(cli: Cli, make: Make, tmp_path: Path) -> None:
    """A name that says no form is refused with one that does."""
    ref = make().result.output["bundle"][:12]
    result = cli("evidence", "bundle", "export", ref, str(tmp_path / "out.rar"))
    assert result.exit_code == 2
    assert "ends neither in .tar.zst nor in .zip" in result.stderr


def test_verify(cli: Cli, make: Make, tmp_path: Path) -> None:
    """A bundle, and what was exported of it, is intact until a byte is changed."""
    made = make()
    ref, out = made.result.output["bundle"][:12], tmp_path / "out.tar.zst"
    cli("evidence", "bundle", "export", ref, str(out))
    for what in (ref, str(out)):
        result = cli("evidence", "bundle", "verify", what)
        assert (result.exit_code, result.stdout.split(":")[0]) == (0, "intact")
    (made.folder / "said").write_text("forged")
    result = cli("evidence", "bundle", "verify", ref, "--json")
    assert result.exit_code == 1
    problem = "said: has another hash than in the manifest"
    assert json.loads(result.stdout)["problems"] == [problem]
    out.write_bytes(out.read_bytes()[:-20])
    assert cli("evidence", "bundle", "verify", str(out)).exit_code == 1


def test_gc(cli: Cli, make: Make) -> None:
    """What would go is shown; it goes with --yes alone, and the rest stays."""
    old, new = make(run_id="run1"), make(run_id="run2")
    arguments = ("evidence", "bundle", "gc", "--keep", "1")
    shown = cli(*arguments, "--dry-run")
    assert str(old.folder) in shown.stdout
    refused = cli(*arguments)
    assert refused.exit_code == 2
    assert old.folder.exists()
    assert cli(*arguments, "--yes").exit_code == 0
    assert (old.folder.exists(), new.folder.exists()) == (False, True)
    assert json.loads(cli(*arguments, "--yes", "--json").stdout) == []


def test_gc_by_settings(cli: Cli, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options it is what the settings let go."""
    made = make()
    assert json.loads(cli("evidence", "bundle", "gc", "--dry-run", "--json").stdout) == []
    monkeypatch.setenv("OPSMESH_BUNDLES__KEEP", "1us")
    [gone] = json.loads(cli("evidence", "bundle", "gc", "--dry-run", "--json").stdout)
    assert (gone["folder"], gone["why"], gone["removed"]) == (str(made.folder), "old", False)


def test_complete(make: Make) -> None:
    """A shell completes ids of bundles and of their runs."""
    made = make(run_id="0198c0de-run")
    found = dict(evidence_bundles.complete("0198"))
    assert "0198c0de-run" in found
    assert made.result.output["bundle"][:12] in dict(evidence_bundles.complete(""))


async def call(cli: Cli, *arguments: str) -> Result:
    return await asyncio.to_thread(cli, *arguments)


@asynccontextmanager
async def shared() -> AsyncIterator[tuple[Mesh, Object]]:
    """A mesh with a bundle in its store, which this host has no more."""
    async with mesh(PROFILE) as m:
        await m.publish()
        [one] = await eventually(Store(m.client).list)
        await m.wait("automation.run.succeeded")
        yield m, one


def test_of_a_run(cli: Cli, nats_server: EmbeddedServer) -> None:
    """`run show` and `why` point to a run's evidence, which its record names by its id."""

    async def body() -> None:
        async with shared() as (_, one):
            run_id = one.told["run_id"]
            shown = (await call(cli, "run", "show", run_id)).stdout
            assert f"opsmesh evidence bundle show {run_id}" in shown
            why = (await call(cli, "why", one.told["event_id"])).stdout
            assert f"opsmesh evidence bundle show {run_id}" in why
            verified = await call(cli, "evidence", "bundle", "verify", run_id)
            assert f"its run {run_id} has made it" in verified.stdout

    run(body())


def test_manifest_written_anew(cli: Cli, nats_server: EmbeddedServer) -> None:
    """A bundle that was forged with its manifest is not the one that its run has made."""

    async def body() -> None:
        async with shared() as (m, one):
            [known] = await m.runs()
            manifest = Path(str(known.evidence_path), "manifest.json")
            manifest.write_text(manifest.read_text().replace('"attempt": 1', '"attempt": 2'))
            verified = await call(cli, "evidence", "bundle", "verify", one.told["run_id"])
            assert verified.exit_code == 1
            assert "manifest.json: its run has made bundle" in verified.stdout

    run(body())


def test_of_another_host(cli: Cli, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """What another host has shared is listed, fetched, shown and packed as if it were here."""

    async def body() -> None:
        async with shared() as (_, one):
            shutil.rmtree(paths.bundles_dir())  # as on a host that never had it
            ref = one.bundle_id[:12]
            listed = json.loads((await call(cli, "evidence", "bundle", "ls", "--json")).stdout)
            assert [(it["bundle"], it["where"]) for it in listed] == [(one.bundle_id, "shared")]
            sizes = [it["bytes"] for it in listed]
            shown = await call(cli, "evidence", "bundle", "show", ref)
            assert "report.md" in shown.stdout
            out = tmp_path / "out.tar.zst"
            assert (await call(cli, "evidence", "bundle", "export", ref, str(out))).exit_code == 0
            assert (await call(cli, "evidence", "bundle", "verify", str(out))).exit_code == 0
            listed = json.loads((await call(cli, "evidence", "bundle", "ls", "--json")).stdout)
            assert [(it["where"], it["bytes"]) for it in listed] == [("fetched", *sizes)]

    run(body())


def test_lie_of_another_host(cli: Cli, nats_server: EmbeddedServer) -> None:
    """Of a bundle that is not what it says, nothing is shown, and there is no traceback."""

    async def body() -> None:
        async with shared() as (m, one):
            shutil.rmtree(paths.bundles_dir())
            js = m.client.jetstream()
            subject = f"$O.opsmesh-evidence.C.{one.nuid}"
            await js.purge_stream("OBJ_opsmesh-evidence", subject=subject)
            await js.publish(subject, b"x" * one.size)
            result = await call(cli, "evidence", "bundle", "show", one.bundle_id[:12])
            assert result.exit_code == 1
            assert "nothing of it is shown" in result.stderr

    run(body())
