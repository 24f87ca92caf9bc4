"""What is known to be vulnerable: the real debsecan on data of our own, arch-audit's real answers,
and stand-ins for tools that fail, hang or mean harm."""

from __future__ import annotations

import json
import random
import select
import shutil
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.producers import managers
from tests.producers.agent import StandInAgent, until
from tests.producers.packaged import off, producer
from tests.producers.strokes import put

from opsmesh.producers.packages import advisories, versions
from opsmesh.producers.packages.audit import Audit, AuditError, installed
from opsmesh.schemas.registry import load_registry

DATA = Path(__file__).parent / "data/packages"


class Debian:
    """Debsecan's data (its `fetch_data` says how they are read) and a dpkg status, in `folder`."""

    def __init__(self, folder: Path) -> None:
        managers.need("debsecan")
        self.folder = folder
        folder.mkdir()
        self.options = f"--source file://{folder} --suite bookworm --status {folder}/status"

    def knows(self, *lines: str) -> None:
        """Issues: `ID,PACKAGE,FLAGS,UNSTABLE,BRANCHES`; flags: type, urgency, remote, fix."""
        split = [line.split(",", 1) for line in lines]
        names = "".join(f"{name},,about {name}\n" for name, _ in split)
        found = ""
        for number, (_, rest) in enumerate(split):
            package, more = rest.split(",", 1)
            found += f"{package},{number},{more}\n"
        text = f"VERSION 1\n{names}\n{found}\n\n"
        self.holds(zlib.compress(text.encode()))

    def holds(self, data: bytes) -> None:
        """The bytes of debsecan's data."""
        put(self.folder / "bookworm", data)

    def has(self, version: str) -> None:
        """The version of libfoo that is installed."""
        text = f"Package: libfoo\nStatus: install ok installed\nVersion: {version}\n"
        put(self.folder / "status", text)


