"""docs/evidence.md keeps its word: a stranger verifies the archive with a shell alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from opsmesh.handlers.evidence import keys, query, tables
from opsmesh.handlers.evidence.verify import verify
from tests.evidence import sealed
from tests.evidence.made import DAY, MORNING, archive, change, opened
from tests.evidence.sealed import made
from tests.evidence.test_prove import FORGERIES, events, proof_of

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


def test_sealed_archive_is_intact_by_hand(tmp_path: Path) -> None:
    """The script reads sealed and open files alike, and finds a change in a sealed one."""
    folder = tmp_path / "evidence"
    of = made(folder, tmp_path / "keys")
    assert by_hand(folder).stdout == f"intact: 35 lines, last hash {verify(folder).last_hash}\n"
    sealed.change(of[1], lambda now: now.__setitem__(4, now[4].replace(b'"n":', b'"m":')))
    assert by_hand(folder).stdout == "line 15 is not what was written\n"


def test_question_with_jq(folder: Path) -> None:
    """The page's question with jq finds the events of its topic."""
    with opened(folder) as made:
        made.event(13, MORNING, b'{"topic":"python.test.failed","payload":{"n":1}}')
        made.commit()
    assert by_hand(folder, 1).stdout == (
        '{"seq":13,"time":"2026-11-23T09:00:00.000000Z","payload":{"n":1}}\n'
    )


@pytest.fixture
def standalone(tmp_path: Path) -> Callable[[bytes, Path], subprocess.CompletedProcess[str]]:
    """The page's Python script, run on a proof and a public key, where opsmesh is not."""
    [script] = re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL)
    file, proof = tmp_path / "check.py", tmp_path / "proof.json"
    file.write_text(script)

    def check(data: bytes, public: Path) -> subprocess.CompletedProcess[str]:
        proof.write_bytes(data)
        command = [sys.executable, "-I", str(file), str(proof), str(public)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return check


Standalone = Callable[[bytes, Path], "subprocess.CompletedProcess[str]"]


def test_script_checks_proofs(tmp_path: Path, standalone: Standalone) -> None:
    """The page's Python script accepts proofs of both keys, with either public key."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    events(folder, own_keys, 13)
    old = tmp_path / "old.pub"
    old.write_bytes((own_keys / keys.PUBLIC).read_bytes())
    with keys.locked(folder):
        keys.rotate(folder, own_keys)
    events(folder, own_keys, 6, first=14)
    for event_id in ("event-1", "event-13", "event-16"):
        data = msgspec.json.encode(proof_of(folder, event_id))
        for public in (old, own_keys / keys.PUBLIC):
            done = standalone(data, public)
            assert done.stdout.startswith(f"proved: EVENTS {event_id[6:]}, stored 2026-11"), done


@pytest.mark.parametrize("how", [how for how, _ in FORGERIES], ids=lambda how: how.__name__)
def test_script_refuses_forged_proofs(tmp_path: Path, standalone: Standalone, how) -> None:  # type: ignore[no-untyped-def]
    """Whatever `check-proof` refuses, the page's script refuses."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    events(folder, own_keys, 13)
    forged = msgspec.json.encode(how(proof_of(folder, "event-4")))
    done = standalone(forged, own_keys / keys.PUBLIC)
    assert (done.returncode, done.stdout) == (1, "")


def test_script_refuses_a_proof_of_another_key(tmp_path: Path, standalone: Standalone) -> None:
    """A proof whose keys do not lead to the one that is given proves nothing."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    events(folder, own_keys, 13)
    made(tmp_path / "other", tmp_path / "other-keys", 10)
    data = msgspec.json.encode(proof_of(folder, "event-4"))
    done = standalone(data, tmp_path / "other-keys" / keys.PUBLIC)
    assert done.stderr == "not proved: the trusted key is not among the keys\n"


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
