"""The journal producer as its own process, on real journal files read by the real journalctl."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.producers import journals
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle

from opsmesh.producers.journal import Journal
from opsmesh.producers.journal.position import Position, find_gap, load, resume_at_us, store
from opsmesh.producers.journal.reader import Source, Unanswered
from opsmesh.schemas import times


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A folder with a real journal file, made of the capture."""
    missing = journals.missing()
    if missing:
        assert not os.environ.get("CI"), f"{missing} must be there in CI"
        pytest.skip(f"{missing} is not installed (Debian: systemd, systemd-journal-remote)")
    return journals.make(tmp_path / "journal")


@contextmanager
def producing(journal: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The producer as a process; SIGTERM ends it, with exit code 0."""
    pairs = [word for pair in (f"directory={journal}", *options) for word in ("-o", pair)]
    command = [sys.executable, "-P", "-m", "opsmesh.producers.host", "journal", *pairs]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()


def throttled(events: list[dict[str, Any]]) -> bool:
    """Whether the capture's last event is among them."""
    return "service.restart.throttled" in [event["topic"] for event in events]


def stored(home: Path, event: dict[str, Any]) -> bool:
    """Whether the producer has noted that it emitted the event."""
    position = load(home / "state/opsmesh/producers/journal/cursor")
    return position is not None and position.cursor == event["payload"]["cursor"]


def failures(events: list[dict[str, Any]]) -> list[str]:
    return [e["payload"]["unit"] for e in events if e["topic"] == "service.start.failed"]


def test_a_first_start_tells_nothing_old_and_everything_new(
    agent: StandInAgent, home: Path, journal: Path
) -> None:
    """The first start begins at the end of the journal."""
    cursor = home / "state/opsmesh/producers/journal/cursor"
    with producing(journal) as process:
        assert process.stderr is not None
        assert b"watching" in process.stderr.readline()
        until(cursor.exists)  # the end is noted before anything is read
        journals.add(journal, journals.later("t-new.service"))
        agent.wait_for(lambda events: bool(events))
    assert failures(agent.events) == ["t-new.service"]


def test_since_tells_old_failures_numbered_and_completed(
    agent: StandInAgent, journal: Path
) -> None:
    """With `since`, old failures are told in their order, at their own times."""
    with producing(journal, "since=2000-01-01"):
        events = agent.wait_for(throttled)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["boot_id"] for event in events} == {events[0]["boot_id"]}
    assert failures(events)[:2] == ["t-fail.service", "t-throttle.service"]
    assert events[0]["source"] == "journal"
    assert events[0]["ts_utc"].startswith("2026-11-2")
    assert events[0]["payload"]["exit_status"] == 3


def test_a_restart_tells_nothing_twice_and_misses_nothing(
    agent: StandInAgent, home: Path, journal: Path
) -> None:
    """What was logged while the producer was away is told by the next start, and only that."""
    with producing(journal, "since=2000-01-01"):
        before = agent.wait_for(throttled)
        until(lambda: stored(home, before[-1]))
    journals.add(journal, journals.later("t-away.service"))
    with producing(journal, "since=2000-01-01"):
        after = agent.wait_for(lambda events: "t-away.service" in failures(events))
    assert failures(after[len(before) :]) == ["t-away.service"]
    assert len({event["id"] for event in after}) == len(after)


def test_an_entry_that_is_read_twice_gives_the_same_id(
    agent: StandInAgent, home: Path, journal: Path
) -> None:
    """With the cursor lost, the second reading derives the ids of the first."""
    readings = []
    for _ in range(2):
        agent.events.clear()
        with producing(journal, "since=2000-01-01"):
            read = agent.wait_for(throttled)
            until(partial(stored, home, read[-1]))
        (home / "state/opsmesh/producers/journal/cursor").unlink()
        readings.append([event["id"] for event in read])
    assert readings[0] == readings[1]


def test_a_cursor_that_the_journal_does_not_hold_is_a_gap(
    agent: StandInAgent, home: Path, journal: Path
) -> None:
    """journalctl would silently start over; the producer tells the gap, and no old failures."""
    gone = "s=00000000000000000000000000000001;i=3;b=4d293b4ee8474dafb36d51af99f3da25;m=1;t=1;x=1"
    path = home / "state/opsmesh/producers/journal/cursor"
    store(path, Position(gone))
    with producing(journal):
        [gap] = agent.wait_for(lambda events: bool(events))
    assert gap["topic"] == "mesh.gap.detected"
    assert gap["payload"]["kind"] == "journal_replaced"
    assert gap["payload"]["last_known"] == gone


def test_journalctl_that_dies_is_started_again(agent: StandInAgent, journal: Path) -> None:
    """After journalctl was killed, the next failure is told all the same."""
    with producing(journal, "since=2000-01-01") as process:
        seen = agent.wait_for(throttled)
        os.kill(following(process.pid), signal.SIGKILL)
        journals.add(journal, journals.later("t-after.service"))
        events = agent.wait_for(lambda events: "t-after.service" in failures(events))
    assert failures(events[len(seen) :]) == ["t-after.service"]


