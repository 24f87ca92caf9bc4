"""The collector `coredump`: a real journal made of entries as systemd-coredump writes them, a real
core of a real program, and the real gdb."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.handlers.collecting import Context, Made, collect
from tests.handlers.conftest import EVENT
from tests.producers import journals

from opsmesh.handlers.collectors.coredump import MESSAGE_ID
from opsmesh.handlers.evidence import zst
from opsmesh.schemas.envelope import Event

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("coredump")


EXE = str(Path("/usr/bin/sleep").resolve())


def need(*tools: str) -> None:
    missing = next((tool for tool in tools if shutil.which(tool) is None), None)
    if missing:
        pytest.fail(f"{missing} is missing") if os.environ.get("CI") else pytest.skip(
            f"{missing} is missing"
        )


def entry(number: int, *, at_us: int, **fields: Any) -> bytes:
    """One coredump in the journal's export format."""
    facts = {
        "__REALTIME_TIMESTAMP": at_us,
        "__MONOTONIC_TIMESTAMP": 9_000_000 + number,
        "_BOOT_ID": "3e0c1f0a6a2b4d0e9b6f1a2b3c4d5e6f",
        "_MACHINE_ID": "0123456789abcdef0123456789abcdef",
        "MESSAGE_ID": MESSAGE_ID,
        "MESSAGE": "Process 173 (sleep) of user 1000 dumped core.",
        "PRIORITY": 2,
        "_UID": 0,
        "COREDUMP_PID": 173,
        "COREDUMP_UID": 1000,
        "COREDUMP_EXE": EXE,
        "COREDUMP_COMM": "sleep",
        "COREDUMP_SIGNAL": 6,
        "COREDUMP_SIGNAL_NAME": "SIGABRT",
        "COREDUMP_TIMESTAMP": at_us,
        "COREDUMP_UNIT": "worker.service",
        **fields,
    }
    return "".join(f"{name}={value}\n" for name, value in facts.items()).encode() + b"\n"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """An empty folder of journals."""
    need("journalctl", str(journals.REMOTE))
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core of a program that sleeps."""
    need("gdb", "gcore")
    folder = tmp_path_factory.mktemp("core")
    with subprocess.Popen([EXE, "60"]) as sleeping:
        command = ["gcore", "-o", str(folder / "core"), str(sleeping.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        sleeping.kill()
    if not (found := list(folder.iterdir())):
        pytest.skip(f"gdb may not look at a process here: {done.stderr[-200:]}")
    return found[0]


def crashed(context: Context, journal: Path, *, event: Event, **options: Any) -> Made:
    # gdb reads a core in a second, and on a busy machine in many
    item = {"coredump": {"directory": str(journal), **options}, "timeout": "120s"}
    return collect(context, [item], event=event, timeout=150.0)


CRASH = msgspec.structs.replace(EVENT, payload={"pid": 173, "exe": EXE})


def test_facts(context: Context, journal: Path) -> None:
    """The facts of the crash are there, without what holds secrets."""
    token = "ghp_" + "a1B2" * 9
    fields = {
        "COREDUMP_CMDLINE": f"sleep --password hunter2hunter2 --token={token} 60",
        "COREDUMP_ENVIRON": "API_KEY=hidden-in-the-environment",
        "COREDUMP_OPEN_FDS": "hidden-in-the-files",
        "COREDUMP_PROC_MAPS": "hidden-in-the-maps",
        "COREDUMP_PACKAGE_NAME": "coreutils",
        "COREDUMP_PACKAGE_VERSION": "9.1-1",
    }
    journals.add(journal, entry(1, at_us=EVENT.ts_us, **fields))
    made = crashed(context, journal, event=CRASH, backtrace=False)
    facts = made.facts("coredump")
    assert (facts["pid"], facts["exe"], facts["signal"]) == ("173", EXE, "SIGABRT")
    assert (facts["unit"], facts["package"]) == ("worker.service", "coreutils")
    assert (facts["argv"][0], facts["argv"][-1]) == ("sleep", "60")
    whole = "".join(path.read_text() for path in made.folder.iterdir())
    for secret in ("hunter2hunter2", token, "hidden-in-the"):
        assert secret not in whole
    assert "dumped core" in made.text("coredump")


def test_only_systemd_is_believed(context: Context, journal: Path) -> None:
    """An entry that any process may have written is no coredump."""
    journals.add(journal, entry(1, at_us=EVENT.ts_us, _UID=1000, _SYSTEMD_UNIT="evil.service"))
    made = crashed(context, journal, event=CRASH)
    assert made.error("coredump") == "the journal holds no coredump of process 173 around the event"


def test_earlier(context: Context, journal: Path) -> None:
    """Earlier crashes of the same program are listed, others' are not."""
    hour = 3_600_000_000
    journals.add(
        journal,
        entry(1, at_us=EVENT.ts_us - 2 * hour, COREDUMP_PID=99)
        + entry(2, at_us=EVENT.ts_us - hour, COREDUMP_PID=100, COREDUMP_EXE="/usr/bin/other")
        + entry(3, at_us=EVENT.ts_us),
    )
    made = crashed(context, journal, event=CRASH, backtrace=False)
    earlier = made.text("coredump_earlier")
    assert "pid 99  SIGABRT  worker.service" in earlier
    assert made.facts("coredump_earlier") == {"count": 1}


