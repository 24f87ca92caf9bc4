"""The packages producer beside real package managers, and against logs that mean harm."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.producers import managers
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle
from tests.producers.packaged import off, producer

from opsmesh.producers.errors import OptionError
from opsmesh.producers.packages import Packages
from opsmesh.producers.packages.apt import Apt
from opsmesh.producers.packages.pacman import Pacman
from opsmesh.producers.packages.producer import KICK
from opsmesh.producers.packages.transaction import Parser
from opsmesh.producers.packages.wiring import Apt as AptWiring
from opsmesh.producers.packages.wiring import Pacman as PacmanWiring
from opsmesh.producers.wiring import OwnFile
from opsmesh.schemas.registry import load_registry

DATA = Path(__file__).parent / "data/packages"
COMPLETED = "[ALPM] transaction completed"


def line(text: str, *, ago: float = 0) -> str:
    """A line of pacman's log, of now or `ago` seconds before."""
    at = datetime.now(UTC) - timedelta(seconds=ago)
    return f"[{at:%Y-%m-%dT%H:%M:%S+0000}] {text}\n"


def begun(name: str, *, ago: float = 0) -> str:
    """A transaction in pacman's log that is not over."""
    texts = ("[ALPM] transaction started", f"[ALPM] installed {name} (1.0-1)")
    return "".join(line(text, ago=ago) for text in texts)


def installed(name: str, *, ago: float = 0) -> str:
    """A whole transaction in pacman's log."""
    return begun(name, ago=ago) + line(COMPLETED, ago=ago)


def transactions(parser: Parser, text: str) -> list[dict[str, Any]]:
    """What a log's text tells."""
    found = (parser.feed(line) for line in text.splitlines())
    return [one.payload() for one in found if one is not None]


def has(name: str) -> Callable[[list[dict[str, Any]]], bool]:
    """The package's transaction is here."""
    return lambda events: f"install {name} 1.0-1" in told(events)


def told(events: list[dict[str, Any]]) -> list[str]:
    """What was told of, in short: `install hello 1.0-1`."""
    return [
        " ".join(filter(None, (c["operation"], c["name"], c.get("old_version"), c.get("version"))))
        for event in events
        for c in event["payload"].get("packages", ())
    ]


def test_captured_pacman_log() -> None:
    """Each transaction of the capture is one, with its command, operations and versions."""
    found = transactions(Pacman(), (DATA / "pacman.log").read_text())
    assert told([{"payload": one} for one in found]) == [
        "install hello 1.0-1",
        "install world 0.1-1",
        "remove world 0.1-1",
        "upgrade hello 1.0-1 1.2-1",
        "install world 0.1-1",
        "reinstall hello 1.2-1",
        "downgrade hello 1.2-1 1.0-1",
        "remove world 0.1-1",
        "remove hello 1.0-1",
    ]
    assert len(found) == 6
    assert found[2]["command"].endswith("-Syyu")


def test_captured_apt_log() -> None:
    """Stanzas of apt's history are transactions; the half of one at the begin is none."""
    found = transactions(Apt(), (DATA / "history.log").read_text())
    assert [one["packages"] for one in found] == [
        [{"name": "mesh-demo", "operation": "install", "version": "1.0", "arch": "amd64"}],
        [{"name": "mesh-demo", "operation": "remove", "old_version": "1.0", "arch": "amd64"}],
    ]


def test_every_operation_of_apt() -> None:
    """Versions before and after, and what is marked automatic, are read from each operation."""
    found = transactions(
        Apt(),
        "Start-Date: 2026-11-23  01:24:57\nCommandline: apt upgrade\nRequested-By: dev (1000)\n"
        "Install: a:amd64 (1, automatic), b:all (2)\nUpgrade: c:amd64 (1:1-1, 1:2-1)\n"
        "Downgrade: d:amd64 (2, 1)\nReinstall: e:amd64 (3)\nPurge: f:amd64 (4)\n"
        "Disappeared: g, h (5)\n"
        "Error: Sub-process /usr/bin/dpkg returned an error code (1)\n"
        "End-Date: 2026-11-23  01:24:58\n",
    )
    assert told([{"payload": one} for one in found]) == [
        "install a 1",
        "install b 2",
        "upgrade c 1:1-1 1:2-1",
        "downgrade d 2 1",
        "reinstall e 3",
        "purge f 4",
        "remove g",
        "remove h 5",
    ]
    assert [change.get("automatic") for change in found[0]["packages"][:2]] == [True, None]
    assert found[0]["requested_by"] == "dev (1000)"
    assert found[0]["outcome"] == "failed"
    assert found[0]["error"] == "Sub-process /usr/bin/dpkg returned an error code (1)"


