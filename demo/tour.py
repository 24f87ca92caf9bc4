"""`make demo`: a tour on real input, in a mesh of its own that is gone afterwards.

Every step says what it proves, does it with the commands that you would type, and checks the
result: the tour ends with exit code 1 at the first thing that is not so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPSMESH = str(Path(sys.executable).with_name("opsmesh"))
#: Seconds that anything may take before the tour gives up.
PATIENCE = 30.0

PROFILES = """\
profiles:
  first-aid:
    description: keep what is needed to understand a failing test
    on: python.test.failed
    actions:
      - id: bundle
        collect:
          - {name: git, command: [git, -C, "${{ event.workspace }}", status, --short]}
          - {name: tests, file: "${{ event.payload.path }}"}
      - command: [echo, "look at ${{ event.payload.nodeid }}"]
  fragile:
    description: fails until somebody mends it
    on: demo.deploy.requested
    retry: {attempts: 3, initial: 300ms, jitter: 0}
    actions:
      - command: [cat, "{flag}"]
"""

TEST = """\
def test_sum():
    assert 1 + 1 == 3
"""


class Tour:
    """The mesh of this tour, and the commands run in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.number = 0
        folders = {
            "XDG_CONFIG_HOME": home / "config",
            "XDG_STATE_HOME": home / "state",
            "XDG_RUNTIME_DIR": home / "run",
        }
        for folder in folders.values():
            folder.mkdir(mode=0o700)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("OPSMESH_")}
        self.env |= {name: str(folder) for name, folder in folders.items()}
        self.flag = home / "mended"
        config = home / "config" / "opsmesh"
        config.mkdir()
        (config / "profiles.yaml").write_text(PROFILES.replace("{flag}", str(self.flag)))
        self.project = home / "project"
        self.project.mkdir()
        (self.project / "test_sums.py").write_text(TEST)
        subprocess.run(["git", "init", "-q", str(self.project)], check=False)

    def step(self, title: str, proves: str) -> None:
        """Begin the next stop of the tour."""
        self.number += 1
        print(f"\n\033[1m{self.number}. {title}\033[0m\n   \033[2m{proves}\033[0m")

    def run(self, *argv: str, shown: bool = True, cwd: Path | None = None) -> str:
        """Type `opsmesh …`; its standard output."""
        if shown:
            print(f"   \033[36m$ opsmesh {' '.join(argv)}\033[0m")
        done = subprocess.run(
            [OPSMESH, *argv], env=self.env, cwd=cwd, capture_output=True, text=True, check=False
        )
        if shown:
            for line in (done.stdout + done.stderr).splitlines()[-12:]:
                print(f"   {line}")
        self.code = done.returncode
        return done.stdout

    def read(self, *argv: str) -> Any:
        """What a command says with --json."""
        return json.loads(self.run(*argv, "--json", shown=False) or "null")

    def events(self, topic: str) -> list[dict[str, Any]]:
        """Every stored event of a topic."""
        argv = ("tail", "--no-follow", "--since", "1h", "-t", topic, "--json")
        return [json.loads(line) for line in self.run(*argv, shown=False).splitlines()]

    def archived_events(self, topic: str) -> list[str]:
        """Events of a topic in the archive: readable while the broker hangs."""
        folder = self.home / "state" / "opsmesh" / "evidence"
        marker = f'"topic":"{topic}"'
        return [
            line
            for segment in folder.rglob("*.jsonl")
            for line in segment.read_text().splitlines()
            if marker in line
        ]

    def archived(self) -> int:
        """Lines in the archive."""
        folder = self.home / "state" / "opsmesh" / "evidence"
        return sum(len(segment.read_text().splitlines()) for segment in folder.rglob("*.jsonl"))

    def wait(self, what: str, condition: Callable[[], Any]) -> Any:
        """The condition's first true value."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.1)
        raise Untrue(f"not so within {PATIENCE:g} s: {what}")

    def pid(self, name: str) -> int:
        """The process id of a component."""
        found = [c["pid"] for c in self.read("status")["components"] if c["name"] == name]
        return int(found[0])


class Untrue(Exception):
    """Something that the tour promised did not happen."""


def check(what: str, holds: bool) -> None:
    """Say what has been proved."""
    if not holds:
        raise Untrue(what)
    print(f"   \033[32m✓\033[0m {what}")


def failing_test(tour: Tour) -> None:
    tour.step(
        "A test fails in some project",
        "a real pytest run becomes an event, the event runs a profile, the profile keeps evidence",
    )
    tour.run("exec", "--", sys.executable, "-m", "pytest", "-q", "--no-header", cwd=tour.project)
    (done,) = tour.wait("the profile ran", lambda: tour.events("automation.run.succeeded"))
    bundle = Path(done["evidence_path"])
    tour.run("trace", done["correlation_id"])
    manifest = json.loads((bundle / "manifest.json").read_text())
    names = sorted(file["name"] for file in manifest["files"])
    check(f"an evidence bundle holds {', '.join(names)}, each with its SHA-256", len(names) >= 3)


def dead_letter(tour: Tour) -> None:
    tour.step(
        "A profile keeps failing",
        "it is tried again with growing delays, then waits in the DLQ until it is mended",
    )
    tour.run("emit", "demo.deploy.requested", "target=staging")
    tour.wait("the event is a dead letter", lambda: tour.read("dlq", "ls"))
    delays = [
        event["payload"]["next_attempt_in_s"] for event in tour.events("automation.run.failed")
    ]
    tour.run("dlq", "ls")
    check(f"attempts were {' s and '.join(map(str, delays))} s apart", delays == [0.3, 0.6])
    tour.flag.write_text("mended\n")
    print(f"   \033[36m$ echo mended > {tour.flag.name}\033[0m")
    tour.run("dlq", "retry", "--all", "--yes")
    tour.wait("the redriven run succeeded", lambda: len(tour.events("automation.run.*")) >= 5)
    check("mended and redriven, it succeeded, and the DLQ is empty", not tour.read("dlq", "ls"))


def broker_away(tour: Tour) -> None:
    tour.step(
        "The broker hangs, then dies",
        "nothing waits for it, and nothing is lost",
    )
    broker = tour.pid("broker")
    os.kill(broker, signal.SIGSTOP)
    print("   \033[36m$ kill -STOP <broker>\033[0m")
    ids = [tour.run("emit", "demo.step.done", f"n={n}", shown=False).strip() for n in range(10)]
    tests_before = len(tour.archived_events("python.test.failed"))
    tour.run("exec", "--", sys.executable, "-m", "pytest", "-q", shown=False, cwd=tour.project)
    print(f"   10 events emitted and pytest run meanwhile; pytest's own exit code: {tour.code}")
    os.kill(broker, signal.SIGKILL)
    print("   \033[36m$ kill -KILL <broker>\033[0m")
    tour.wait("the supervisor restarted it", lambda: tour.read("status")["verdict"] == "ok")

    def all_there() -> bool:
        found = [event["id"] for event in tour.events("demo.step.done")]
        tests = len(tour.events("python.test.failed"))
        return sorted(found) == sorted(ids) and tests == tests_before + 1

    tour.wait("every event arrived", all_there)
    check("all 10 events and the test's failure are in the stream, each once", True)


def evidence(tour: Tour) -> None:
    tour.step(
        "Somebody edits the evidence",
        "one byte in the archive is changed, and verify names the line",
    )
    last = len(tour.run("tail", "--no-follow", "--since", "1h", "--json", shown=False).splitlines())
    tour.wait("the sink has everything", lambda: tour.archived() >= last)
    tour.run("evidence", "verify")
    check("the archive is whole", tour.code == 0)
    segment = min((tour.home / "state" / "opsmesh" / "evidence").rglob("*.jsonl"))
    kept = segment.read_bytes()
    segment.write_bytes(kept.replace(b"target", b"targeT", 1))
    tour.run("evidence", "verify")
    check("the changed line is named", tour.code == 1)
    segment.write_bytes(kept)


def dry_run(tour: Tour) -> None:
    tour.step(
        "What would have happened?",
        "the last minute again, decided by the same function, with nothing done",
    )
    runs = len(tour.read("run", "ls"))
    tour.run("replay", "--since", "2m", "--dry-run")
    check("no run was started by it", len(tour.read("run", "ls")) == runs)


def main() -> int:
    """The whole tour; 1 when something was not as promised."""
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="opsmesh-tour-"))
    tour = Tour(home)
    try:
        tour.step("A mesh of its own", "broker, agent, handlers and sink, as separate processes")
        tour.run("up", "--detach")
        check("everything runs", tour.code == 0)
        for stop in (failing_test, dead_letter, broker_away, evidence, dry_run):
            stop(tour)
    except Untrue as error:
        print(f"\n\033[31m✗ {error}\033[0m\n  the mesh's files: {home}")
        home = Path(os.devnull)
        return 1
    finally:
        tour.run("down", shown=False)
        if home.is_dir():
            shutil.rmtree(home, ignore_errors=True)
    print(f"\n\033[32mall of it in {time.monotonic() - began:.0f} s.\033[0m Yours: make up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
