"""VS Code: the extension in node against the real agent, and the producer that sees hosts die.

The module `vscode` is a stand-in here (packages/vscode-opsmesh/test/stub.js); test_vscode_real.py
runs the same in code-server. Log lines are code-server's own, captured, and the desktop's where its
sources say so.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.conftest import mesh_client, run
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle
from tests.producers.process import producing
from tests.producers.strokes import unseen
from tests.producers.vscodes import EXTENSION, hosting, node
from tests.router.agent_process import agent as real_agent

from opsmesh.producers.memory import Memory
from opsmesh.producers.vscode import hosts, logs, places, vsix
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer

DATA = Path(__file__).parent / "data/vscode"
pytestmark = pytest.mark.usefixtures("installed")
#: Seconds that the extension's own tests may take.
PATIENCE = 120
#: As code-server writes it (data/vscode/remoteagent.log).
ENDED = (
    "2026-11-27 22:47:48.204 [info] [127.0.0.1][b09180fb][ExtensionHostConnection] <{pid}> "
    "Extension Host Process exited with code: {code}, signal: {signal}.\n"
)
#: How ends are written: captured; the others from the desktop's sources.
SERVER = "<7> Extension Host Process exited with code:"
DESKTOP = "Extension host with pid 7"
UTILITY = "[UtilityProcess id: 1, type: extensionHost, pid: 7]:"
WINDOW = "Extension host (LocalProcess pid: 7) terminated unexpectedly."


@pytest.fixture
def installed(home: Path) -> None:
    """The extension was installed, so that the producer waits for hosts."""
    places.vsix().parent.mkdir(parents=True)
    places.vsix().touch()


def test_the_extensions_own_tests() -> None:
    """The extension's tests pass in node."""
    argv = [node(), "--test", "--test-reporter=tap"]
    files = sorted(map(str, EXTENSION.glob("test/*.test.js")))
    done = subprocess.run(
        [*argv, *files], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "\n# fail 0\n" in done.stdout
    assert "\n# pass 0\n" not in done.stdout


# ------------------------------------------------------------------ the extension and the mesh


def stored() -> list[dict[str, Any]]:
    """The editor's events as they lie at the broker, in their order."""

    async def body() -> list[dict[str, Any]]:
        async with mesh_client() as client:
            found = scan(client, "EVENTS", subjects=["evt.*.editor.>"])
            return [json.loads(message.data) async for message in found]

    events: list[dict[str, Any]] = run(body())
    return events


def test_events_of_the_extension_are_stored_in_order_also_those_of_before_the_agent(
    nats_server: EmbeddedServer, home: Path
) -> None:
    """What is told while the mesh is down, while it is up, and after it was killed, is stored once
    and in order."""
    (home / "app/.git").mkdir(parents=True)
    (home / "app/a.py").touch()
    with hosting(home / "logs/exthost1") as host:
        host.say("fail", "one", 1, "test", str(home / "app"))
        host.say("save", str(home / "app/a.py"))
        until(lambda: host.say("status")["spooled"] == 3)
        with real_agent(home) as running:
            host.say("fail", "two", 2)
            until(lambda: host.say("status")["sent"] == 1)
            running.kill()
        host.say("fail", "three", 3)
        until(lambda: host.say("status")["spooled"] == 4)
        with real_agent(home):
            host.say("fail", "four", 4)
            until(lambda: host.say("status")["sent"] == 2)
            events = stored()
    assert [event["payload"].get("task") for event in events] == [
        "one",
        None,
        None,
        *("two", "three", "four"),
    ]
    assert [event["topic"] for event in events[:3]] == [
        *("editor.task.failed", "editor.test.failed", "editor.save"),
    ]
    assert {event["session_id"] for event in events} == {"vscode:1f2e3d4c"}
    assert events[0]["workspace"] == events[2]["workspace"] == str(home / "app")
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[0]["severity"] == "error"


# ------------------------------------------------------------------ hosts that die


def crashed(agent: StandInAgent, count: int = 1) -> list[dict[str, Any]]:
    """The payloads of what the producer told, once they are so many."""
    agent.wait_for(lambda events: len(crashes(events)) >= count)
    return [event["payload"] for event in crashes(agent.events)]


def crashes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["topic"] == "editor.extension.crashed"]


