"""`opsmesh evidence query`: what the tables hold; a question changes and reaches nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from opsmesh.cli.main import app
from opsmesh.handlers.errors import QueryError
from opsmesh.handlers.evidence import query as questions
from opsmesh.handlers.evidence import tables
from opsmesh.router import paths as places
from opsmesh.schemas.envelope import decode
from tests.evidence.made import DAY, MORNING, archive, opened, paths

duckdb = pytest.importorskip("duckdb", reason="the extra 'query' is not installed")

BARE = (
    b'{"topic":"a.b","ts_utc":"2026-11-23T11:00:00+02:00","source":"s","component":"c",'
    b'"severity":"info","correlation_id":"x","host":"h","session_id":"","workspace":"",'
    b'"payload":{"n":1.50}%s}'
)


def folder() -> Path:
    return Path(places.evidence_dir())


def ask(*arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(app, ["evidence", "query", *arguments], **more)


def rows(*arguments: str) -> list[dict[str, Any]]:
    """The answer to a question that has one."""
    done = ask("--json", *arguments)
    assert done.exit_code == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture
def made(home: Path) -> Path:
    """An archive with an event of every sort, a message that is none, and a note."""
    with opened(folder()) as new:
        new.event(1, MORNING, BARE % b"")
        new.event(
            2, MORNING + 1_500_000, BARE % b',"id":"mine","attempt":2,"duration_ms":1.5,"seq":7'
        )
        new.event(3, MORNING + 2, BARE % b',"attempt":"no number","hops":2,"unknown":[1]')
        new.event(4, MORNING + 3, b"\xff")
        new.event(5, MORNING + 4, b'{"topic":{"no":"envelope"}}')
        new.event(8, MORNING + 5, BARE.replace(b"a.b", b"c.d") % b"")
        new.commit()
    return folder()


def test_events(made: Path) -> None:
    """An event is a row: place, store time, the envelope's fields with their types in UTC, and the
    payload with its numbers as they were written; its own seq is source_seq."""
    first, second, third, odd, last = rows("FROM events ORDER BY seq")
    assert (first["stream"], first["seq"]) == ("EVENTS", 1)
    assert first["stored"] == "2026-11-23T09:00:00.000000Z"
    assert first["ts_utc"] == "2026-11-23T09:00:00.000000Z"
    assert first["payload"] == {"n": 1.5}
    assert first["file"] == "2026/11/23-000001-EVENTS-000000000001.jsonl"
    assert (second["attempt"], second["duration_ms"], second["source_seq"]) == (2, 1.5, 7)
    assert (first["hops"], third["hops"], third["attempt"]) == (0, 2, None)
    assert (odd["seq"], odd["host"]) == (5, None)
    assert last["topic"] == "c.d"


def test_an_event_without_an_id_has_the_derived_one(made: Path) -> None:
    """The id of an event that was stored without one is the one that every reader derives."""
    found = {row["seq"]: row["id"] for row in rows("SELECT seq, id FROM events WHERE seq < 4")}
    assert found[2] == "mine"
    for seq, us in ((1, MORNING), (3, MORNING + 2)):
        assert found[seq] == decode(BARE % b"", stored=("EVENTS", seq, us)).id


def test_notes_and_lines(made: Path) -> None:
    """Notes are a table of their own; `lines` has everything, unknown fields and bytes included."""
    [note] = rows("FROM notes")
    assert (note["kind"], note["note"]) == ("missing", {"kind": "missing", "from": 6, "to": 7})
    everything = {row["seq"]: row for row in rows("FROM lines WHERE note IS NULL")}
    assert everything[3]["event"]["unknown"] == [1]
    assert everything[4]["base64"] == "/w=="
    assert len(everything[1]["hash"]) == 64


def test_torn_end_is_passed_over(made: Path) -> None:
    """A last line that is not whole hides no other."""
    [path] = paths(made)
    with path.open("ab") as file:
        file.write(b'{"stream":"EVENTS","seq":9,"time":"2026')
    assert rows("SELECT count(*) AS n FROM lines") == [{"n": 7}]


def test_sealed_segments(made: Path) -> None:
    """A segment that was compressed is read like a plain one, and once where both are there."""
    before = rows("FROM events ORDER BY seq")
    [path] = paths(made)
    sealed = path.with_name(path.name + ".zst")
    with duckdb.connect() as connection:
        text = f"SELECT unnest(string_split(rtrim(content, chr(10)), chr(10))) FROM '{path}'"
        text = text.replace(f"'{path}'", f"read_text('{path}')")
        options = "FORMAT csv, HEADER false, QUOTE '', DELIMITER '\x01', COMPRESSION zstd"
        connection.execute(f"COPY ({text}) TO '{sealed}' ({options})")
    assert len(rows("FROM events")) == len(before)
    path.unlink()
    after = rows("FROM events ORDER BY seq")
    assert [{**row, "file": ""} for row in after] == [{**row, "file": ""} for row in before]
    assert after[0]["file"].endswith(".jsonl.zst")


def test_a_segment_that_goes_meanwhile(made: Path) -> None:
    """A segment that is sealed between the listing and the reading is a message to ask again."""
    chosen = tables.files(made)
    paths(made)[0].unlink()
    with tables.connect(made, chosen) as connection, pytest.raises(QueryError, match="ask again"):
        list(questions.ask(connection, "FROM events").rows)


def test_days_that_are_left_out_are_not_opened(home: Path) -> None:
    """--since and --until choose files by day before the database sees them, and rows by time."""
    archive(folder(), 8, step_us=DAY // 2)
    for path in paths(folder()):
        if path.name.startswith(("23-", "27-")):
            path.chmod(0)
            path.unlink()
            path.mkdir()  # opening it would fail
    between = ("--since", "2026-11-25T10:00:00Z", "--until", "2026-11-26T09:00:00Z")
    assert [row["seq"] for row in rows("SELECT seq FROM lines", *between)] == [5]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("jsonl", '{"seq":1,"payload":{"n":1.5},"none":null,"flag":false}\n'),
        ("csv", 'seq,payload,none,flag\n1,"{""n"":1.5}",,false\n'),
        ("json", '[\n  {"seq":1,"payload":{"n":1.5},"none":null,"flag":false}\n]\n'),
    ],
)
def test_formats(made: Path, form: str, text: str) -> None:
    """Each format writes the same answer."""
    question = "SELECT seq, payload, NULL AS none, false AS flag FROM events WHERE seq = 1"
    assert ask(question, "--format", form).stdout == text


def test_table(made: Path) -> None:
    """For people it is a table; nothing found is said on standard error."""
    question = "SELECT topic, count(*) AS n FROM events GROUP BY topic ORDER BY n DESC LIMIT 1"
    assert ask(question).stdout.split() == ["TOPIC", "N", "a.b", "3"]
    assert "no rows" in ask("FROM events WHERE seq = 0").stderr


def test_question_from_standard_input_and_from_a_file(made: Path, tmp_path: Path) -> None:
    """`-` and --file read the question; none, or both, is a wrong call."""
    assert ask("-", "--format", "csv", input="SELECT 42 AS x").stdout == "x\n42\n"
    file = tmp_path / "question.sql"
    file.write_text("SELECT 43 AS x;\n")
    assert ask("--file", str(file), "--format", "csv").stdout == "x\n43\n"
    assert ask().exit_code == 2
    assert ask("SELECT 1", "--file", str(file)).exit_code == 2


FIRST = "evidence://2026/11/23-000001-EVENTS-000000000001.jsonl"


@pytest.mark.parametrize(
    "question",
    [
        "FROM read_text('/etc/passwd')",
        "FROM read_csv('/etc/passwd')",
        "FROM glob('/etc/*')",
        "FROM '/etc/passwd'",
        "COPY (SELECT 1) TO '{tmp}/out.csv'",
        "COPY (SELECT 1) TO '{first}' (FORMAT csv, USE_TMP_FILE false)",
        "COPY (SELECT 1) TO '{path}' (FORMAT csv, USE_TMP_FILE false)",
        "WITH x AS (COPY (SELECT 1) TO '{first}' (FORMAT csv, USE_TMP_FILE false)) FROM x",
        "WITH x AS (COPY (SELECT 1) TO '{path}' (FORMAT csv, USE_TMP_FILE false)) FROM x",
        "FROM query('WITH x AS (COPY (SELECT 1) TO ''{first}'' (USE_TMP_FILE false)) FROM x')",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{first}' (FORMAT csv, USE_TMP_FILE false)",
        "ATTACH '{tmp}/a.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "CREATE TABLE x AS SELECT 1",
        "EXPORT DATABASE '{tmp}/e'",
        "SELECT 1; SELECT 2",
        "SELECT * FROM app",
    ],
)
def test_a_question_changes_and_reaches_nothing(made: Path, tmp_path: Path, question: str) -> None:
    """What writes, attaches, installs, or reads another file is refused with a message, and the
    archive and the folder are what they were."""
    [path] = paths(made)
    before = path.read_bytes()
    there = sorted(tmp_path.iterdir())
    done = ask(question.format(first=FIRST, path=path, tmp=tmp_path))
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == there


def test_a_mistake_in_sql_shows_its_place(made: Path) -> None:
    """A mistake is DuckDB's message with the caret under the place."""
    done = ask("SELECT topc FROM events")
    assert done.exit_code == 1
    assert '"topc" not found' in done.stderr
    assert done.stderr.splitlines()[-1] == "               ^^^^"


