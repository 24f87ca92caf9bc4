"""docs/evidence.md: a stranger can verify the archive with what the page shows, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from opsmesh.handlers.evidence.verify import verify
from tests.evidence.made import DAY, MORNING, archive, change, opened, resealed

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
TOOLS = ("sh", "sha256sum", "jq")

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and not all(map(shutil.which, TOOLS)),
    reason=f"needs {', '.join(TOOLS)}",
)


def blocks() -> list[str]:
    """The shell examples of the page, in order."""
    return re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)


def shell(number: int, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", blocks()[number], "sh", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def mixed(folder: Path) -> None:
    """An archive of several days with every kind of line."""
    archive(folder, 6, step_us=DAY // 4)
    with opened(folder) as made:
        made.event(9, MORNING + 2 * DAY, b'{"topic":"python.test.failed","payload":{"n": 1.50}}')
        made.event(10, MORNING + 2 * DAY, b'{"a": "\\\\n %s ,\\"hash\\":\\"0\\"} \xc3\xa9"}')
        made.event(11, MORNING + 2 * DAY, b"\xff\x00\n")
        made.commit()


def test_script_accepts_an_intact_archive(tmp_path: Path) -> None:
    """The page's script verifies every kind of line, and ends with the hash that verify names."""
    mixed(tmp_path)
    result = shell(1, str(tmp_path))
    assert result.stdout == f"intact, last hash {verify(tmp_path).last_hash}\n", result.stderr
    assert result.returncode == 0


def test_script_names_a_changed_line(tmp_path: Path) -> None:
    """The page's script names the file and line of a change, and sees one with a new hash."""
    mixed(tmp_path)
    path = archive(tmp_path, 0)[1]
    original = path.read_bytes()
    change(path, lambda raws: raws.__setitem__(1, raws[1].replace(b'"n":', b'"m":')))
    result = shell(1, str(tmp_path))
    assert result.returncode == 1
    assert result.stdout.endswith(f"{path.name}:2: was changed\n")
    path.write_bytes(original)
    change(path, lambda raws: raws.__setitem__(1, resealed(raws[1], b'"n":', b'"m":')))
    assert shell(1, str(tmp_path)).stdout.endswith(
        f"{path.name}:3: does not follow the line before\n"
    )


def test_known_hash_and_jq_examples(tmp_path: Path) -> None:
    """A hash that was kept elsewhere is found again, and jq reads the events."""
    mixed(tmp_path)
    known = verify(tmp_path).last_hash
    assert shell(0, EVIDENCE=str(tmp_path), KNOWN_HASH=known).stdout.count("\n") == 1
    found = shell(2, EVIDENCE=str(tmp_path)).stdout
    assert found.startswith('{"seq":9,"time":"2026-11-25T09:00:00.000000Z","payload":{"n":1.5')
