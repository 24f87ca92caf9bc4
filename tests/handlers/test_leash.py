"""What is left of a step is found, and ended, whatever it did to get away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.conftest import eventually, run
from tests.handlers.lost_runs import dead

from opsmesh.handlers import leash, process
from opsmesh.handlers.errors import TakenOver
from opsmesh.handlers.procfs import proc
from opsmesh.handlers.runs import holder

ENV = process.minimal_environment()


@contextlib.asynccontextmanager
async def left(file: Path, script: str, ready: Path) -> AsyncIterator[int]:
    """A script that has been started on a leash, and has made `ready`, with its pid in it. It is as
    on its own: who started it looks away."""
    task = asyncio.create_task(_start(file, script))
    try:
        await eventually(lambda: ready.exists() and ready.read_text().strip())
        yield int(ready.read_text())
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _start(file: Path, script: str) -> None:
    with leash.on(file):
        await process.run(["sh", "-c", script], env=ENV)
        await asyncio.Event().wait()  # a handler that was killed removes nothing


@pytest.mark.parametrize(
    ("script", "killed"),
    [
        ("echo $$ > READY; exec sleep 60", False),
        ("trap '' TERM; echo $$ > READY; while :; do sleep 1; done", True),
        ("echo $$ > READY; kill -STOP $$", False),
        ("setsid sh -c 'echo $$ > READY; exec sleep 60' & until [ -s READY ]; do :; done", False),
        ("exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; echo $$ > READY; exec sleep 60", False),
    ],
    ids=["simple", "deaf", "stopped", "gone for a session of its own", "lets go of the lock"],
)
def test_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, killed: bool) -> None:
    """A program of a step is ended, also one that ignores TERM, is stopped, or has left its
    session; nothing can be started on the leash afterwards."""
    monkeypatch.setattr(leash, "GRACE_S", 0.3 if killed else 60)
    file, ready = tmp_path / "steps" / "run.1.step", tmp_path / "ready"

    async def body() -> None:
        async with left(file, script.replace("READY", str(ready)), ready) as pid:
            assert proc(pid) is not None
            assert pid in await leash.clear(file, spare=0)
            assert proc(pid) is None
            with leash.on(tmp_path / "steps" / "run.2.step"):
                assert (await process.run(["true"], env=ENV)).ok
            with pytest.raises(TakenOver), leash.Leash(file).starting():
                pass

    run(body())


def test_nothing_is_left(tmp_path: Path) -> None:
    """A step that ended leaves no file, and nothing has to be ended after it."""
    file = tmp_path / "run.1.step"

    async def body() -> None:
        with leash.on(file):
            assert (await process.run(["sh", "-c", "sleep 60 & true"], env=ENV)).ok
            assert file.exists()
        assert not file.exists()
        assert await leash.clear(file, spare=0) == []

    run(body())


def test_a_handler_that_starts_just_now_is_waited_for(tmp_path: Path) -> None:
    """While a handler is between its last look and its program, nobody takes its step over."""
    file = tmp_path / "run.1.step"

    async def body() -> None:
        with leash.Leash(file).starting():
            clearing = asyncio.create_task(leash.clear(file, spare=os.getpid()))
            await asyncio.wait([clearing], timeout=0.3)
            assert not clearing.done()
        assert await clearing == []

    run(body())


def test_sweep(tmp_path: Path) -> None:
    """Files of steps go after a day, but not while anything of the step is left."""
    old, held, new = (tmp_path / name for name in ("old", "held", "new"))
    for path in (old, held, new):
        path.touch()
    past = time.time() - 2 * 86400
    os.utime(old, (past, past))
    with leash.Leash(held).starting():
        os.utime(held, (past, past))
        leash.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [held, new]


def test_who_is_gone() -> None:
    """A holder is known to be gone when its process is, or another one has its pid; of a holder
    elsewhere nothing is known."""
    me, lost = holder.this_process("dev"), dead()
    assert not holder.gone(me)
    assert holder.gone(lost)
    assert holder.gone(msgspec.structs.replace(me, start=me.start - 1))
    assert not holder.gone(msgspec.structs.replace(lost, boot="another"))
