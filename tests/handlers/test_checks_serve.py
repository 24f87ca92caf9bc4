"""`opsmesh checks serve`, asked by the SDK's own client: real pytest, ruff, bwrap and systemd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.conftest import eventually, run, until
from tests.handlers.mcp_served import Served, ask, asking, publish, refused, served
from tests.handlers.user_manager import CannotStart, user_manager
from typer.testing import CliRunner

from opsmesh.cli.main import app
from opsmesh.handlers.checks import allowed, junit, server
from opsmesh.handlers.checks.allowed import NotOnTheList
from opsmesh.handlers.sandbox import host
from opsmesh.router import paths
from opsmesh.router.settings import Settings

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("checks_serve")


TESTS = """
import os, socket, pytest
from pathlib import Path

def test_good():
    assert True

class TestIn:
    @pytest.mark.parametrize("value", ["a - b", "c::d"])
    def test_bad(self, value):
        print("value", value, "key ghp_" + "d5E6" * 9)
        assert value == "\\x1b[31mother"

@pytest.mark.skip
def test_skipped():
    pass

def test_confined():
    assert not Path({secret!r}).exists()
    assert "SECRET_IN_ENVIRONMENT" not in os.environ
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", {port}), timeout=5)
"""


@pytest.fixture(scope="module")
def sandbox() -> str:
    """bwrap where it works; locally without it, none."""
    if (why := host.bwrap()) and os.environ.get("CI"):
        pytest.fail(why)
    return "none" if why else "bwrap"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, sandbox: str) -> Iterator[Served]:
    """One mesh for all tests of this module, and a project that checks may look at."""
    home = tmp_path_factory.mktemp("checks")
    project = home / "project"
    (project / "tests").mkdir(parents=True)
    (home / "secret").write_text("s")
    (home / "outside.py").write_text("import os\n")
    (home / "outside").mkdir()
    (project / "way-out").symlink_to(home / "outside")
    (project / "leak.py").symlink_to(home / "outside.py")
    (project / "lint.py").write_text("import os\nx = 'unused'\n")
    (project / "ci.yaml").write_text("jobs: 3\n")
    (project / "wrong.yaml").write_text("jobs: many\n")
    (home / "outside.yaml").write_text("jobs: 1\n")
    (project / "link.yaml").symlink_to(home / "outside.yaml")
    schema = {"type": "object", "properties": {"jobs": {"type": "integer"}}}
    (home / "schema.json").write_text(json.dumps(schema))
    with served(home) as found:
        port = urlsplit(found.broker.broker.url).port
        text = TESTS.format(secret=str(home / "secret"), port=port)
        (project / "tests" / "test_it.py").write_text(text)
        (project / "tests" / "test_broken.py").write_text("import no_such_module\n")
        found.configure(
            checks={
                "pytest": [str(project)],
                "lint": [str(project)],
                "schemas": {
                    "ci": {
                        "schema_file": str(home / "schema.json"),
                        "files": [f"{project}/*.yaml"],
                    }
                },
                "collectors": ["env_summary"],
                "restart": {"user": ["demo-*.service"]},
                "config": {
                    "dots": ["touch", str(home / "applied")],
                    "broken": ["false"],
                },
                "sandbox": sandbox,
                # opsmesh itself, which is not installed here but developed
                "read": [str(Path(__file__).parents[2])],
                "timeout": "60s",
            },
            dotfiles={"checks": [["test", "-e", str(home / "may-apply")]]},
        )
        yield found


@pytest.fixture(scope="module")
def checks(mesh: Served) -> str:
    """The server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_IN_ENVIRONMENT", "s")
        return mesh.http("checks", "serve", "--no-auth")