def test_pacman_that_died() -> None:
    """A transaction without an end is told as cut once the next one begins."""
    text = begun("a") + installed("b")
    assert [one["outcome"] for one in transactions(Pacman(), text)] == ["cut", "completed"]


def test_scriptlets_tell_nothing() -> None:
    """What a package's own script writes into the log is not believed."""
    words = ("transaction started", "installed x (1)", "transaction completed")
    text = begun("a") + "".join(line(f"[ALPM-SCRIPTLET] {one}") for one in words) + line(COMPLETED)
    assert told([{"payload": one} for one in transactions(Pacman(), text)]) == ["install a 1.0-1"]


def test_old_times_of_pacman() -> None:
    """Before 5.2 a time had minutes, and no offset: it is local."""
    text = "".join(
        f"[2014-12-20 14:45] [ALPM] {words}\n"
        for words in ("transaction started", "installed a (1-1)", "transaction completed")
    )
    [found] = transactions(Pacman(), text)
    assert found["completed_at"].startswith("2014-12-20T14:45:00")


def test_a_command_is_its_own_front_ends() -> None:
    """pamac writes into the same log: a pacman's command from before is not that of its work."""
    text = line("[PACMAN] Running 'pacman -Sy'") + line("[PAMAC] synchronizing package lists")
    [found] = transactions(Pacman(), text + installed("a"))
    assert "command" not in found


def test_a_line_of_a_large_upgrade() -> None:
    """apt writes all packages into one line, here 5,000; an event names 4,000 of them."""
    items = ", ".join(f"package-{n}:amd64 (1:{n}.0-1, 1:{n}.1-1+deb12u1)" for n in range(5000))
    text = f"Start-Date: 2026-11-23  01:24:57\nUpgrade: {items}\nEnd-Date: 2026-11-23  01:30:00\n"
    [found] = transactions(Apt(), text)
    assert len(found["packages"]) == 4000
    assert found["omitted"] == 1000
    load_registry().check("package.txn.completed", found)
    assert len(json.dumps(found)) < 600_000


@pytest.mark.parametrize("parser", [Pacman, Apt])
def test_hostile_lines(parser: type[Parser]) -> None:
    """10,000 damaged lines neither stop a parser nor make a payload that does not fit its topic."""
    chance = random.Random(5)
    lines = (DATA / "pacman.log").read_text().splitlines()
    lines += (DATA / "history.log").read_text().splitlines()
    made = parser()
    registry = load_registry()
    for _ in range(10_000):
        good = chance.choice(lines)
        cut = chance.randrange(len(good) + 1)
        junk = "".join(chance.choice("()[]>- ,:'\x00é9") for _ in range(chance.randrange(4)))
        if (found := made.feed(good[:cut] + junk + good[cut + chance.randrange(2) :])) is not None:
            registry.check("package.txn.completed", found.payload())


def test_real_pacman(home: Path, agent: StandInAgent) -> None:
    """Install, upgrade, reinstall, downgrade and removal by a real pacman, told as they happen."""
    managers.need("pacman", "bsdtar", "repo-add")
    pacman = managers.Pacman(home / "arch")
    old = pacman.package("hello", "1.0-1")
    pacman.package("world", "0.1-1")
    with producer(home, *off(home, pacman=pacman.log)):
        pacman("-Sy", "hello", "world")
        pacman.package("hello", "1.2-1")
        pacman("-Syyu")
        pacman("-S", "hello")
        pacman("-U", old)
        pacman("-R", "world")
        pacman("-R", "hello")
        events = agent.wait_for(lambda events: len(events) == 6)
    assert told(events) == [
        "install hello 1.0-1",
        "install world 0.1-1",
        "upgrade hello 1.0-1 1.2-1",
        "reinstall hello 1.2-1",
        "downgrade hello 1.2-1 1.0-1",
        "remove world 0.1-1",
        "remove hello 1.0-1",
    ]
    assert events[0]["payload"]["command"].endswith("-Sy hello world")