def test_real_debsecan(home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issue is told when it is new, and again when it can be mended or the version is another;
    one that is the same still is not; debsecan failing is not taken for clean."""
    debian = Debian(home / "tracker")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # an arch-audit elsewhere would be asked first
    debian.has("1.0-1")
    debian.knows(
        "CVE-2026-1,libfoo,SHR ,,", "CVE-2026-2,libfoo,SL F,2.0-1,0.9-1+deb11u1 1.0-1+deb12u1"
    )
    log = home / "packages.log"
    with producer(home, *off(home), f"vuln_options={debian.options}", "vuln_every=200ms"):
        agent.wait_for(lambda events: len(events) == 2)
        debian.knows("CVE-2026-1,libfoo,SHRF,1.2-1,", "CVE-2026-2,libfoo,SL F,2.0-1,1.0-1+deb12u1")
        agent.wait_for(lambda events: len(events) == 3)
        whole = (debian.folder / "bookworm").read_bytes()
        debian.holds(whole[:40])
        until(lambda: "does not mean clean" in log.read_text())
        debian.holds(whole)
        debian.has("1.1-1")
        events = agent.wait_for(lambda events: len(events) == 5)
    short = [
        (p["vuln_id"], p["version"], p["fixed"], p.get("fix_version"))
        for p in (event["payload"] for event in events)
    ]
    assert short == [
        ("CVE-2026-1", "1.0-1", False, None),
        ("CVE-2026-2", "1.0-1", True, "1.0-1+deb12u1"),
        ("CVE-2026-1", "1.0-1", True, "1.2-1"),
        ("CVE-2026-1", "1.1-1", True, "1.2-1"),
        ("CVE-2026-2", "1.1-1", True, "2.0-1"),
    ]
    assert events[0]["payload"] == {
        "manager": "apt",
        "package": "libfoo",
        "version": "1.0-1",
        "vuln_id": "CVE-2026-1",
        "severity": "high",
        "fixed": False,
        "summary": "about CVE-2026-1",
        "remote": True,
        "url": "https://security-tracker.debian.org/tracker/CVE-2026-1",
    }
    assert "zlib" in log.read_text()


def answer(name: str, options: Sequence[str] = ()) -> advisories.Found:
    """What a tool says."""
    audit = Audit(name, options)
    try:
        while True:
            select.select([audit], [], [], 20)
            if (found := audit.read()) is not None:
                return found
    finally:
        audit.close()


def test_what_arch_audit_answered() -> None:
    """A real answer of arch-audit 0.1.20: one vulnerability for each package and advisory, each
    with its own severity, and with the version that is installed."""
    output = (DATA / "arch-audit.json").read_text()
    found = advisories.of_arch_audit(output, {"hello": "1.0-1", "world": "0.1-1"})
    assert found.odd == 0
    assert [one.payload() for one in found.vulnerabilities] == EXPECTED
    for one in found.vulnerabilities:
        load_registry().check("package.vuln.detected", one.payload())


def advisory(name: str, package: str, version: str, **facts: Any) -> dict[str, Any]:
    return {
        "manager": "pacman",
        "package": package,
        "version": version,
        "vuln_id": name,
        "url": f"https://security.archlinux.org/{name}",
        **facts,
    }


MENDED = {"severity": "High", "fixed": True, "fix_version": "1.2-1", "status": "Fixed"}
OPEN = {"severity": "Low", "fixed": False, "status": "Vulnerable"}
ONE = {"issues": ["CVE-2026-1", "CVE-2026-2"], "summary": "arbitrary code execution"}
TWO = {"issues": ["CVE-2026-3"], "summary": "denial of service"}
EXPECTED = [
    advisory("AVG-1", "hello", "1.0-1", **MENDED, **ONE),
    advisory("AVG-2", "hello", "1.0-1", **OPEN, **TWO),
    advisory("AVG-2", "world", "0.1-1", **OPEN, **TWO),
]


def test_real_arch_audit(tmp_path: Path) -> None:
    """The real arch-audit, on packages that a real pacman installed (opt-in: no Debian package)."""
    if shutil.which("arch-audit") is None:
        pytest.skip("arch-audit is not on PATH (cargo install arch-audit; it needs libalpm)")
    managers.need("pacman", "bsdtar", "repo-add")
    pacman = managers.Pacman(tmp_path / "arch")
    pacman.package("hello", "1.0-1")
    pacman.package("world", "0.1-1")
    pacman("-Sy", "hello", "world")
    database = tmp_path / "arch/root/var/lib/pacman"
    found = answer("arch-audit", ["--dbpath", str(database), "--source", str(DATA / "all.json")])
    assert [one.payload() for one in found.vulnerabilities] == EXPECTED


def test_versions_of_pacmans_database(tmp_path: Path) -> None:
    """Names and versions are the folders of pacman's database; what is no such folder is passed."""
    for name in ("hello-1.0-1", "a-b-c-2:1.0.r5-3", "odd"):
        (tmp_path / "local" / name).mkdir(parents=True)
    (tmp_path / "local/ALPM_DB_VERSION").write_text("9")
    assert installed(tmp_path) == {"hello": "1.0-1", "a-b-c": "2:1.0.r5-3"}


def tool(home: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a tool."""
    folder = home / "tools"
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_tool_that_hangs_keeps_no_transaction_waiting(
    home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the tool hangs, transactions are told; the tool ends with the producer."""
    pid, log = home / "pid", home / "pacman.log"
    tool(home, "debsecan", f"echo $$ > {pid}; echo half; exec sleep 1000", monkeypatch)
    with producer(home, *off(home, pacman=log), "vuln_every=1h"):
        until(lambda: pid.exists() and bool(pid.read_text()))
        now = "[2026-11-23T01:16:14+0000] [ALPM]"
        log.write_text(
            f"{now} transaction started\n{now} installed a (1-1)\n{now} transaction completed\n"
        )
        [event] = agent.wait_for(bool)
        assert (Path("/proc") / pid.read_text().strip()).exists()
    assert event["topic"] == "package.txn.completed"
    until(lambda: not (Path("/proc") / pid.read_text().strip()).exists())


def test_a_tool_that_takes_too_long(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the tool is ended, and has said nothing."""
    tool(home, "debsecan", "exec >&-; exec sleep 1000", monkeypatch)
    audit = Audit("debsecan", limit=0.2)
    select.select([audit], [], [], 20)
    with pytest.raises(AuditError, match="in time"):
        audit.read()
    audit.close()


def test_what_is_not_understood_is_not_mended(
    home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer with parts that are no advisory tells what it has, and makes nothing forgotten."""
    good = "CVE-2026-{n}\n  about\n  installed: foo 1\n             (built from foo 1)\n\n"
    tool(home, "debsecan", f"cat {home}/answer", monkeypatch)
    heard = home / "packages.log"
    put(home / "answer", good.format(n=1))
    with producer(home, *off(home), "vuln_every=50ms"):
        agent.wait_for(lambda events: len(events) == 1)
        put(home / "answer", "nonsense\n\n" + good.format(n=2))
        agent.wait_for(lambda events: len(events) == 2)
        until(lambda: "not understood" in heard.read_text())
        put(home / "answer", "".join(good.format(n=n) for n in (1, 2, 3)))
        events = agent.wait_for(lambda events: len(events) == 3)
    assert [event["payload"]["vuln_id"] for event in events] == [f"CVE-2026-{n}" for n in (1, 2, 3)]


def test_a_producer_that_is_killed_while_it_tells(
    home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had told already has the same id when its next life tells it again."""
    tool(home, "debsecan", f"cat {home}/answer", monkeypatch)
    (home / "answer").write_text(
        "".join(
            f"CVE-2026-{n}\n  about\n  installed: foo 1\n             (built from foo 1)\n\n"
            for n in range(300)
        )
    )
    agent.kills_at = 11  # by the agent: the rest would be told while this process is not looking
    with producer(home, *off(home), "vuln_every=1h") as process:
        process.wait(60)
    with producer(home, *off(home), "vuln_every=1h"):
        events = agent.wait_for(
            lambda events: len({event["payload"]["vuln_id"] for event in events}) == 300
        )
    assert len(events) > 300
    assert len({event["id"] for event in events}) == 300


def test_hostile_answers() -> None:
    """10,000 damaged answers raise nothing but ValueError, and every payload fits its topic."""
    chance = random.Random(7)
    arch = (DATA / "arch-audit.json").read_text()
    debian = (
        "CVE-2026-1 (fixed, high urgency)\n  installed: x 1\n  installed: foo 1.0-1\n"
        "             (built from foo 1.0-1)\n  fixed on branch:   foo 1.1-1 (source package)\n\n"
    )
    registry = load_registry()
    for turn in range(10_000):
        text = arch if turn % 2 else debian * 2
        cut = chance.randrange(len(text))
        junk = "".join(chance.choice('()[]{}":,\n null09\x00é') for _ in range(chance.randrange(4)))
        text = text[:cut] + junk + text[cut + chance.randrange(20) :]
        try:
            if turn % 2:
                found = advisories.of_arch_audit(text, {"hello": "1", "world": "2"})
            else:
                found = advisories.of_debsecan(text)
        except ValueError:
            continue
        for one in found.vulnerabilities:
            registry.check("package.vuln.detected", json.loads(json.dumps(one.payload())))


@pytest.mark.parametrize("seed", range(2))
def test_versions_are_compared_as_dpkg_does(seed: int) -> None:
    """Random versions stand in the order that the real dpkg says."""
    managers.need("dpkg")
    chance = random.Random(seed)

    def version() -> str:
        text = chance.choice("0123456789")
        text += "".join(chance.choice("0129aZ.+~") for _ in range(chance.randrange(5)))
        if chance.random() < 0.5:
            text += "-" + "".join(chance.choice("012a.+~") for _ in range(chance.randrange(1, 4)))
        return f"{chance.randrange(3)}:{text}" if chance.random() < 0.3 else text

    for _ in range(100):
        one = version()
        other = one + chance.choice(["~", "+b1", "0", "a"]) if chance.random() < 0.4 else version()
        is_older = subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False)
        assert (versions.key(one) < versions.key(other)) == (is_older.returncode == 0), (one, other)