def test_pytest(mesh: Served, checks: str, sandbox: str) -> None:
    """Failing tests come back with ids that can be given again; they see only their folder."""
    if sandbox == "none":
        pytest.skip(host.bwrap())

    async def body() -> None:
        async with asking(checks) as client:
            found = await ask(
                client,
                "run_pytest",
                folder=str(mesh.home / "project"),
                tests=["tests/test_it.py"],
            )
            counts = {name: found[name] for name in ("passed", "failed", "errors", "skipped")}
            assert counts == {"passed": 2, "failed": 2, "errors": 0, "skipped": 1}, found["output"]
            assert (found["outcome"], found["exit_code"]) == ("failed", 1)
            ids = [one["nodeid"] for one in found["failures"]]
            assert ids == [
                "tests/test_it.py::TestIn::test_bad[a - b]",
                "tests/test_it.py::TestIn::test_bad[c::d]",
            ]
            again = await ask(
                client, "run_pytest", folder=str(mesh.home / "project"), tests=[ids[1]]
            )
            assert (again["failed"], again["passed"]) == (1, 0)
            assert "d5E6" not in json.dumps(found)

    run(body())


def test_pytest_broken(mesh: Served, checks: str) -> None:
    """A file that cannot be collected is an error with its file."""

    async def body() -> None:
        async with asking(checks) as client:
            found = await ask(
                client,
                "run_pytest",
                folder=str(mesh.home / "project" / "tests"),
                tests=["test_broken.py"],
            )
            assert (found["errors"], found["exit_code"]) == (1, 2)
            assert "test_broken" in found["failures"][0]["nodeid"]
            assert "no_such_module" in found["failures"][0]["text"]

    run(body())


def test_given_up(mesh: Served, checks: str) -> None:
    """A check that its client gives up is ended, with all that it started."""
    project = mesh.home / "project"
    mark = f"{project}/tests/began"
    (project / "tests" / "test_slow.py").write_text(
        f"import time\ndef test_slow():\n    open({mark!r}, 'w').close()\n    time.sleep(300)\n"
    )

    async def body() -> None:
        async with asking(checks) as client:
            arguments = {"folder": str(project), "tests": ["tests/test_slow.py"]}
            call = asyncio.create_task(client.call_tool("run_pytest", arguments))

            async def began() -> bool:
                return Path(mark).exists()

            await eventually(began)
            call.cancel()

            async def gone() -> bool:
                return not any("test_slow.py" in line for line in _commands())

            assert not await gone()
            await eventually(gone)
            assert (await ask(client, "run_lint", folder=str(project)))["total"] > 0

    run(body())


