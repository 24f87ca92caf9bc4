"""`opsmesh evidence export`: what is written, which events, and how a file comes to be."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from typer.testing import CliRunner, Result

from opsmesh.cli.main import app
from opsmesh.router import paths as places
from opsmesh.schemas.envelope import decode
from tests.evidence.made import DAY, MORNING, opened


def event(topic: str, host: str, story: str, more: str = "") -> bytes:
    return (
        f'{{"topic":"{topic}","ts_utc":"2026-11-23T09:00:00Z","source":"s","component":"c",'
        f'"severity":"info","correlation_id":"{story}","host":"{host}","session_id":"",'
        f'"workspace":"","payload":{{"n":1.50}}{more}}}'
    ).encode()


#: The command, which Ctrl-C reaches in the middle of its writing, however fast the machine is.
INTERRUPTED = """
import os, signal, sys
from opsmesh.cli.main import main
from opsmesh.handlers.evidence import export

every = export.as_cloudevents

def until_ctrl_c(*given):
    for n, line in enumerate(every(*given)):
        if n == 500:
            os.kill(os.getpid(), signal.SIGINT)
        yield line

export.as_cloudevents = until_ctrl_c
sys.exit(main())
"""

STORED = [
    event("python.test.failed", "one", "x"),
    b"\xff",
    event("shell.command.failed", "two", "x", ',"id":"mine","attempt":3'),
    event("python.test.failed", "two", "y"),
    b'{"topic":"no.envelope"}',
]


@pytest.fixture
def made(home: Path) -> None:
    """An archive of three events on three days, and of two messages that are none."""
    with opened(Path(places.evidence_dir())) as new:
        for n, data in enumerate(STORED):
            new.event(n + 1, MORNING + n * DAY, data)
        new.commit()


def export(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evidence", "export", *arguments])


def seqs(*filters: str) -> list[int]:
    """Which of the stored messages an export chooses; a Parquet file chooses the same."""
    lines = export("--format", "jsonl", *filters).stdout.encode().splitlines()
    found = [STORED.index(line) + 1 for line in lines]
    out = Path("chosen.parquet").absolute()
    done = export("--format", "parquet", "--force", "-o", str(out), *filters)
    assert done.exit_code == 0, done.stderr
    assert [row["seq"] for row in parquet(out)] == found
    return found


def parquet(path: Path) -> list[dict[str, Any]]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("FROM read_parquet(?) ORDER BY seq", [str(path)])
        names = [column[0] for column in connection.description or ()]
        return [dict(zip(names, row, strict=True)) for row in connection.fetchall()]


def test_jsonl_is_what_was_stored(made: None) -> None:
    """jsonl holds the stored bytes, a line each; what is no event is left out, and counted."""
    done = export("--format", "jsonl")
    assert done.stdout.encode() == b"".join(STORED[n] + b"\n" for n in (0, 2, 3))
    assert "3 events exported; 2 messages are no events" in done.stderr


def test_cloudevents_are_read_by_the_official_sdk(made: None) -> None:
    """Each line is a CloudEvent, its data the payload's own bytes; an event that was stored without
    an id has the derived one."""
    lines = export("--format", "cloudevents").stdout.splitlines()
    events = [JSONFormat().read(CloudEvent, line) for line in lines]
    assert [one.get_type() for one in events] == [
        "python.test.failed",
        "shell.command.failed",
        "python.test.failed",
    ]
    assert events[0].get_id() == decode(STORED[0], stored=("EVENTS", 1, MORNING)).id
    assert '"data":{"n":1.50}' in lines[0]
    assert json.loads(lines[0])["dataschema"] == "urn:opsmesh:schema:python.test.failed:1"


def test_parquet_has_types(made: None, tmp_path: Path) -> None:
    """A Parquet file has the columns of `evidence query`, with their types, compressed by zstd."""
    import duckdb

    out = tmp_path / "out.parquet"
    assert export("--format", "parquet", "-o", str(out)).exit_code == 0
    row = parquet(out)[1]
    assert (row["topic"], row["attempt"], row["id"]) == ("shell.command.failed", 3, "mine")
    assert row["stored"].isoformat() == "2026-11-25T09:00:00"
    assert json.loads(row["payload"]) == {"n": 1.5}
    with duckdb.connect() as connection:
        facts = connection.execute(
            "SELECT DISTINCT compression FROM parquet_metadata(?)", [str(out)]
        ).fetchall()
    assert facts == [("ZSTD",)]


def test_filters(made: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, topic, host and story choose the same events in every format."""
    monkeypatch.chdir(tmp_path)
    assert seqs() == [1, 3, 4]
    assert seqs("--topic", "python.>") == [1, 4]
    assert seqs("-t", "*.test.failed", "-t", "shell.command.failed") == [1, 3, 4]
    assert seqs("--host", "two") == [3, 4]
    assert seqs("--correlation", "x") == [1, 3]
    assert seqs("--since", "2026-11-25T09:00:00Z") == [3, 4]
    assert seqs("--until", "2026-11-25T09:00:00Z") == [1]
    assert seqs("--host", "o'ne") == []


@pytest.mark.parametrize("form", ["jsonl", "cloudevents", "parquet"])
def test_a_file_is_whole_private_and_never_replaced_unasked(
    made: None, tmp_path: Path, form: str
) -> None:
    """A file that is there stays as it is without --force; the new one is its owner's alone, and
    nothing else is left."""
    out = tmp_path / "out" / "events"
    out.parent.mkdir()
    out.write_text("old")
    refused = export("--format", form, "-o", str(out))
    assert (refused.exit_code, out.read_text()) == (1, "old")
    assert "--force" in refused.stderr
    done = export("--format", form, "-o", str(out), "--force", "--json")
    assert json.loads(done.stdout)["events"] == 3
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert list(out.parent.iterdir()) == [out]


def test_wrong_calls(made: None, tmp_path: Path) -> None:
    """Parquet needs a file, --format is asked for, and a folder that is missing is a message."""
    assert export("--format", "parquet").exit_code == 2
    assert export().exit_code == 2
    missing = export("--format", "jsonl", "-o", str(tmp_path / "no" / "file"))
    assert missing.exit_code == 1
    assert "No such file or directory" in missing.stderr


def test_nothing_archived(home: Path) -> None:
    """Without an archive the exit code is 3."""
    assert export("--format", "jsonl").exit_code == 3


def test_interrupted_export_leaves_no_file(home: Path, tmp_path: Path) -> None:
    """Ctrl-C ends an export with 130, and neither the file nor a part of it is left."""
    with opened(Path(places.evidence_dir())) as new:
        for n in range(1000):
            new.event(n + 1, MORNING + n, STORED[0])
        new.commit()
    out = tmp_path / "out" / "events"
    out.parent.mkdir()
    argv = [sys.executable, "-c", INTERRUPTED, "evidence", "export"]
    argv += ["--format", "cloudevents", "-o", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert list(out.parent.iterdir()) == []