def host_files() -> list[Path]:
    return list(places.hosts().glob("*.json"))


def test_a_host_that_is_killed_is_told_with_the_words_of_the_log(
    agent: StandInAgent, home: Path
) -> None:
    """A host that dies is told at once, with the exit code and signal that the server's log has."""
    server = home / "logs/remoteagent.log"
    with (
        producing("vscode", log=home / "log") as process,
        hosting(home / "logs/exthost1") as host,
    ):
        with unseen(process):  # it waits for GRACE, two seconds, and no more
            host.die()
            server.write_text(ENDED.format(pid=host.pid + 1, code=0, signal="null"))
            with server.open("a") as log:
                log.write(ENDED.format(pid=host.pid, code="null", signal="SIGSEGV"))
        [payload] = crashed(agent)
        until(lambda: not host_files())
    assert payload == {
        "message": f"[127.0.0.1][b09180fb][ExtensionHostConnection] <{host.pid}> "
        "Extension Host Process exited with code: null, signal: SIGSEGV.",
        "signal": "SIGSEGV",
        "log_path": str(server),
        "editor": "vscode",
    }
    [event] = crashes(agent.events)
    assert (event["source"], event["session_id"]) == ("vscode", "vscode:1f2e3d4c")


def test_a_host_that_died_while_nobody_watched(home: Path) -> None:
    """With producer and mesh away a host's death waits in its file, and then in the spool."""
    with hosting(home / "logs/exthost1") as host:
        host.die(signal.SIGKILL)
        with producing("vscode", log=home / "log"):
            until(lambda: len(spooled(home)) == 1 and not host_files())
    [event] = spooled(home)
    assert event["payload"] == {
        "message": "the extension host's process is gone",
        "editor": "vscode",
    }


@pytest.mark.parametrize(
    "how",
    [
        *("leaves", "with the editor"),
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("asked to", "earlier boot")),
    ],
)
def test_an_end_that_is_nobodys_news(agent: StandInAgent, home: Path, how: str) -> None:
    """A host that takes its leave, ends with its editor, was asked to end, or is of an earlier
    boot, is not told."""
    server = home / "logs/remoteagent.log"
    with (
        hosting(home / "logs/exthost1") as host,
        producing("vscode", log=home / "log") as process,
    ):
        [file] = host_files()
        if how == "leaves":
            host.say("leave")
        elif how == "with the editor":
            host.die(signal.SIGKILL, also_parent=True)
        elif how == "asked to":
            server.write_text(ENDED.format(pid=host.pid, code=0, signal="null"))
            host.die(signal.SIGKILL)
        else:
            told = json.loads(file.read_text())
            host.die(signal.SIGKILL, also_parent=True)
            file.write_text(json.dumps({**told, "boot_id": "another"}))
        until(lambda: not host_files())
        with hosting(home / "logs/exthost2") as second:  # what comes later comes through
            with unseen(process):
                second.die()
                server.write_text(ENDED.format(pid=second.pid, code=5, signal="null"))
            [payload] = crashed(agent)
    assert payload["exit_code"] == 5
    assert f"<{second.pid}>" in payload["message"]


def test_files_that_no_host_has_written_are_passed_over(agent: StandInAgent, home: Path) -> None:
    """Anything else in the folder disturbs nobody."""
    places.hosts().mkdir(parents=True)
    for name, text in (("1-1.json", "{"), ("2-2.json", "[]"), ("3-3.json", '{"pid":"x"}')):
        (places.hosts() / name).write_text(text)
    (places.hosts() / "4-4.json").mkdir()
    with (
        producing("vscode", log=home / "log") as process,
        hosting(home / "logs/exthost1") as host,
    ):
        with unseen(process):
            host.die()
            (home / "logs/remoteagent.log").write_text(
                ENDED.format(pid=host.pid, code=1, signal="null")
            )
        assert crashed(agent)[0]["exit_code"] == 1