def _commands() -> list[str]:
    """The command lines of this machine's processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_lint(mesh: Served, checks: str) -> None:
    """What ruff finds comes back with its place, and nothing is changed."""
    project = mesh.home / "project"

    async def body() -> None:
        async with asking(checks) as client:
            found = await ask(client, "run_lint", folder=str(project), files=["lint.py"])
            one = next(one for one in found["findings"] if one["code"] == "F401")
            assert (one["line"], one["fixable"]) == (1, True)
            assert found["total"] == len(found["findings"])

    run(body())
    assert (project / "lint.py").read_text() == "import os\nx = 'unused'\n"
    assert not (project / ".ruff_cache").exists()


def test_schema(mesh: Served, checks: str) -> None:
    """A file fits the schema that is set for it, or what is wrong is said."""
    project = mesh.home / "project"

    async def body() -> None:
        async with asking(checks) as client:
            good = await ask(client, "validate_schema", schema="ci", file=str(project / "ci.yaml"))
            assert (good["ok"], good["problem"]) == (True, "")
            wrong = await ask(
                client, "validate_schema", schema="ci", file=str(project / "wrong.yaml")
            )
            assert wrong["ok"] is False
            assert "jobs" in wrong["problem"]
            bomb = "a0: &a0 [x, x]\n" + "".join(
                f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
            )
            (project / "bomb.yaml").write_text(bomb)
            grown = await ask(
                client, "validate_schema", schema="ci", file=str(project / "bomb.yaml")
            )
            assert "anchors" in grown["problem"]

    run(body())


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("run_pytest", {"folder": "{home}"}),
        ("run_pytest", {"folder": "{home}/project/way-out"}),
        ("run_pytest", {"folder": "{home}/project/../outside"}),
        ("run_pytest", {"folder": "project"}),
        ("run_pytest", {"folder": "{home}/project", "tests": ["../outside.py"]}),
        ("run_pytest", {"folder": "{home}/project", "tests": ["/etc/passwd"]}),
        ("run_pytest", {"folder": "{home}/project", "tests": ["--rootdir=/"]}),
        ("run_pytest", {"folder": "{home}/project", "tests": ["-p", "os"]}),
        ("run_pytest", {"folder": "{home}/project", "tests": ["@/etc/passwd"]}),
        ("run_lint", {"folder": "/etc"}),
        ("run_lint", {"folder": "{home}/project", "files": ["leak.py"]}),
        ("run_lint", {"folder": "{home}/project", "files": ["--config=/tmp/x.toml"]}),
        ("validate_schema", {"schema": "other", "file": "{home}/project/ci.yaml"}),
        ("validate_schema", {"schema": "ci", "file": "{home}/outside.yaml"}),
        ("validate_schema", {"schema": "ci", "file": "{home}/project/link.yaml"}),
        ("restart_unit", {"unit": "sshd.service"}),
        ("restart_unit", {"unit": "demo-*.service"}),
        ("restart_unit", {"unit": "--force"}),
        ("restart_unit", {"unit": "demo-a.service", "manager": "system"}),
        ("restart_unit", {"unit": "demo-a.service other.service"}),
        ("apply_config", {"name": "touch /tmp/x"}),
        ("collect_evidence", {"collectors": ["journal"], "event_id": "01a205fc"}),
    ],
)
def test_refused(mesh: Served, checks: str, tool: str, arguments: dict[str, Any]) -> None:
    """What is not on the list is refused, is said with the setting, and is on record as refused."""
    given = json.loads(json.dumps(arguments).replace("{home}", str(mesh.home)))
    before = len(mesh.records())

    async def body() -> None:
        async with asking(checks) as client:
            text = await refused(client, tool, **given)
            assert "Error executing tool" in text
            assert "Traceback" not in text

    run(body())
    # a refusal is answered while its record is still being written, and so may be those of earlier
    # calls; of one that acts there is another, from before it was tried
    record = until(lambda: [one for one in mesh.records()[before:] if _is_refusal(one)])[-1]
    assert record["payload"]["tool"] == tool


def _is_refusal(record: dict[str, Any]) -> bool:
    return bool(record["payload"]["outcome"] == "refused")


def test_apply(mesh: Served, checks: str) -> None:
    """Configuration is applied behind the user's checks: while one fails, nothing is."""
    applied, gate = mesh.home / "applied", mesh.home / "may-apply"

    async def body() -> None:
        async with asking(checks) as client:
            found = await ask(client, "apply_config", name="dots")
            assert found["outcome"] == "check failed: nothing was applied"
            assert not applied.exists()
            gate.write_text("")
            assert (await ask(client, "apply_config", name="dots"))["outcome"] == "applied"
            assert applied.exists()
            assert (await ask(client, "apply_config", name="broken"))["outcome"] == "failed"

    try:
        run(body())
    finally:
        gate.unlink(missing_ok=True)


def test_collect(mesh: Served, checks: str) -> None:
    """Evidence is collected here too."""

    async def body() -> None:
        async with asking(checks) as client:
            event = await publish("mesh.demo.off")
            bundle = await ask(client, "collect_evidence", event_id=event.id)
            assert Path(bundle["path"], "manifest.json").exists()

    run(body())


def test_off(home: Path) -> None:
    """Without a word in the settings each check is off, and names the setting to write."""

    async def body() -> None:
        serving = server.make(Settings(), transport="stdio")
        async with asking(serving.server) as client:
            for tool, arguments, setting in (
                ("run_pytest", {"folder": "/tmp"}, "checks.pytest: ["),
                ("run_lint", {"folder": "/tmp"}, "checks.lint: ["),
                ("validate_schema", {"schema": "a", "file": "/b"}, "checks.schemas: {"),
                ("restart_unit", {"unit": "a.service"}, "checks.restart.user: ["),
                ("apply_config", {"name": "a"}, "checks.config: {"),
                ("collect_evidence", {"event_id": "01a205fc"}, "checks.collectors: ["),
            ):
                assert setting in await refused(client, tool, **arguments)
        await serving.close()

    run(body())


