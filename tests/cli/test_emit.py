"""`opsmesh emit`: any argument, with or without an agent, at the price of starting Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import private_folders, start_server
from tests.router.agent_process import agent, spooled

from opsmesh.cli.emit import command as emit_module
from opsmesh.router import session
from opsmesh.schemas import envelope, ids

CODE = "import sys; from opsmesh.cli.entry import main; sys.exit(main())"
#: What `emit` must not load, for it costs more than starting Python.
HEAVY = """\
    re json json.decoder argparse socket enum pathlib typing collections dataclasses datetime
    hashlib uuid logging subprocess threading random inspect ast contextlib functools
    typer rich msgspec pydantic nats structlog yaml asyncio
    fcntl opsmesh.router.losses opsmesh.router.spool_overflow
"""


def emit(*arguments: str | bytes, **more: Any) -> subprocess.CompletedProcess[bytes]:
    argv: list[str | bytes] = [sys.executable, "-c", CODE, "emit", *arguments]
    return subprocess.run(argv, capture_output=True, timeout=180, check=False, **more)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A broker and an agent."""
    home = tmp_path_factory.mktemp("mesh")
    with pytest.MonkeyPatch.context() as patch:
        private_folders(home, patch)
        broker = start_server()
        try:
            with agent(home):
                yield
        finally:
            broker.stop()


@pytest.fixture
def alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither broker nor agent, and none of the variables that `emit` reads."""
    for name in ("CORRELATION_ID", "EVENT_ID", "WORKSPACE"):
        monkeypatch.delenv(f"OPSMESH_{name}", raising=False)
    return home


def only() -> dict[str, Any]:
    (event,) = spooled()
    return event


def test_without_an_agent_the_event_waits_on_disk(alone: Path) -> None:
    """Exit code 0, the id on standard output, and a word on standard error."""
    done = emit("python.lint.failed", "tool=ruff", "count:=3")
    assert (done.returncode, done.stderr.split(b":")[0]) == (0, b"spooled")
    event = only()
    assert event["id"] == done.stdout.decode().strip()
    assert event["payload"] == {"tool": "ruff", "count": 3}


def test_the_line_is_a_whole_event(alone: Path) -> None:
    """The envelope takes the line as it stands, and its id tells its time."""
    emit("python.lint.failed", "--payload", '{"tool":"ruff","count":3}', "--severity", "error")
    raw = envelope.raw_fields(json.dumps(only()).encode())
    defaults = {"host": "h", "severity": "info"}
    _, event = envelope.complete(raw, defaults=defaults, now_us=0)
    assert event.severity == "error"
    assert ids.unix_ms(event.id) == event.ts_us // 1000


def test_options_and_the_environment_set_the_fields(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option goes before its variable."""
    monkeypatch.setenv("OPSMESH_CORRELATION_ID", "story")
    monkeypatch.setenv("OPSMESH_EVENT_ID", "cause")
    monkeypatch.setenv("OPSMESH_HOPS", "3")
    monkeypatch.setenv("OPSMESH_WORKSPACE", "from env")
    monkeypatch.setenv("XDG_SESSION_ID", "c2")
    emit("a.b", "--workspace=mine", "--component", "hook", "--source", "git", "--id", "my-id")
    event = only()
    wanted = {
        "correlation_id": "story",
        "causation_id": "cause",
        "hops": 3,
        "workspace": "mine",
        "session_id": "c2",
        "component": "hook",
        "source": "git",
        "id": "my-id",
    }
    assert {name: event[name] for name in wanted} == wanted