# ------------------------------------------------------------------ extensions that fail


def remembered(log: Path) -> int:
    """Up to where the producer has noted that it has told what a log says."""
    memory = Memory("vscode").load().get("logs", {})
    return int(memory.get(str(log), [0, 0])[1])


def test_an_extension_that_cannot_be_activated_is_told_once(
    agent: StandInAgent, home: Path
) -> None:
    """A failed activation in code-server's own log is told with its error, and not again by the
    next life of the producer; what is appended later is."""
    captured = (DATA / "remoteexthost.log").read_bytes()
    with hosting(home / "logs/exthost1") as host:
        log = host.logs / "remoteexthost.log"
        with producing("vscode", log=home / "log"):
            log.write_bytes(captured)
            [payload] = crashed(agent)
            until(lambda: remembered(log) == len(captured))
        with producing("vscode", log=home / "log"), log.open("ab") as file:
            file.write(captured.replace(b"example.bad", b"example.worse"))
            file.flush()
            payloads = crashed(agent, 2)
    assert payload == {
        "extension": "example.bad",
        "message": "Error: boom at activation",
        "log_path": str(log),
        "editor": "vscode",
    }
    assert [one["extension"] for one in payloads] == ["example.bad", "example.worse"]
    event = crashes(agent.events)[0]
    assert (event["component"], event["session_id"]) == ("example.bad", "vscode:1f2e3d4c")


def test_a_failure_waits_for_its_error(agent: StandInAgent, home: Path) -> None:
    """A log that is caught between two lines is told whole, or after a second without the rest."""
    begin, error = (
        b"2026-11-27 22:47:40.833 [error] Activating extension a.b failed due to an error:\n",
        b"2026-11-27 22:47:40.833 [error] Error: boom\n",
    )
    with hosting(home / "logs/exthost1") as host, producing("vscode", log=home / "log"):
        log = host.logs / "exthost.log"
        log.write_bytes(begin)
        with log.open("ab") as file:
            file.write(error)
        first = crashed(agent, 1)[0]
        with log.open("ab") as file:
            file.write(begin)
        second = crashed(agent, 2)[1]
    assert first["message"] in ("Error: boom", second["message"])
    assert second["message"] == "Activating extension a.b failed due to an error"


def test_half_of_a_failure_is_not_taken() -> None:
    """What has been read ends before a failure whose error is missing, unless it is the last."""
    data = (DATA / "remoteexthost.log").read_bytes()
    whole, taken = logs.failures(data, 100, last=False)
    at = data.index(b"2026-11-27 22:47:40.833 [error] Activating")
    assert [(one.extension, one.offset) for one in whole] == [("example.bad", 100 + at)]
    assert taken == len(data)
    cut = data[: data.index(b"due to an error:\n") + len(b"due to an error:\n")]
    assert logs.failures(cut, 0, last=False) == ([], at)
    [last], taken = logs.failures(cut, 0, last=True)
    assert (last.message, taken) == (
        "Activating extension example.bad failed due to an error",
        len(cut),
    )