@pytest.mark.slow
def test_restart(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A unit that is allowed is restarted by a real manager; an alias of another one is not."""
    units = tmp_path_factory.mktemp("restart") / "config" / "systemd" / "user"
    home = units.parents[2]
    units.mkdir(parents=True)
    body_of = "[Service]\nExecStart=/bin/sleep 600\n"
    (units / "demo-a.service").write_text(body_of)
    (units / "other.service").write_text(body_of)
    (units / "demo-alias.service").symlink_to(units / "other.service")
    with served(home) as mesh:
        mesh.configure(checks={"restart": {"user": ["demo-*.service"]}})
        try:
            with user_manager(Path(os.environ["XDG_RUNTIME_DIR"])):
                where = mesh.stdio("checks", "serve")

                async def body() -> None:
                    async with asking(where) as client:
                        found = await ask(client, "restart_unit", unit="demo-a.service")
                        assert (found["ok"], found["active"]) == (True, "active")
                        text = await refused(client, "restart_unit", unit="demo-alias.service")
                        assert "really other.service" in text
                        text = await refused(client, "restart_unit", unit="demo-none.service")
                        assert "not-found" in text

                run(body())
        except CannotStart as why:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(why))


@pytest.mark.parametrize(
    ("case", "nodeid"),
    [
        (
            {"file": "tests/test_a.py", "classname": "tests.test_a.TestA.TestB", "name": "t[x]"},
            "tests/test_a.py::TestA::TestB::t[x]",
        ),
        ({"file": "test_a.py", "classname": "test_a", "name": "t"}, "test_a.py::t"),
        ({"classname": "", "name": "tests.test_broken"}, "tests.test_broken"),
    ],
)
def test_nodeid(case: dict[str, str], nodeid: str) -> None:
    """A test's id is put together again from pytest's report."""
    assert junit.nodeid(case) == nodeid


def test_report() -> None:
    """A report that is none, or that would grow without end, is said to be so."""
    bomb = '<!DOCTYPE a [<!ENTITY a "xxxxxxxxxx">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    for data in (b"", b"<a", f"{bomb}]><a>&k;</a>".encode()):
        with pytest.raises(ValueError, match="cannot be read"):
            junit.read(data)


@pytest.mark.parametrize(
    "name", ["", "a", "-a.service", "a.service\n", "a b.service", "a?.service"]
)
def test_unit_names(name: str) -> None:
    """What is no unit's whole name is refused whatever the list says."""
    with pytest.raises(NotOnTheList):
        allowed.unit(name, ["*"], setting="checks.restart.user")


def test_circle(tmp_path: Path) -> None:
    """Links that lead in a circle lead nowhere."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(NotOnTheList):
        allowed.within(tmp_path, "a")


def test_ls(home: Path) -> None:
    """`checks ls` shows what each check may touch."""
    file = Path(paths.config_dir(), "config.yaml")
    file.parent.mkdir(parents=True)
    file.write_text("checks: {lint: [~/work]}\n")
    rows = json.loads(CliRunner().invoke(app, ["checks", "ls", "--json"]).stdout)
    assert {one["check"]: one["allowed"] for one in rows}["run_lint"] == ["~/work"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("checks: {pyest: [~/a]}", "did you mean 'pytest'?"),
        ("checks: {lint: [work/app]}", "'work/app' is not an absolute path"),
        ("checks: {config: {dots: []}}", "checks.config"),
        ("mcp_serve: {allow: [everything]}", "mcp_serve.allow"),
        ("mcp_serve: {collectors: [/etc/passwd]}", "is no collector's word"),
    ],
)
def test_settings(home: Path, text: str, said: str) -> None:
    """A mistake in the allow-list is said with its place, and nothing is served."""
    file = Path(paths.config_dir(), "config.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(text + "\n")
    done = CliRunner().invoke(app, ["checks", "ls"])
    assert done.exit_code == 1
    assert said in done.output
    assert f"{file}:1:" in done.output