def test_with_no_agent_the_spool_has_every_event(home: Path, journal: Path) -> None:
    """Without an agent, the events are in the spool before the cursor is stored."""
    path = home / "state/opsmesh/producers/journal/cursor"
    with producing(journal, "since=2000-01-01") as process:
        until(partial(is_told, path, journal))
        assert process.poll() is None
        assert throttled(spooled(home))


@pytest.mark.slow
def test_a_mesh_that_hangs_has_everything_in_the_spool(home: Path, journal: Path) -> None:
    """An agent that takes lines and never answers costs no event."""
    path = home / "state/opsmesh/producers/journal/cursor"
    with standing_in(home, hang=True), producing(journal, "since=2000-01-01"):
        until(partial(is_told, path, journal))
    assert failures(spooled(home))[:2] == ["t-fail.service", "t-throttle.service"]
    assert throttled(spooled(home))


def is_told(path: Path, journal: Path) -> bool:
    """Whether the capture's last event has been emitted, and noted."""
    last = Source(str(journal)).ask("CODE_FUNC=unit_test_start_limit")
    kept = load(path)
    return last is not None and kept is not None and kept.cursor == last["__CURSOR"]


def test_it_is_light(agent: StandInAgent, home: Path, journal: Path) -> None:
    """The process rests in less than 30 MB."""
    resident, cpu = idle("journal", {"directory": str(journal)}, home)
    assert resident < 30, resident
    assert cpu < 1, cpu


def following(pid: int) -> int:
    """The journalctl that follows, once there is one: another reads what was before it, and ends by
    itself, as a script does that stands before it."""

    def found() -> int:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                argv = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if Path(f"/proc/{child}/exe").readlink().name == "journalctl" and (
                    b"--follow" in argv
                ):
                    return int(child)
        return 0

    return int(until(found))


@pytest.mark.slow
def test_journalctl_is_killed_twenty_times(agent: StandInAgent, journal: Path) -> None:
    """What is logged around each death is told once."""
    units = [f"t-{count}.service" for count in range(20)]
    with producing(journal, "since=2000-01-01") as process:
        agent.wait_for(throttled)
        for unit in units:
            os.kill(following(process.pid), signal.SIGKILL)
            journals.add(journal, journals.later(unit))
            agent.wait_for(lambda events, unit=unit: unit in failures(events))  # type: ignore[misc]
    assert [unit for unit in failures(agent.events) if unit in units] == units


