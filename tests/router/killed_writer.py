"""Writers that are killed at every call to the kernel: run by test_spool_killed, as a process.

For n = 1, 2, 3, …: a child does its work and is killed at its nth call, before it, or with half of
the data of a write. Then a new agent comes, and what it finds is checked. Ends when a child gets
through. Prints how many children were killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from opsmesh.router import losses, spool, spool_room
from opsmesh.router.spool_reader import SpoolReader

#: The calls that change what is on disk, or that somebody else can see.
CALLS = ("open", "write", "fsync", "rename", "unlink", "ftruncate", "utime", "mkdir", "close")

Work = Callable[[str, Callable[[str], None]], None]


def line(id: str) -> bytes:
    return json.dumps({"topic": "a.b", "id": id, "source": "test"}).encode()


def writing(folder: str, kept: Callable[[str], None]) -> None:
    """The first events of a spool that is not there yet."""
    for n in range(2):
        spool.write(f"{folder}/state/spool", [line(f"w{n}"), line(f"v{n}")])
        kept(f"w{n}")
        kept(f"v{n}")


def overflowing(folder: str, kept: Callable[[str], None]) -> None:
    """A full spool makes room."""
    spool.write(f"{folder}/state/spool", [line("last")])
    kept("last")


def mending(folder: str, kept: Callable[[str], None]) -> None:
    """An agent sets damage aside, and sends a part of a file."""
    reader = SpoolReader(f"{folder}/state/spool")
    reader.open(1 << 30, "refuse")
    files, _ = reader.read(reader.names())
    reader.keep(files[0].name, files[0].lines[1:])


def telling(folder: str, kept: Callable[[str], None]) -> None:
    """An agent closes the log of losses, and adds it up."""
    where = f"{folder}/state/spool"
    losses.freeze(where)
    for name in losses.frozen(where):
        losses.close(where, name)


def full(folder: str) -> set[str]:
    """Three files, and room for three."""
    where = f"{folder}/state/spool"
    for n in range(3):
        spool.write(where, [line(f"f{n}")])
    spool_room.set_limits(where, 3 * spool_room.BLOCK, "drop_oldest")
    return {f"f{n}" for n in range(3)}


def damaged(folder: str) -> set[str]:
    """A file with one damaged record of three."""
    path = Path(spool.write(f"{folder}/state/spool", [line("sent"), line("d1"), line("bad")]))
    path.write_bytes(path.read_bytes().replace(b"bad", b"bat"))
    return {"d1"}


def dropped(folder: str) -> set[str]:
    """Two events that were lost, and counted."""
    where = f"{folder}/state/spool"
    Path(where).mkdir(parents=True)
    for n in range(2):
        losses.record(where, f"file-{n}", [line(f"l{n}")], "drop_newest")
    return set()


def nothing(folder: str) -> set[str]:
    return set()


SCENES: dict[str, tuple[Callable[[str], set[str]], Work]] = {
    "writing": (nothing, writing),
    "overflowing": (full, overflowing),
    "mending": (damaged, mending),
    "telling": (dropped, telling),
}


def child(work: Work, folder: str, report: int, nth: int, half: bool) -> None:
    """Do the work, and be killed at the nth call."""
    calls = count(1)
    real_write = os.write

    def killing(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if next(calls) == nth:
                if half and name == "write":
                    real_write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return call

    for name in CALLS:
        setattr(os, name, killing(getattr(os, name), name))

    def kept(id: str) -> None:
        real_write(report, f"{id}\n".encode())

    work(folder, kept)
    os._exit(0)


def check(scene: str, folder: str, promised: set[str], reported: set[str]) -> None:
    """What the next agent finds."""
    where = f"{folder}/state/spool"
    before = {loss.source: loss.events for loss in losses.total(where)}
    reader = SpoolReader(where)
    reader.open(1 << 30, "refuse")
    found: list[str] = []
    for file in reader.read(reader.names())[0]:
        found += [json.loads(one)["id"] for one in file.lines]
        assert spool.read(f"{where}/{file.name}") == (file.lines, []), "damage is left"
    lost = sum(loss.events for loss in losses.total(where))
    kept = promised | reported
    assert len(found) == len(set(found)), f"twice: {found}"
    aside = any(Path(where).glob("corrupt/*"))
    if scene == "overflowing":
        assert len(kept - set(found)) == lost, f"{kept - set(found)} are gone, {lost} are counted"
    elif scene == "telling":
        assert lost == before["test"] == 2, f"counted {lost} and {before}"
    else:
        assert kept <= set(found), f"{kept - set(found)} are gone"
    assert aside == (scene == "mending"), "set aside what was never whole"


def main(scene: str) -> None:
    prepare, work = SCENES[scene]
    killed = 0
    for half in (False, True):
        for nth in count(1):
            with tempfile.TemporaryDirectory() as folder:
                promised = prepare(folder)
                reading, writing = os.pipe()
                pid = os.fork()
                if not pid:
                    child(work, folder, writing, nth, half)
                os.close(writing)
                with os.fdopen(reading) as report:
                    reported = set(report.read().split())
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                assert code in (0, -signal.SIGKILL), f"the child ended with {code}"
                check(scene, folder, promised, reported)
                if code == 0:
                    break
                killed += 1
    print(killed)


if __name__ == "__main__":
    main(sys.argv[1])