def test_an_event_is_of_the_repository_and_the_terminal(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless told, the workspace is the git root of the current folder, the session the
    terminal's."""
    (tmp_path / "app/.git").mkdir(parents=True)
    (tmp_path / "app/src").mkdir()
    monkeypatch.chdir(tmp_path / "app/src")
    for name in session.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZELLIJ_SESSION_NAME", "dev")
    emit("a.b")
    event = only()
    assert (event["workspace"], event["session_id"]) == (str(tmp_path / "app"), "zellij:dev")


def test_a_current_folder_that_is_gone_is_no_workspace(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event from a folder that was removed is kept, without a workspace."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.delenv("OPSMESH_WORKSPACE", raising=False)
    gone.rmdir()
    emit("a.b")
    assert only()["workspace"] == ""


@pytest.mark.parametrize(
    "value",
    ["", " ", "a=b", "-x", "line\nbreak\t\x01\x7f", '"quotes" \\ back', "ünï ☃ 🎉", "$(x)`"],
)
def test_text_arrives_as_it_is(alone: Path, value: str) -> None:
    """Nothing in a text has to be quoted, and nothing in it is understood."""
    assert emit("a.b", f"key={value}").returncode == 0
    assert only()["payload"] == {"key": value}


def test_bytes_that_are_not_text_are_marked(alone: Path) -> None:
    """Invalid UTF-8 becomes U+FFFD instead of an error."""
    assert emit(b"a.b", b"key=\xff\xfe-\xed\xa0\x80").returncode == 0
    assert only()["payload"]["key"].strip("\ufffd") == "-"


def test_the_payload_comes_from_three_places(alone: Path) -> None:
    """As an argument, from standard input, from a file; pairs are added to it."""
    text = '{\n  "a": [1, "x"]\n}\n'
    (alone / "note.json").write_text(text)
    emit("a.b", "--payload", text, "b=2")
    emit("a.b", "--payload", "-", "b=2", input=text.encode())
    emit("a.b", "--payload", f"@{alone}/note.json", "b=2")
    emit("a.b", "--payload", "{ }", "b=2")
    payloads = [event["payload"] for event in spooled()]
    assert payloads == [{"a": [1, "x"], "b": "2"}] * 3 + [{"b": "2"}]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "TOPIC is missing"),
        (["a.b", "word"], 2, "neither KEY=TEXT nor"),
        (["a.b", "=x"], 2, "neither KEY=TEXT nor"),
        (["a.b", "--nope"], 2, "no option --nope"),
        (["a.b", "--id"], 2, "--id wants a value"),
        (["a.b", "--wait=soon"], 2, "--wait wants seconds"),
        (["a.b", "--severity", "loud"], 2, "not one of info"),
        (["a.b", "k=1", "k:=2"], 2, "k is given twice"),
        (["a.b", "--payload", '{"k":1}', "k=2"], 2, "k is given twice"),
        (["nodot"], 65, "2 to 6 tokens"),
        (["a.B"], 65, "2 to 6 tokens"),
        (["a..b"], 65, "2 to 6 tokens"),
        (["a.b\n"], 65, "2 to 6 tokens"),
        (["a.b", "k:=nope"], 65, "k is not JSON"),
        (["a.b", 'k:=1,"topic":"x.y"'], 65, "k is not JSON"),
        (["a.b", "k:=NaN"], 65, "k is not JSON"),
        (["a.b", "k:="], 65, "k is not JSON"),
        (["a.b", 'k:="\\ud800"'], 65, "half of a surrogate pair"),
        (["a.b", "k:=" + "[" * 50_000], 65, "k is not JSON"),
        (["a.b", "--payload", "[1]"], 65, "not a JSON object but list"),
        (["a.b", "--payload", "@/no/such/file"], 65, "No such file"),
        (["a.b", "--id", "two words"], 65, "without spaces"),
    ],
)
def test_mistakes_are_named(alone: Path, arguments: list[str], code: int, says: str) -> None:
    """A wrong call ends with 2, a wrong event with 65, without an agent too; nothing is kept."""
    done = emit(*arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert says in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert spooled() == []


@given(
    text=st.text(st.characters(codec="utf-8"))
    | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))
)
def test_every_argument_becomes_json(text: str) -> None:
    """Whatever text is given, the line is JSON, one line, and holds the text."""
    call = emit_module.parse(["a.b", f"key={text}", f"--workspace={text}"])
    line, _ = emit_module.envelope(call)
    assert b"\n" not in line
    event = json.loads(line)
    assert event["payload"]["key"] == event["workspace"]
    assert event["workspace"] == text.encode("utf-8", "surrogateescape").decode(errors="replace")


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_values_are_taken_as_they_stand(value: object) -> None:
    """`KEY:=JSON` gives the value that json itself reads."""
    call = emit_module.parse(["a.b", f"key:={json.dumps(value)}"])
    assert json.loads(emit_module.envelope(call)[0])["payload"] == {"key": value}


@pytest.mark.usefixtures("mesh")
def test_wait_succeeds_once_the_broker_has_it() -> None:
    """With an agent and a broker, `--wait` ends with 0, and text becomes what the topic wants."""
    done = emit("python.lint.failed", "tool=ruff", "count=3", "--wait=60", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["seq"] > 0


@pytest.mark.usefixtures("mesh")
def test_an_event_that_the_agent_refuses_ends_with_65() -> None:
    """The agent's reason is shown."""
    done = emit("python.lint.failed", "tool=ruff", "count=many", "--wait=60")
    assert done.returncode == 65
    assert b"count" in done.stderr


def test_wait_without_a_broker_ends_with_75(alone: Path) -> None:
    """The event is safe on disk, and the exit code says that it is not stored yet."""
    done = emit("a.b", "--wait", "0.1")
    assert done.returncode == 75
    assert b"not stored by the broker yet; safe in the spool" in done.stderr
    assert only()["topic"] == "a.b"


def test_quiet_prints_nothing(alone: Path) -> None:
    """No id and no word about the spool."""
    done = emit("a.b", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_an_event_that_cannot_be_kept_ends_with_74(alone: Path) -> None:
    """No agent and no room for the spool is an error, in one line."""
    (alone / "state" / "opsmesh").write_text("not a folder")
    done = emit("a.b")
    assert done.returncode == 74
    assert b"could not be kept" in done.stderr
    assert b"Traceback" not in done.stderr


def test_help_names_every_option() -> None:
    """`--help` describes each option that is understood."""
    text = emit("--help").stdout.decode()
    assert all(option in text for option in [*emit_module._VALUED, "--wait", "--quiet", "--json"])


def test_nothing_heavy_is_imported(alone: Path) -> None:
    """On the usual road, pairs and JSON included, none of the costly modules is loaded."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from opsmesh.cli import entry\nfrom opsmesh.cli.emit import command as emit\n"
        "emit.main(['a.b', 'k=v', 'n:=[1]', '-q'])\n"
        f"print(*[name for name in {HEAVY.split()} if name in set(sys.modules) - before])"
    )
    # -S: without `site`, whose .pth files may load anything
    search = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", search + code], capture_output=True, timeout=180, check=True
    )
    assert done.stdout.decode().split() == []
    assert only()["payload"] == {"k": "v", "n": [1]}