def test_real_apt(home: Path, agent: StandInAgent) -> None:
    """Install, upgrade and removal of local packages by a real apt, told as they happen."""
    managers.need("apt-get", "dpkg-deb")
    apt = managers.Apt(home / "debian")
    first, second = apt.package("mesh-demo", "1.0"), apt.package("mesh-demo", "1.1")
    with producer(home, *off(home, apt=apt.log)):
        apt("install", first)
        apt("install", second)
        apt("remove", "mesh-demo")
        events = agent.wait_for(lambda events: len(events) == 3)
    assert told(events) == [
        "install mesh-demo 1.0",
        "upgrade mesh-demo 1.0 1.1",
        "remove mesh-demo 1.1",
    ]


def test_a_pacman_that_is_killed(home: Path, agent: StandInAgent) -> None:
    """A real pacman, killed by SIGKILL in a package's scriptlet, is told as cut by the next one."""
    managers.need("pacman", "bsdtar", "repo-add")
    pacman = managers.Pacman(home / "arch")
    pacman.shell()
    gate = home / "arch/root/gate"
    os.mkfifo(gate)
    pacman.package("aaa", "1.0-1")
    pacman.package("bbb", "1.0-1", script="pre_install() {\n  read line < /gate\n}\n")
    with producer(home, *off(home, pacman=pacman.log)):
        killed = subprocess.Popen(pacman.command("-Sy", "aaa", "bbb"), stdout=subprocess.DEVNULL)
        with gate.open("w"):  # open once the scriptlet reads
            until(lambda: "installed aaa" in pacman.log.read_text())
            killed.send_signal(signal.SIGKILL)
            killed.wait(60)
        (home / "arch/root/var/lib/pacman/db.lck").unlink()
        pacman("-S", "aaa")
        events = agent.wait_for(lambda events: len(events) == 2)
    assert told(events) == ["install aaa 1.0-1", "reinstall aaa 1.0-1"]
    assert [event["payload"]["outcome"] for event in events] == ["cut", "completed"]
    assert events[0]["severity"] == "warn"
    assert events[0]["payload"]["command"].endswith("-Sy aaa bbb")


def test_what_a_real_pacman_refuses_is_no_transaction(home: Path, agent: StandInAgent) -> None:
    """A conflict ends before the transaction begins; the command is not that of the next one."""
    managers.need("pacman", "bsdtar", "repo-add")
    pacman = managers.Pacman(home / "arch")
    pacman.package("hello", "1.0-1")
    pacman.package("clash", "1.0-1", conflict="hello")
    with producer(home, *off(home, pacman=pacman.log)):
        pacman("-Sy", "hello")
        refused = subprocess.run(pacman.command("-S", "clash"), capture_output=True, check=False)
        pacman("-R", "hello")
        events = agent.wait_for(lambda events: len(events) == 2)
    assert refused.returncode != 0
    assert told(events) == ["install hello 1.0-1", "remove hello 1.0-1"]
    assert events[1]["payload"]["command"].endswith("-R hello")


def test_a_real_dpkg_that_fails(home: Path, agent: StandInAgent) -> None:
    """A script that fails makes a transaction that failed, with apt's words; what was not asked for
    is marked."""
    managers.need("apt-get", "dpkg-deb")
    apt = managers.Apt(home / "debian")
    apt.package("dependency", "1.0")
    broken = apt.package("broken", "1.0", postinst="#!/bin/sh\nexit 3\n", needs="dependency")
    with producer(home, *off(home, apt=apt.log)):
        words = apt.command("install", broken, home / "debian/dependency_1.0_all.deb")
        failed = subprocess.run(words, capture_output=True, check=False, env=apt.environment)
        [event] = agent.wait_for(bool)
    assert failed.returncode == 100, failed.stderr
    assert event["severity"] == "warn"
    assert event["payload"]["outcome"] == "failed"
    assert "dpkg" in event["payload"]["error"]
    assert told([event]) == ["install broken 1.0", "install dependency 1.0"]


