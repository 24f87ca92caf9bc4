"""docs/testing-your-own.md keeps its word: its examples are tests, and they pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing-your-own.md"


def test_examples(tmp_path: Path) -> None:
    """Every Python block of the page is a test module that passes as it stands."""
    blocks = re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for n, block in enumerate(blocks):
        (tmp_path / f"test_example_{n}.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == len(blocks)
