"""docs/evidence.md keeps its word: a stranger verifies the archive with a shell alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from opsmesh.handlers.evidence import query, tables
from opsmesh.handlers.evidence.verify import verify
from tests.evidence.made import DAY, MORNING, archive, change, opened

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"


def by_hand(folder: Path, example: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script that the page shows."""
    found = re.findall(r"```sh\n(.+?)```", PAGE.read_text(), re.DOTALL)
    command = ["sh", "-c", found[example]]
    env = {"folder": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An archive of three days in several files."""
    archive(tmp_path, 12, segment_bytes=1000, step_us=DAY // 4)
    return tmp_path


def test_whole_archive_is_intact_by_hand(folder: Path) -> None:
    """The page's script finds a whole archive intact, and its last hash is the one of `verify`."""
    done = by_hand(folder)
    report = verify(folder)
    assert done.returncode == 0
    assert done.stdout == f"intact: 12 lines, last hash {report.last_hash}\n"


def test_changed_line_is_found_by_hand(folder: Path) -> None:
    """One changed byte is found, at its line."""
    first = min(folder.rglob("*.jsonl"))

    def edit(raws: list[bytes]) -> None:
        raws[1] = raws[1].replace(b'"n":2', b'"n":3')

    change(first, edit)
    done = by_hand(folder)
    assert (done.returncode, done.stdout) == (1, "line 2 is not what was written\n")


def test_every_kind_of_line_and_a_clock_that_went_back(folder: Path) -> None:
    """Notes, base64 and awkward bytes are read by the script, and files in the chain's order."""
    with opened(folder) as made:
        made.event(15, MORNING - DAY, b'{"a": "\\\\n %s ,\\"hash\\":\\"0\\"} \xc3\xa9", "n": 1.50}')
        made.event(16, MORNING - DAY, b"\xff\x00\n")
        made.commit()
    assert by_hand(folder).stdout == f"intact: 15 lines, last hash {verify(folder).last_hash}\n"


def test_question_with_jq(folder: Path) -> None:
    """The page's question with jq finds the events of its topic."""
    with opened(folder) as made:
        made.event(13, MORNING, b'{"topic":"python.test.failed","payload":{"n":1}}')
        made.commit()
    assert by_hand(folder, 1).stdout == (
        '{"seq":13,"time":"2026-11-23T09:00:00.000000Z","payload":{"n":1}}\n'
    )


def sql() -> list[str]:
    """The questions that the page shows."""
    return re.findall(r"```sql\n(.+?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("question", sql())
def test_question_in_sql(tmp_path: Path, question: str) -> None:
    """Each question of the page has an answer in an archive that holds such events."""
    pytest.importorskip("duckdb", reason="the extra 'query' is not installed")
    envelope = (
        '{"topic":"%s","ts_utc":"2026-11-23T09:00:00Z","source":"ci","component":"make",'
        '"severity":"error","correlation_id":"build-42","host":"laptop","session_id":"",'
        '"workspace":"","payload":{"nodeid":"test_a.py::test_a"},"duration_ms":52.0,"id":"%s"%s}'
    )
    with opened(tmp_path) as made:
        cause = envelope % ("python.test.failed", "one", "")
        effect = envelope % ("automation.run.succeeded", "two", ',"causation_id":"one"')
        for seq, text in enumerate((cause, effect), 1):
            made.event(seq, MORNING + seq, text.encode())
        made.commit()
    with tables.connect(tmp_path, tables.files(tmp_path)) as connection:
        assert list(query.ask(connection, question).rows)


def test_there_are_questions() -> None:
    """The page has the questions that the test above is about."""
    assert len(sql()) == 4