def test_alike_in_one_second(home: Path, agent: StandInAgent) -> None:
    """Transactions that a log of seconds cannot tell apart are as many events, and stay the same
    ones when they are read again."""
    log = home / "pacman.log"
    log.touch()
    text = installed("a") * 3
    ids = []
    for _ in range(2):
        agent.events.clear()
        log.write_text("")
        with producer(home, *off(home, pacman=log)):
            log.write_text(text)
            events = agent.wait_for(lambda events: len(events) == 3)
        ids.append([event["id"] for event in events])
        (home / "state/opsmesh/producers/packages/memory.json").unlink()
    assert len({*ids[0]}) == 3
    assert ids[0] == ids[1]


def test_first_start_in_the_middle_of_a_transaction(home: Path, agent: StandInAgent) -> None:
    """The transaction that is under way at the first start is told whole; none before it is."""
    log = home / "pacman.log"
    running = line("[PACMAN] Running 'pacman -S b'")
    log.write_text(installed("old") + running + begun("b"))
    with producer(home, *off(home, pacman=log)), log.open("a") as file:
        file.write(line(COMPLETED))
        file.flush()
        events = agent.wait_for(bool)
    assert told(events) == ["install b 1.0-1"]
    assert events[0]["payload"]["command"] == "pacman -S b"


def test_a_log_is_renamed_under_a_running_pacman(home: Path, agent: StandInAgent) -> None:
    """It writes on into what the log is called now, and is told when it has ended."""
    log = home / "pacman.log"
    log.write_text(installed("old"))
    with producer(home, *off(home, pacman=log)), log.open("a") as file:
        file.write(installed("before") + begun("during"))
        file.flush()
        log.rename(home / "pacman.log.1")
        agent.wait_for(has("before"))  # although there is no log at all now
        file.write(line(COMPLETED))
        file.flush()
        agent.wait_for(has("during"))
        log.write_text(installed("after"))
        events = agent.wait_for(has("after"))
    assert told(events) == [f"install {name} 1.0-1" for name in ("before", "during", "after")]


def test_many_rotations_while_it_was_away(home: Path, agent: StandInAgent) -> None:
    """Twelve rotations between two lives lose nothing, packed or not."""
    log = home / "history.log"
    log.write_text(installed("old"))
    with producer(home, *off(home, pacman=log)):
        pass
    for number in range(12):
        with log.open("a") as file:
            file.write(installed(f"p-{number}"))
        for older in range(number, 0, -1):
            (home / f"history.log.{older}.gz").rename(home / f"history.log.{older + 1}.gz")
        packed = home / "history.log.1.gz"
        packed.write_bytes(gzip.compress(log.read_bytes()))
        os.utime(packed, (number + 1e9, number + 1e9))  # gzip keeps the time of what it packs
        log.unlink()
    (home / "history.log.1.gz.tmp").write_bytes(b"not gzip")
    (home / "history.log.7").write_bytes(b"\xff" * 100)
    with producer(home, *off(home, pacman=log)):
        events = agent.wait_for(has("p-11"))
    assert told(events) == [f"install p-{n} 1.0-1" for n in range(12)]
    assert "mesh.gap.detected" not in [event["topic"] for event in events]


@pytest.mark.slow
def test_a_log_that_is_damaged_and_one_that_is_gone(home: Path, agent: StandInAgent) -> None:
    """Megabytes without an end of line, as a power cut leaves them, are passed over; a log that
    went away, with a rotated one that is of no use, is one gap, and what comes later is told."""
    log = home / "pacman.log"
    log.write_text(installed("old"))
    with producer(home, *off(home, pacman=log)):
        with log.open("ab") as file:
            file.write(b"\x00" * 3_000_000 + b"\n" + installed("a").encode())
        agent.wait_for(has("a"))
        log.unlink()
        (home / "pacman.log.1").write_bytes(b"\xff" * 100 + b"\n")
        agent.wait_for(lambda events: len(events) == 2)
        (home / "pacman.log.1").touch()
        log.write_text(installed("b"))
        events = agent.wait_for(has("b"))
    assert [event["topic"] for event in events] == [
        "package.txn.completed",
        "mesh.gap.detected",
        "package.txn.completed",
    ]