def test_no_core(context: Context, journal: Path) -> None:
    """A core that was not kept, or is gone, is the backtrace's error; the facts stand."""
    gone = "/var/lib/systemd/coredump/no-such-core.zst"
    journals.add(journal, entry(1, at_us=EVENT.ts_us, COREDUMP_FILENAME=gone))
    made = crashed(context, journal, event=CRASH)
    assert made.error("coredump_backtrace") == f"{gone}: the core is not there any more"
    assert made.facts("coredump")["core"] == gone


@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_backtrace(
    context: Context, journal: Path, core: Path, tmp_path: Path, suffix: str
) -> None:
    """gdb says where each thread was, also of a core that is compressed."""
    kept = tmp_path / f"core{suffix}"
    if suffix:
        with core.open("rb") as source, kept.open("wb") as target:
            zst.compress(source, core.stat().st_size, target)
    else:
        kept = core
    journals.add(journal, entry(1, at_us=EVENT.ts_us, COREDUMP_FILENAME=str(kept)))
    made = crashed(context, journal, event=CRASH)
    assert made.error("coredump_backtrace") == "None"
    assert "Thread 1 " in made.text("coredump_backtrace")
    assert made.facts("coredump_backtrace")["frames"][0].startswith("#0 ")
    assert not list((tmp_path / "work").glob("core-*"))


def test_not_a_core(context: Context, journal: Path, tmp_path: Path) -> None:
    """A file that is no core gives no frames, and says so."""
    need("gdb")
    wrong = tmp_path / "core"
    wrong.write_bytes(b"no core at all" * 100)
    journals.add(journal, entry(1, at_us=EVENT.ts_us, COREDUMP_FILENAME=str(wrong)))
    made = crashed(context, journal, event=CRASH)
    assert made.error("coredump_backtrace") in ("gdb found no frame in this core", "exit code 1")


def test_program_brings_a_script(
    context: Context, journal: Path, core: Path, tmp_path: Path
) -> None:
    """A script that lies beside the program is not run by gdb."""
    program = tmp_path / "sleep"
    shutil.copy(EXE, program)
    trace = tmp_path / "ran"
    script = f"import pathlib; pathlib.Path({str(trace)!r}).touch()\n"
    (tmp_path / "sleep-gdb.py").write_text(script)
    (tmp_path / "work").mkdir()  # where gdb runs, and has its home
    (tmp_path / "work" / ".gdbinit").write_text(f"shell touch {trace}\n")
    event = msgspec.structs.replace(EVENT, payload={"pid": 173, "exe": str(program)})
    fields = {"COREDUMP_FILENAME": str(core), "COREDUMP_EXE": str(program)}
    journals.add(journal, entry(1, at_us=EVENT.ts_us, **fields))
    crashed(context, journal, event=event)
    assert not trace.exists()


def test_nothing_named(context: Context, tmp_path: Path) -> None:
    """An event that names neither process nor program has no coredump."""
    made = collect(context, ["coredump"], {})
    assert made.error("coredump").startswith("the event names no process (pid)")


@pytest.mark.parametrize("exe", ["-x", "relative/path", "/a\nb"])
def test_exe_of_a_stranger(context: Context, exe: str) -> None:
    """What is no absolute path reaches no tool."""
    made = collect(context, ["coredump"], {"pid": 173, "exe": exe})
    assert "is no absolute path" in made.error("coredump")