@pytest.mark.parametrize(
    ("name", "line", "code", "signal", "orderly"),
    [
        ("../remoteagent.log", f"{SERVER} 0, signal: null.", 0, None, True),
        ("../remoteagent.log", f"{SERVER} null, signal: SIGTERM.", None, "SIGTERM", True),
        ("../../main.log", f"{DESKTOP} exited with code: 0, signal: unknown.", 0, None, True),
        ("../../main.log", f"{DESKTOP} exited with code: 9, signal: unknown.", 9, None, False),
        ("../../main.log", f"{DESKTOP} exited with code: 15, signal: unknown.", 15, None, True),
        ("../../main.log", f"{UTILITY} crashed with code 5 and reason 'crashed'", 5, None, False),
        ("../renderer.log", f"{WINDOW} Code: 139, Signal: SIGSEGV", 139, "SIGSEGV", False),
    ],
)
def test_words_of_an_end(
    tmp_path: Path, name: str, line: str, code: int | None, signal: str | None, orderly: bool
) -> None:
    """Each way in which an end is written is read, of this process alone."""
    folder = tmp_path / "day/window1/exthost"
    folder.mkdir(parents=True)
    (folder / name).write_text(
        f"2026-11-27 22:47:48.204 [info] {line.replace('7', '77', 1)}\n"
        f"2026-11-27 22:47:48.204 [info] {line}\n"
    )
    found = logs.end_of(7, folder)
    assert found is not None
    assert (found.exit_code, found.signal, found.orderly) == (code, signal, orderly)
    assert logs.end_of(8, folder) is None


@pytest.mark.slow
def test_it_costs_nothing_while_nothing_happens(home: Path) -> None:
    """The producer, at rest beside a host, uses no processor and little memory."""
    with standing_in(home), hosting(home / "logs/exthost1"):
        memory, cpu = idle("vscode", {}, home)
    assert cpu < 0.5
    assert memory < 40


# ------------------------------------------------------------------ the package


def test_the_package_is_the_same_whenever_it_is_made() -> None:
    """Two packings are the same bytes: the extension with opsmesh's version, and no test."""
    data = vsix.pack(release="1.2.0.dev3")
    assert data == vsix.pack(release="1.2.0.dev3")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("extension/package.json"))
        told = ElementTree.fromstring(archive.read("extension.vsixmanifest"))
        ElementTree.fromstring(archive.read("[Content_Types].xml"))
        assert archive.testzip() is None
    assert manifest["version"] == "1.2.0-dev3"
    spaces = {"v": "http://schemas.microsoft.com/developer/vsx-schema/2011"}
    identity = told.find("v:Metadata/v:Identity", spaces)
    assert identity is not None
    assert f"{identity.get('Publisher')}.{identity.get('Id')}" == vsix.IDENTITY
    assert identity.get("Version") == "1.2.0-dev3"
    assert {f"extension/src/{path.name}" for path in EXTENSION.glob("src/*.js")} <= {*names}
    assert "extension/LICENSE" in names
    assert not [name for name in names if "test" in name]


@pytest.mark.parametrize(
    ("release", "written"), [("0.1.0", "0.1.0"), ("1.2", "1.2.0"), ("1.2.0rc1+g1", "1.2.0-rc1-g1")]
)
def test_versions(release: str, written: str) -> None:
    """A version of Python's becomes one that VS Code takes."""
    assert vsix.semver(release) == written


def test_what_the_package_says_it_has(home: Path) -> None:
    """Every command and setting of package.json is one that the code has, and the other way."""
    manifest = json.loads((EXTENSION / "package.json").read_text())
    sources = "".join(path.read_text() for path in EXTENSION.glob("src/*.js"))
    for command in manifest["contributes"]["commands"]:
        assert f"command('{command['command']}'" in sources
    events = {f"opsmesh.events.{name}" for name in ("save", "taskFailed", "testFailed")}
    settings = set(manifest["contributes"]["configuration"]["properties"])
    assert settings == events | {"opsmesh.path", "opsmesh.statusBar"}
    assert (
        manifest["contributes"]["configuration"]["properties"]["opsmesh.path"]["scope"] == "machine"
    )
    assert "dependencies" not in manifest
    assert (EXTENSION / "LICENSE").read_bytes() == (EXTENSION / "../../LICENSE").read_bytes()


def test_a_host_is_here(home: Path) -> None:
    """A host of this boot and this machine can be followed; its parent is known."""
    with hosting(home / "logs/exthost1") as host:
        [told] = hosts.look(places.hosts()).values()
        assert told.here()
        assert told.parent_lives()
        assert (told.pid, told.logs) == (host.pid, str(host.logs))