def test_since(home: Path, agent: StandInAgent) -> None:
    """The first start can begin earlier, also in what was rotated."""
    log = home / "pacman.log"
    old = installed("ancient", ago=9 * 86400) + installed("rotated", ago=6 * 86400)
    (home / "pacman.log.1").write_text(old)
    log.write_text(installed("recent", ago=60))
    with producer(home, *off(home, pacman=log), "since=7d"):
        events = agent.wait_for(has("recent"))
    assert told(events) == ["install rotated 1.0-1", "install recent 1.0-1"]


def test_a_wrong_option_is_refused() -> None:
    """A date that is none is an error that says what is taken."""
    with pytest.raises(OptionError, match="all, an age like 7d, or a date"):
        Packages(since="yesterday")


def test_no_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user reads the logs; one that is not for this user is said, and read once it is."""
    managers.need("setpriv")
    nobody = 65534
    # pytest's own folders let nobody else in
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        home = Path(name)
        for variable, folder in (("RUNTIME_DIR", "run"), ("STATE_HOME", "state")):
            monkeypatch.setenv(f"XDG_{variable}", str(home / folder))
        (home / "run").mkdir()
        log, closed = home / "pacman.log", home / "history.log"
        memory = home / "state/opsmesh/producers/packages/memory.json"
        log.write_text(installed("old"))
        closed.touch(0o600)
        with standing_in(home) as agent:
            for path in (home, *(home / "run").rglob("*"), home / "run"):
                os.chown(path, nobody, nobody)
            ids = [f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
            with producer(
                home, *off(home, pacman=log, apt=closed), prefix=["setpriv", *ids]
            ) as process:
                assert f"Uid:\t{nobody}" in Path(f"/proc/{process.pid}/status").read_text()
                said = home / "packages.log"
                until(lambda: "history.log: Permission denied" in said.read_text())
                with log.open("a") as file:
                    file.write(installed("a"))
                agent.wait_for(has("a"))
                closed.chmod(0o644)
                until(lambda: json.loads(memory.read_text())["logs"]["apt"] is not None)
                now = f"{datetime.now():%F  %T}"
                with closed.open("a") as file:
                    file.write(f"Start-Date: {now}\nRemove: b:all (1)\nEnd-Date: {now}\n")
                events = agent.wait_for(lambda events: len(events) == 2)
    assert told(events) == ["install a 1.0-1", "remove b 1"]


def test_a_kick(home: Path, agent: StandInAgent) -> None:
    """Where inotify does not see the log change, here by way of another name of the file, the
    hook's touch makes it be read."""
    log, elsewhere, kick = home / "pacman.log", home / "elsewhere", home / "system/opsmesh/packages"
    log.write_text(installed("old"))
    elsewhere.hardlink_to(log)
    kick.parent.parent.mkdir()
    hidden = home / "hidden"
    hidden.mkdir()
    log.rename(hidden / "pacman.log")
    with producer(home, *off(home, pacman=hidden / "pacman.log"), f"kick={kick}"):
        with elsewhere.open("a") as file:
            file.write(installed("unseen"))
        kick.parent.mkdir()
        kick.touch()
        events = agent.wait_for(bool)
    assert told(events) == ["install unseen 1.0-1"]


def hook(wiring: PacmanWiring | AptWiring, kick: Path) -> str:
    """The text of the hook, with its file in another place than this machine's."""
    [piece] = wiring.pieces()
    assert isinstance(piece, OwnFile)
    assert piece.root
    return piece.text.replace(str(KICK.parent), str(kick.parent))


def test_real_pacman_runs_the_hook(home: Path) -> None:
    """pacman's hook makes its file in pacman's own root, and fails nothing where there is no shell,
    or where it may not write."""
    managers.need("pacman", "bsdtar", "repo-add")
    pacman = managers.Pacman(home / "arch")
    kick = home / "arch/root/run/opsmesh/packages"
    pacman.package("hello", "1.0-1")
    (home / "arch/hooks/opsmesh.hook").write_text(hook(PacmanWiring(), Path("/run/opsmesh/p")))
    pacman("-Sy", "hello")
    assert "running 'opsmesh.hook'" in pacman.log.read_text()
    pacman.shell()
    pacman("-S", "hello")
    assert kick.exists()
    shutil.rmtree(home / "arch/root/run")
    (home / "arch/root/run").touch()
    pacman("-R", "hello")


