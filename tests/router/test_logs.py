"""How the log of a component looks, on a terminal, in a file and in the journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAYS = """
import structlog
from opsmesh.router import logs
logs.configure("agent")
log = structlog.get_logger()
with logs.of_run("run-1", "story-1"):
    log.warning("spool.slow", took_s=2, password="hunter2hunter2")
    try:
        raise ValueError("wrong")
    except ValueError:
        log.exception("ingest.failed")
log.info("agent.started")
"""


def said(path: Path, **variables: str) -> list[str]:
    """The lines that a process writes to its standard error, a file. In `variables` JOURNAL_STREAM
    may say `same`: that file."""
    with path.open("wb") as file:
        stat = os.fstat(file.fileno())
        if variables.get("JOURNAL_STREAM") == "same":
            variables["JOURNAL_STREAM"] = f"{stat.st_dev}:{stat.st_ino}"
        env = {**os.environ, **variables}
        subprocess.run([sys.executable, "-c", SAYS], stderr=file, env=env, check=True)
    return path.read_text().splitlines()


def test_a_file_gets_json(tmp_path: Path) -> None:
    """In a file each line is one JSON object with event, level, time and component; a run's lines
    have its ids, and no other has."""
    slow, failed, started = map(json.loads, said(tmp_path / "log", OPSMESH_LOG="auto"))
    assert {"event": "spool.slow", "level": "warning", "component": "agent"}.items() <= slow.items()
    ids = {"run_id": "run-1", "correlation_id": "story-1"}
    assert ids.items() <= slow.items()
    assert ids.items() <= failed.items()
    assert "run_id" not in started
    assert "ValueError: wrong" in failed["exception"]
    assert "hunter2" not in json.dumps(slow)


def test_the_journal_is_told_how_grave_it_is(tmp_path: Path) -> None:
    """Where standard error is the journal each line has its priority before it, as sd-daemon(3)
    has it, and is JSON behind that."""
    lines = said(tmp_path / "log", OPSMESH_LOG="auto", JOURNAL_STREAM="same")
    assert [line[:3] for line in lines] == ["<4>", "<3>", "<6>"]
    assert json.loads(lines[0][3:])["event"] == "spool.slow"


def test_a_journal_of_somebody_else(tmp_path: Path) -> None:
    """A variable that names another stream, which a child may inherit, changes nothing."""
    lines = said(tmp_path / "log", OPSMESH_LOG="auto", JOURNAL_STREAM="1:2")
    assert all(line.startswith("{") for line in lines)


@pytest.mark.parametrize("journal", ["", "same"])
def test_pretty_on_request(tmp_path: Path, journal: str) -> None:
    """OPSMESH_LOG=pretty makes readable lines anywhere, without colours where there is no terminal;
    in the journal each line of a traceback has its priority, too."""
    lines = said(tmp_path / "log", OPSMESH_LOG="pretty", JOURNAL_STREAM=journal)
    assert any("spool.slow" in line and "took_s=2" in line for line in lines)
    assert "\x1b" not in "".join(lines)
    assert any("ValueError: wrong" in line for line in lines)
    assert all(line.startswith("<") for line in lines) == (journal == "same")


@pytest.mark.parametrize("ends", ["", "sys.stderr.detach().close()", "os.close(2)"])
def test_a_log_that_cannot_be_written(ends: str) -> None:
    """Where the log's disk is full, or its stream has ended, lines are lost, and work goes on."""
    code = SAYS.replace("log =", f"import os, sys\n{ends}\nlog =") + "\nprint('went on')"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full)
    assert done.stdout == b"went on\n"