def test_memory_has_a_limit(made: Path) -> None:
    """A question that needs more memory than it may take is a message with the way out."""
    done = ask("SELECT len(list(range)) FROM range(50000000)", "--memory", "32MB")
    assert done.exit_code == 1
    assert "--memory 2GB" in done.stderr
    assert ask("SELECT 1", "--memory", "much").exit_code == 2


def test_nothing_archived(home: Path) -> None:
    """Without an archive the exit code is 3; in a time without events the tables are empty."""
    assert ask("SELECT 1").exit_code == 3
    archive(folder(), 3)
    assert rows("SELECT count(*) AS n FROM events", "--since", "2027-01-01T00:00:00Z") == [{"n": 0}]


@pytest.mark.parametrize("module", ["duckdb", "fsspec"])
def test_without_the_extra(made: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Without DuckDB the message names the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    done = ask("SELECT 1")
    assert done.exit_code == 1
    assert "pip install 'opsmesh[query]'" in " ".join(done.stderr.split())


def test_ctrl_c_ends_a_question(made: Path) -> None:
    """Ctrl-C ends a question at once, with 130 and no traceback."""
    argv = [sys.executable, "-u", "-m", "opsmesh.cli.entry", "evidence", "query", "--format", "csv"]
    with subprocess.Popen(
        [*argv, "FROM range(1000000000000)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "range\n"
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in said