@pytest.mark.parametrize("place", ["system/opsmesh/packages", "file/opsmesh/packages"])
def test_real_apt_runs_the_hook(home: Path, place: str) -> None:
    """apt's hook makes its file, and fails nothing where it cannot."""
    managers.need("apt-get", "dpkg-deb")
    apt = managers.Apt(home / "debian")
    (home / "file").touch()
    apt.hook(hook(AptWiring(), home / place))
    apt("install", apt.package("mesh-demo", "1.0"))
    assert (home / place).is_file() == place.startswith("system")


@pytest.mark.parametrize("lives", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_goes_on_where_it_stopped(home: Path, agent: StandInAgent, lives: int) -> None:
    """What is there at the first start is no news; what comes between two lives is, once."""
    log = home / "pacman.log"
    log.write_text(installed("old"))
    for number in range(lives):
        with producer(home, *off(home, pacman=log)):
            with log.open("a") as file:
                file.write(installed(f"live-{number}"))
            agent.wait_for(has(f"live-{number}"))
        with log.open("a") as file:
            file.write(installed(f"away-{number}"))
    with producer(home, *off(home, pacman=log)):
        events = agent.wait_for(lambda events: len({event["id"] for event in events}) >= 2 * lives)
    # one that was told and not noted is told again, under the id by which the broker knows it
    stored = list({event["id"]: event for event in events}.values())
    expected = [f"install {kind}-{n} 1.0-1" for n in range(lives) for kind in ("live", "away")]
    assert told(stored) == expected


@pytest.mark.parametrize("how", ["renamed", "copied", "packed"])
def test_rotations(home: Path, agent: StandInAgent, how: str) -> None:
    """A log that is rotated 20 times, each in the middle of a transaction's news, loses nothing."""
    log, old = home / "pacman.log", home / "pacman.log.1"
    log.write_text(installed("old"))
    with producer(home, *off(home, pacman=log)):
        for number in range(20):
            with log.open("a") as file:
                file.write(installed(f"before-{number}"))
            if how == "packed":
                old.with_suffix(".1.gz").write_bytes(gzip.compress(log.read_bytes()))
                log.unlink()
            elif how == "renamed":
                log.rename(old)
            else:
                shutil.copyfile(log, old)
                log.write_text("")
            with log.open("a") as file:
                file.write(installed(f"after-{number}"))
            agent.wait_for(has(f"after-{number}"))
    expected = [f"install {kind}-{n} 1.0-1" for n in range(20) for kind in ("before", "after")]
    assert told(agent.events) == expected


def test_what_is_gone_is_a_gap(home: Path, agent: StandInAgent) -> None:
    """A log that was replaced while nobody looked is told as a gap, and then what it has of since
    then: not once more the years before."""
    log = home / "pacman.log"
    log.write_text(installed("one"))
    with producer(home, *off(home, pacman=log)):
        pass
    log.write_text(installed("long-ago", ago=9999) + installed("another-and-longer"))
    with producer(home, *off(home, pacman=log)):
        agent.wait_for(lambda events: len(events) >= 2)
        with log.open("a") as file:
            file.write(installed("next"))
        events = agent.wait_for(has("next"))
    assert [event["topic"] for event in events[:2]] == [
        "mesh.gap.detected",
        "package.txn.completed",
    ]
    assert told(events) == ["install another-and-longer 1.0-1", "install next 1.0-1"]


@pytest.mark.slow
def test_slow_mesh(home: Path) -> None:
    """While the mesh hangs nothing is lost: it goes to the spool."""
    log = home / "pacman.log"
    log.write_text("")
    with standing_in(home, hang=True), producer(home, *off(home, pacman=log)):
        with log.open("a") as file:
            file.write("".join(installed(f"p-{n}") for n in range(3)))
        expected = [f"install p-{n} 1.0-1" for n in range(3)]
        # looked at while it runs: a write that SIGTERM meets is taken back, and made again later
        until(lambda: told(spooled(home)) == expected)


def test_light(home: Path, agent: StandInAgent) -> None:
    """At rest it needs less than 30 MB, and no time."""
    log = home / "pacman.log"
    log.write_text(installed("a") * 100)
    options = dict(pair.split("=", 1) for pair in off(home, pacman=log))
    memory, cpu = idle("packages", options, home)
    assert memory < 30
    assert cpu < 0.5
