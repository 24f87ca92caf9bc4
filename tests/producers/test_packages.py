"""The packages producer beside real package managers, and against logs that mean harm."""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.producers import managers
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle

from opsmesh.producers.packages.apt import Apt
from opsmesh.producers.packages.pacman import Pacman
from opsmesh.producers.packages.transaction import Parser
from opsmesh.schemas.registry import load_registry

DATA = Path(__file__).parent / "data/packages"
STARTED = "[2026-11-23T01:16:14+0000] [ALPM] transaction started"
COMPLETED = "[2026-11-23T01:16:15+0000] [ALPM] transaction completed"


def installed(name: str) -> str:
    """A whole transaction in pacman's log."""
    line = f"[2026-11-23T01:16:14+0000] [ALPM] installed {name} (1.0-1)"
    return "\n".join([STARTED, line, COMPLETED]) + "\n"


def transactions(parser: Parser, text: str) -> list[dict[str, Any]]:
    """What a log's text tells."""
    found = (parser.feed(line) for line in text.splitlines())
    return [one.payload() for one in found if one is not None]


@contextmanager
def producer(home: Path, *pairs: str) -> Iterator[subprocess.Popen[bytes]]:
    """The producer in a process of its own, once it watches."""
    options = [word for pair in pairs for word in ("-o", pair)]
    argv = [sys.executable, "-P", "-m", "opsmesh.producers.host", "packages", *options]
    log = home / "packages.log"
    memory = home / "state/opsmesh/producers/packages/memory.json"
    with log.open("ab") as file:
        process = subprocess.Popen(argv, stderr=file)
    try:
        until(memory.exists)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def off(home: Path, **logs: Path) -> list[str]:
    """Options: these logs and no others, and no audit."""
    known = {"pacman": home / "none/pacman.log", "apt": home / "none/history.log", **logs}
    return ["vuln_every=0", *(f"{name}_log={path}" for name, path in known.items())]


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
        "Start-Date: 2026-11-23  01:24:57\nCommandline: apt upgrade\n"
        "Install: a:amd64 (1, automatic), b:all (2)\nUpgrade: c:amd64 (1:1-1, 1:2-1)\n"
        "Downgrade: d:amd64 (2, 1)\nReinstall: e:amd64 (3)\nPurge: f:amd64 (4)\n"
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
    ]
    assert found[0]["outcome"] == "failed"


def test_pacman_that_died() -> None:
    """A transaction without an end is told as cut once the next one begins."""
    text = installed("a").replace(COMPLETED + "\n", "") + installed("b")
    assert [one["outcome"] for one in transactions(Pacman(), text)] == ["cut", "completed"]


def test_scriptlets_tell_nothing() -> None:
    """What a package's own script writes into the log is not believed."""
    line = "[2026-11-23T01:16:14+0000] [ALPM-SCRIPTLET] "
    text = "\n".join(line + words for words in ("transaction started", "installed x (1)"))
    assert transactions(Pacman(), text) == []


@pytest.mark.parametrize("parser", [Pacman, Apt])
def test_hostile_lines(parser: type[Parser]) -> None:
    """10,000 damaged lines neither stop a parser nor make a payload that does not fit its topic."""
    chance = random.Random(5)
    lines = (DATA / "pacman.log").read_text().splitlines()
    lines += (DATA / "history.log").read_text().splitlines()
    made = parser()
    registry = load_registry()
    for _ in range(10_000):
        line = chance.choice(lines)
        cut = chance.randrange(len(line) + 1)
        junk = "".join(chance.choice("()[]>- ,:'\x00é9") for _ in range(chance.randrange(4)))
        if (found := made.feed(line[:cut] + junk + line[cut + chance.randrange(2) :])) is not None:
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
    """A log that was replaced while nobody looked is told as a gap, and then read."""
    log = home / "pacman.log"
    log.write_text(installed("one"))
    with producer(home, *off(home, pacman=log)):
        pass
    log.write_text(installed("another-and-longer") * 2)
    with producer(home, *off(home, pacman=log)):
        events = agent.wait_for(lambda events: len(events) >= 2)
    assert [event["topic"] for event in events] == ["mesh.gap.detected", "package.txn.completed"]


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


DEBSECAN = """\
#!/bin/sh
test -e {home}/fails && {{ echo 'error: while downloading' >&2; exit 1; }}
cat {home}/answer
"""


def test_vulnerabilities_are_told_once(
    home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An advisory is told when it is new; a tool that fails is not taken for clean. The tool here
    is a stand-in that answers as debsecan's summary does."""
    tools = home / "tools"
    tools.mkdir()
    (tools / "debsecan").write_text(DEBSECAN.format(home=home))
    (tools / "dpkg-query").write_text("#!/bin/sh\necho 'libfoo 1.0-1'\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    one, two = "CVE-2026-1 libfoo (fixed, high urgency)\n", "CVE-2026-2 libfoo (fixed)\nnonsense\n"
    options = [*off(home), "vuln_every=500ms"]
    (home / "answer").write_text(one)
    with producer(home, *options):
        agent.wait_for(lambda events: len(events) == 1)
        (home / "fails").touch()
        until(lambda: "does not mean clean" in (home / "packages.log").read_text())
        (home / "answer").write_text(one + two)
        (home / "fails").unlink()
        events = agent.wait_for(lambda events: len(events) >= 2)
    assert [event["payload"]["vuln_id"] for event in events] == ["CVE-2026-1", "CVE-2026-2"]
    assert events[0]["payload"] == {
        "manager": "apt",
        "package": "libfoo",
        "version": "1.0-1",
        "vuln_id": "CVE-2026-1",
        "severity": "high",
        "fixed": True,
        "url": "https://security-tracker.debian.org/tracker/CVE-2026-1",
    }


def test_light(home: Path, agent: StandInAgent) -> None:
    """At rest it needs less than 30 MB, and no time."""
    log = home / "pacman.log"
    log.write_text(installed("a") * 100)
    options = dict(pair.split("=", 1) for pair in off(home, pacman=log))
    memory, cpu = idle("packages", options, home)
    assert memory < 30
    assert cpu < 0.5
