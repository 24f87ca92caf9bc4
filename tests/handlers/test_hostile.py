"""Five hundred hostile payloads through every kind of action: nothing is executed that the profile
did not name, and what is handed over arrives byte for byte.

To add a kind: `tests/handlers/hostile/adaptors.py`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.conftest import run
from tests.handlers.hostile.adaptors import ADAPTORS
from tests.handlers.hostile.canary import PRIVATE, SECRET, TRIPWIRES, Canary, placed
from tests.handlers.hostile.classics import CLASSICS
from tests.handlers.hostile.corpus import SIZE, Hostile, corpus, sample
from tests.handlers.hostile.stage import Adaptor, Stage

from opsmesh.handlers.actions import registry


@pytest.fixture
def stage(home: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A canary in a mesh's own folders."""
    return Stage(placed(home / "canary", monkeypatch), monkeypatch)


def shown(adaptor: Adaptor, stage: Stage, payloads: list[Hostile]) -> None:
    """Show them all, and listen to the canary after each."""

    async def body() -> None:
        async with adaptor.show(stage) as show:
            try:
                for one in payloads:
                    text = stage.canary.armed(one.text)
                    try:
                        said = await show(text)
                    except AssertionError as error:
                        raise AssertionError(f"{one.name} {text!r:.200}: {error}") from error
                    stage.canary.quiet(said, payload=text)
            finally:
                await stage.shared.aclose()

    run(body(), timeout=900)


@pytest.mark.parametrize("adaptor", ADAPTORS, ids=lambda adaptor: adaptor.name)
def test_some(adaptor: Adaptor, stage: Stage) -> None:
    """Payloads of every family are data to this kind of action."""
    shown(adaptor, stage, sample(adaptor.few))


@pytest.mark.slow
@pytest.mark.parametrize("adaptor", ADAPTORS, ids=lambda adaptor: adaptor.name)
def test_all(adaptor: Adaptor, stage: Stage) -> None:
    """All of them are data to this kind of action."""
    shown(adaptor, stage, corpus())


def test_every_kind_is_shown_them() -> None:
    """A kind of action that is registered has an adaptor."""
    kinds = registry.discover().actions.keys()
    missing = sorted(kinds - {adaptor.action for adaptor in ADAPTORS})
    assert not missing, f"no adaptor in tests/handlers/hostile/adaptors.py: {', '.join(missing)}"


def test_corpus() -> None:
    """It has its size, every classic, and the same order each time."""
    found = corpus()
    assert len(found) == len({one.name for one in found}) == SIZE
    texts = {one.text for one in found}
    assert all(text in texts for family in CLASSICS.values() for text in family)
    assert found == corpus()
    assert {one.family for one in sample(20)} >= {*CLASSICS} - {"sizes"} or len(CLASSICS) > 20


def test_the_canary_sings(stage: Stage) -> None:
    """A payload that a shell is given does leave a mark: silence means something."""
    text = stage.canary.armed("x; touch @MARK@")
    subprocess.run(["/bin/sh", "-c", f"/bin/true {text}"], check=True)
    assert stage.canary.sings()


@pytest.mark.parametrize("name", ["touch", "curl", "sh"])
def test_tripwires(stage: Stage, name: str) -> None:
    """A program of a payload's that is looked for in PATH is the tripwire."""
    assert name in TRIPWIRES
    subprocess.run([name, "x"], check=True, env=os.environ)
    assert stage.canary.sings() == [f"{name}: {stage.canary.tools}/{name} x\n"]


def test_a_precious_file(stage: Stage) -> None:
    """A file that was removed is noticed."""
    (stage.folder / "dent").unlink()
    assert stage.canary.sings() == ["the precious file was touched"]


@pytest.mark.parametrize("word", [SECRET, PRIVATE])
def test_what_is_said(stage: Stage, word: str) -> None:
    """A secret in what an action gives back is noticed."""
    canary: Canary = stage.canary
    with pytest.raises(AssertionError, match="was told"):
        canary.quiet({"stdout": f"x {word}"}, payload="p")