class Wrapped:
    """journalctl behind a script on the PATH: `hold`: it does not follow; `lines` go first."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        self.hold, self.lines = folder / "hold", folder / "lines"
        self.lines.touch()
        script = folder / "journalctl"
        script.write_text(
            "#!/bin/sh\n"
            f'case " $* " in *" --follow "*)\n[ -e "{self.hold}" ] && exit 1\n'
            f'cat "{self.lines}" || exit 1;; esac\n'
            f'exec {shutil.which("journalctl")} "$@"\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrapped:
    """journalctl, behind a script that can hold it back."""
    return Wrapped(tmp_path / "bin", monkeypatch)


def test_a_journal_that_is_replaced_while_journalctl_is_dead_is_a_gap(
    agent: StandInAgent, journal: Path, wrapped: Wrapped
) -> None:
    """The start after a death looks whether the cursor is still there, as the first one does."""
    with producing(journal, "since=2000-01-01") as process:
        seen = len(agent.wait_for(throttled))
        child = following(process.pid)
        wrapped.hold.touch()
        os.kill(child, signal.SIGKILL)
        (journal / "made.journal").unlink()
        journals.add(journal, journals.later("t-new.service", at_us=times.now_us()))
        wrapped.hold.unlink()
        events = agent.wait_for(lambda events: "t-new.service" in failures(events))[seen:]
    assert [event["topic"] for event in events] == ["mesh.gap.detected", "service.start.failed"]
    assert events[0]["payload"]["kind"] in ("journal_replaced", "journal_empty")


def test_a_reboot_is_no_gap(agent: StandInAgent, home: Path, journal: Path) -> None:
    """What the boots before this one logged is told as well: journalctl would not follow it."""
    with producing(journal, "since=2000-01-01"):
        before = agent.wait_for(throttled)
        until(lambda: stored(home, before[-1]))
    units = ["t-ab.service", "t-cd.service"]
    for unit, boot in zip(units, ("ab" * 16, "cd" * 16), strict=True):
        journals.add(journal, journals.later(unit, boot=boot))
    with producing(journal):
        events = agent.wait_for(lambda events: units[-1] in failures(events))
    assert failures(events[len(before) :]) == units
    assert "mesh.gap.detected" not in [event["topic"] for event in events]


def test_ten_thousand_hostile_lines_are_skipped(
    agent: StandInAgent, journal: Path, wrapped: Wrapped
) -> None:
    """Cut, foreign, endless and false lines are no event and no end; what follows is told."""
    chance = random.Random(7)
    capture = (Path(__file__).parent / "data/journal_vm.jsonl").read_bytes().splitlines()
    odd = [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"{}",
        b"[" * 9000,
        b"9" * 5000,
        b"\xff\xfe\0",
        b'{"__CURSOR": 3}',
        b'{"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "soon"}',
        b'{"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "18446744073709551615"}',
        b'{"__CURSOR": null, "__REALTIME_TIMESTAMP": "' + b"9" * 5000 + b'"}',
    ]
    with wrapped.lines.open("wb") as file:
        for _ in range(10_000):
            line = chance.choice([*odd, chance.choice(capture)])
            file.write(line[: chance.randrange(len(line) or 1)] + b"\n")
        file.writelines(line + b"\n" for line in odd)
        file.write(b"x" * (3 << 20) + b"\n")
        for entry in map(json.loads, capture):
            stranger = {**entry, "_PID": "4711", "_UID": "1000", "SYSLOG_FACILITY": "1"}
            stranger["_SYSTEMD_UNIT"], stranger["UNIT"] = "session-2.scope", "forged.service"
            file.write(json.dumps(stranger).encode() + b"\n")
    with producing(journal, "since=2000-01-01"):
        events = agent.wait_for(throttled)
    assert failures(events)[0] == "t-fail.service"
    assert {event["payload"]["unit"][:2] for event in events} == {"t-"}


def test_units_can_be_left_out(agent: StandInAgent, journal: Path) -> None:
    """`ignore` takes patterns of units."""
    with producing(journal, "since=2000-01-01", "ignore= t-fail.*, t-flap*"):
        events = agent.wait_for(throttled)
    assert "t-fail.service" not in failures(events)
    assert "t-throttle.service" in failures(events)


def test_scope_tells_one_managers_units_alone(home: Path) -> None:
    """`scope` leaves out the other manager's, core dumps and kills too."""
    entry = json.loads((Path(__file__).parent / "data/journal_events.json").read_bytes())
    system, [user] = entry["service.start.failed"], entry["service.start.failed.user"]
    cores, kills = entry["system.coredump.created"], entry["system.oom.killed.kernel"]
    for scope, told in (("all", 6), ("system", 5), ("user", 1)):
        emitted: list[str] = []

        def emit(topic: str, payload: Any, *, into: list[str] = emitted, **_: Any) -> str:
            into.append(topic)
            return "id"

        producer = Journal(scope=scope)
        for one in (*system, user, *cores, *kills):
            producer._take(one, emit)
        assert len(emitted) == told, scope


def test_a_journal_that_may_not_be_read_says_how_it_may(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names the command that gives the right."""
    assert Journal(directory=str(journal)).available() is None
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **_: str(path)[-8:] != ".journal" and real(path, mode)
    )
    reason = Journal(directory=str(journal)).available()
    assert reason is not None
    assert "usermod -aG systemd-journal" in reason
    assert "no journal in" in str(Journal(directory=str(journal / "none")).available())


def test_a_wrong_option_is_named(home: Path) -> None:
    """An unknown option, or a wrong value, is a usage error in one line."""
    for option, said in (
        ("speed=1", "option speed: unknown; journal has"),
        ("flap_restarts=none", "'none' is not a number"),
        ("flap_window=5", "duration '5'"),
        ("scope=mine", "'mine' is none of all, system, user"),
    ):
        command = [sys.executable, "-P", "-m", "opsmesh.producers.host", "journal", "-o", option]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_killed_question_says_nothing_of_the_cursor(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who kills journalctl while it is asked whether the cursor is there has made no gap: it is
    asked again later."""
    source = Source(str(journal))
    cursor = source.newest()
    script = tmp_path / "bin/journalctl"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *--cursor=*) kill -9 $$;; esac\n'
        f'exec {shutil.which("journalctl")} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    with pytest.raises(Unanswered):
        find_gap(source, cursor, now_us=0)


def test_a_position_survives_and_a_torn_one_is_a_gap(tmp_path: Path, journal: Path) -> None:
    """What is stored is read back; a file that is none reads as a position without a cursor."""
    path = tmp_path / "state/cursor"
    assert load(path) is None
    store(path, Position("s=1;i=2", {"told": {}}))
    assert load(path) == Position("s=1;i=2", {"told": {}})
    path.write_bytes(b'{"cursor": "s=')
    torn = load(path)
    assert torn == Position()
    gap = find_gap(Source(str(journal)), "", now_us=7_200_000_000)
    assert gap is not None
    assert gap.kind == "cursor_unreadable"
    assert resume_at_us(gap) == 3_600_000_000


def test_a_kept_cursor_is_no_gap(journal: Path) -> None:
    """Any cursor that the journal holds is found."""
    source = Source(str(journal))
    assert find_gap(source, source.newest(), now_us=0) is None
    command = [*source.arguments(), "--output-fields=MESSAGE"]
    lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
    for line in lines[::5]:
        assert find_gap(source, json.loads(line)["__CURSOR"], now_us=0) is None
