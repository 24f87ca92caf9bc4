"""The page on writing a producer: its example is one."""

from __future__ import annotations

import contextlib
import re
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import until

from opsmesh.producers.memory import Memory

PAGE = Path(__file__).parents[2] / "docs/producers/writing.md"


@pytest.fixture
def module() -> types.ModuleType:
    """The page's Python, as a module."""
    [code] = re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL)
    made = types.ModuleType("my_module")
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), made.__dict__)
    return made


def test_tells_what_arrives(module: types.ModuleType, home: Path, tmp_path: Path) -> None:
    """A file that is there, and one whose last part arrives, are told once each; a part is not."""
    folder = tmp_path / "in"
    producer = module.Downloads(folder=str(folder))
    assert producer.available() == f"there is no {folder}"
    folder.mkdir()
    assert producer.available() is None
    (folder / "old").write_text("12345")
    (folder / "new.part").write_text("1")
    told: list[tuple[str, dict[str, Any], str]] = []

    def emit(topic: str, payload: dict[str, Any], *, ts_us: int, id: str) -> str:
        if payload["path"].endswith("last"):
            raise SystemExit  # as SIGTERM would
        told.append((topic, payload, id))
        return id

    def runs() -> None:
        with contextlib.suppress(SystemExit):
            producer.run(emit)

    thread = threading.Thread(target=runs, daemon=True)
    thread.start()
    until(lambda: bool(told) and Memory("downloads").load())
    (folder / "new.part").rename(folder / "new")
    until(lambda: len(told) == 2)
    (folder / "last").touch()
    thread.join(60)
    assert told[0][:2] == ("download.finished", {"path": str(folder / "old"), "bytes": 5})
    assert told[1][1]["path"] == str(folder / "new")
    assert {*module.Downloads.topics} == {topic for topic, _, _ in told}
