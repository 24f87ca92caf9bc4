"""Handler processes that are killed, stopped or cut off in the middle of a run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, run
from tests.handlers.dying import PLACES
from tests.handlers.handlers_process import handlers, owner_of
from tests.handlers.mesh import write_profiles
from tests.handlers.test_owner import failure

from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.procfs import proc
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import paths
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import Event, decode, encode, subject

CHOICES = ("retry", "skip", "fail", "ask")


async def publish(client: Client, settings: Settings) -> Event:
    """One event that every profile here listens to."""
    event = failure(settings, "a.service")
    headers = {"Nats-Msg-Id": event.id}
    name = subject(event.host, event.topic)
    await client.jetstream().publish(name, encode(event), headers=headers)
    return event


async def told(client: Client, topic: str) -> list[Event]:
    """Every event of a topic."""
    return [decode(m.data) async for m in scan(client, EVENTS, subjects=[f"evt.*.{topic}"])]


async def runs(client: Client, count: int) -> dict[str, Run]:
    """All runs by their profiles, once `count` of them have ended or wait for an answer."""

    async def there() -> dict[str, Run]:
        found = {run.profile: run async for run in Ledger(client).runs()}
        over = [run for run in found.values() if run.finished or run.state == "waiting"]
        return found if len(over) == count else {}

    found = await eventually(there)
    assert isinstance(found, dict)
    return found


def dying(place: str, count: int) -> subprocess.Popen[bytes]:
    """Handlers that kill themselves when `count` runs have come to a place."""
    argv = [sys.executable, "-m", "tests.handlers.dying", place, str(count)]
    return subprocess.Popen(argv)


def four(steps: str) -> str:
    """The same steps under each `on_unknown`; $0 is the profile's file."""
    return "profiles:\n" + "".join(
        f"  {choice}:\n    on: service.start.failed\n    retry: {{initial: 10ms, jitter: 0}}\n"
        f"    actions:\n" + steps.format(choice=choice)
        for choice in CHOICES
    )


TWO_STEPS = """\
      - {{id: first, on_unknown: {choice}, command: [sh, -c, "echo first >> $0", OUT-{choice}]}}
      - {{id: second, on_unknown: {choice}, command: [sh, -c, "echo second >> $0", OUT-{choice}]}}
"""

#: Places that every change has to pass; the rest are in `make test-all`.
FAST = ("after the intent", "after the end")
ONCE = ["first", "second"]
#: What each profile has done in the end, by the place at which its handler was killed.
AFTER: dict[str, dict[str, tuple[str, list[str]]]] = {
    # nothing was on record: decided again, done once
    "before the intent": dict.fromkeys(CHOICES, ("succeeded", ONCE)),
    # on record as started, and not done: unknown is what nobody knows
    "after the intent": {
        "retry": ("succeeded", ONCE),
        "skip": ("succeeded", ["second"]),
        "fail": ("deadlettered", []),
        "ask": ("waiting", []),
    },
    # done, and not on record as done
    "before the second step": {
        "retry": ("succeeded", ["first", "first", "second"]),
        "skip": ("succeeded", ONCE),
        "fail": ("deadlettered", ["first"]),
        "ask": ("waiting", ["first"]),
    },
    "after the second step has been noted": {
        "retry": ("succeeded", ONCE),
        "skip": ("succeeded", ["first"]),
        "fail": ("deadlettered", ["first"]),
        "ask": ("waiting", ["first"]),
    },
    "before the end": {
        "retry": ("succeeded", [*ONCE, "second"]),
        "skip": ("succeeded", ONCE),
        "fail": ("deadlettered", ONCE),
        "ask": ("waiting", ONCE),
    },
    "after the end": dict.fromkeys(CHOICES, ("succeeded", ONCE)),
    "after the result event": dict.fromkeys(CHOICES, ("succeeded", ONCE)),
}


@pytest.mark.parametrize(
    "place",
    [pytest.param(one, marks=() if one in FAST else pytest.mark.slow) for one in PLACES],
)
def test_killed_between_two_writes(nats_server: EmbeddedServer, tmp_path: Path, place: str) -> None:
    """Wherever between two writes of the ledger a handler is killed, each run ends as documented
    for its `on_unknown`: done once, or unknown and told so; and its result is told once."""
    out, settings = tmp_path / "out", Settings()
    write_profiles(four(TWO_STEPS.replace("OUT", str(out))))

    async def body() -> None:
        async with mesh_client(settings) as client:
            victim = dying(place, 4)
            for choice in CHOICES:
                await owner_of(client, f"profile-{choice}-on-{settings.host}")
            await publish(client, settings)
            await asyncio.to_thread(victim.wait, 60)
            assert victim.returncode == -signal.SIGKILL
            with handlers(tmp_path / "logs") as processes:
                processes.start()
                found = await runs(client, 4)
                for choice, (state, did) in AFTER[place].items():
                    path = Path(f"{out}-{choice}")
                    lines = path.read_text().split() if path.exists() else []
                    assert (choice, found[choice].state, lines) == (choice, state, did)
                succeeded = [one for one in found.values() if one.state == "succeeded"]

                async def all_told() -> bool:
                    results = await told(client, "automation.run.succeeded")
                    return len(results) == len(succeeded) == len({e.run_id for e in results})

                await eventually(all_told)
                known = place in ("before the intent", "after the end", "after the result event")
                unknown = await told(client, "automation.step.unknown")
                assert len(unknown) == (0 if known else 4)

    run(body(), timeout=120)


def test_killed_by_its_own_step(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A command that has its effect and kills its handler leaves `unknown`: it is not run again
    under skip, fail and ask, and what the dead handler's programs still do is ended first."""
    out, settings = tmp_path / "out", Settings()
    here = " && ".join(f"[ -s {out}-{choice} ]" for choice in CHOICES)
    # The first time it goes on for a minute after its handler is gone. Who kills a handler that is
    # gone already must not say so: nobody reads it any more, and SIGPIPE would end it.
    script = (
        f"echo $$ >> $0; [ $(wc -l < $0) = 1 ] || exit 0; until {here}; do sleep 0.05; done; "
        "kill -9 $PPID 2> /dev/null; trap '' TERM; sleep 60; echo late >> $0"
    )
    (tmp_path / "step.sh").write_text(script)
    step = (
        "      - {{id: only, on_unknown: {choice}, "
        f"command: [sh, -c, '. {tmp_path}/step.sh', {out}-{{choice}}]}}}}\n"
    )
    write_profiles(four(step))

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                pid = processes.start()
                for choice in CHOICES:
                    await owner_of(client, f"profile-{choice}-on-{settings.host}")
                await publish(client, settings)
                await eventually(lambda: processes.ended(pid))
                left = [int(Path(f"{out}-{choice}").read_text()) for choice in CHOICES]
                assert all(proc(one) for one in left)
                processes.start()
                found = await runs(client, 4)
                states = [found[choice].state for choice in CHOICES]
                assert states == ["succeeded", "succeeded", "deadlettered", "waiting"]
                assert not any(proc(one) for one in left)
                counts = [len(Path(f"{out}-{c}").read_text().split()) for c in CHOICES]
                assert counts == [2, 1, 1, 1]

    run(body(), timeout=120)


#: Notes when it begins, when it ends, and when it is not alone.
ALONE = """
exec 9> LOCK
flock -n 9 || echo overlap >> OUT
echo begin >> OUT
until [ -e GO ]; do sleep 0.05; done
echo end >> OUT
"""


def one(tmp_path: Path, choice: str) -> str:
    """A profile whose step is long, and can tell whether it is alone."""
    script = ALONE.replace("OUT", str(tmp_path / "out")).replace("GO", str(tmp_path / "go"))
    (tmp_path / "step.sh").write_text(script.replace("LOCK", str(tmp_path / "lock")))
    return f"""
profiles:
  bursts:
    on: service.start.failed
    actions:
      - {{id: long, on_unknown: {choice}, command: [sh, {tmp_path / "step.sh"}]}}
"""


def lines(tmp_path: Path) -> list[str]:
    """What the step has noted."""
    path = tmp_path / "out"
    return path.read_text().split() if path.exists() else []


async def stopped_in_its_step(
    client: Client, settings: Settings, processes: Any, tmp_path: Path
) -> tuple[int, int]:
    """Two handlers, of which the owner is stopped while its step is under way: their pids."""
    pids = {processes.start(), processes.start()}
    owner = await owner_of(client, consumer(settings))
    await publish(client, settings)
    await eventually(lambda: lines(tmp_path) == ["begin"])
    processes.pause(owner["pid"])
    (other,) = pids - {owner["pid"]}
    return owner["pid"], other


def consumer(settings: Settings) -> str:
    """The consumer of the profile here."""
    profile = load_profiles(Path(paths.config_dir())).profiles["bursts"]
    return consumer_name(profile, settings.host)


@pytest.mark.slow
def test_stopped_and_gone_on(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that is stopped (SIGSTOP) while its program goes on is replaced when its lease is
    over: the program is ended before the step is run again, so that two never run at once; and when
    the holder wakes up it writes and tells nothing."""
    monkeypatch.setenv("OPSMESH_RUNS__LEASE", "2s")
    settings = Settings()
    write_profiles(one(tmp_path, "retry"))

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                first, _ = await stopped_in_its_step(client, settings, processes, tmp_path)
                await eventually(lambda: lines(tmp_path) == ["begin", "begin"])
                (found,) = [one async for one in Ledger(client).runs()]
                assert found.holder is not None
                assert (found.attempt, found.holder.pid != first) == (2, True)
                assert "did not renew its lease" in found.errors[0].error
                processes.go_on(first)
                await eventually(lambda: "profile.fenced" in processes.said())
                (tmp_path / "go").touch()
                (found,) = (await runs(client, 1)).values()
                assert (found.state, found.attempt) == ("succeeded", 2)
                assert lines(tmp_path) == ["begin", "begin", "end"]
                (result,) = await eventually(lambda: told(client, "automation.run.succeeded"))
                assert result.attempt == 2
                (unknown,) = await told(client, "automation.step.unknown")
                assert unknown.payload["pid"] == first

    run(body(), timeout=120)


@pytest.mark.slow
def test_done_while_its_handler_slept(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends well while its handler is stopped is unknown to the successor, and is not
    run again under `skip`; the handler that wakes up and knows better is refused."""
    monkeypatch.setenv("OPSMESH_RUNS__LEASE", "2s")
    settings = Settings()
    write_profiles(one(tmp_path, "skip"))

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                first, _ = await stopped_in_its_step(client, settings, processes, tmp_path)
                (tmp_path / "go").touch()
                (found,) = (await runs(client, 1)).values()
                assert [step.state for step in found.steps] == ["skipped"]
                processes.go_on(first)
                await eventually(lambda: "profile.fenced" in processes.said())
                assert [one async for one in Ledger(client).runs()] == [found]
                assert lines(tmp_path) == ["begin", "end"]
                assert len(await told(client, "automation.run.succeeded")) == 1

    run(body(), timeout=120)


@pytest.mark.slow
def test_cut_off_from_the_broker(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that cannot reach the broker ends its step before its lease is over."""
    monkeypatch.setenv("OPSMESH_RUNS__LEASE", "4s")
    settings = Settings()
    write_profiles(one(tmp_path, "skip"))

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                processes.start()
                await owner_of(client, consumer(settings))
                await publish(client, settings)
                await eventually(lambda: lines(tmp_path) == ["begin"])
                broker = pid_of(nats_server)
                os.kill(broker, signal.SIGSTOP)
                cut = time.monotonic()
                try:
                    await eventually(lambda: alone(tmp_path / "lock"))
                    assert 1 < time.monotonic() - cut < 4 + 0.5
                finally:
                    os.kill(broker, signal.SIGCONT)
                (found,) = (await runs(client, 1)).values()
                assert [step.state for step in found.steps] == ["skipped"]
                assert lines(tmp_path) == ["begin"]

    run(body(), timeout=120)


@pytest.mark.slow
def test_a_long_step_keeps_its_lease(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that takes several leases is left alone, by its handler and by the one beside it."""
    monkeypatch.setenv("OPSMESH_RUNS__LEASE", "1s")
    settings = Settings()
    write_profiles(one(tmp_path, "retry"))

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                processes.start()
                processes.start()
                await owner_of(client, consumer(settings))
                await publish(client, settings)
                await eventually(lambda: lines(tmp_path) == ["begin"])
                began = time.monotonic()

                async def kept() -> bool:
                    (found,) = [one async for one in Ledger(client).runs()]
                    assert found.attempt == 1
                    return time.monotonic() - began > 3

                await eventually(kept)
                (tmp_path / "go").touch()
                (found,) = (await runs(client, 1)).values()
                assert (found.state, found.attempt) == ("succeeded", 1)
                assert lines(tmp_path) == ["begin", "end"]

    run(body(), timeout=120)


@pytest.mark.slow
def test_stopped_for_good_gives_its_run_back(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Handlers that are told to end while a step is under way give it a few seconds, end it, and
    say in the ledger that its outcome is unknown: nobody waits for their lease."""
    settings = Settings()
    write_profiles(one(tmp_path, "ask"))

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                pid = processes.start()
                await owner_of(client, consumer(settings))
                await publish(client, settings)
                await eventually(lambda: lines(tmp_path) == ["begin"])
                await asyncio.to_thread(processes.stop, pid)
                assert alone(tmp_path / "lock")
                (found,) = [one async for one in Ledger(client).runs()]
                assert (found.holder, found.steps[0].state) == (None, "unknown")
                processes.start()
                (found,) = (await runs(client, 1)).values()
                assert found.state == "waiting"

    run(body(), timeout=120)


def pid_of(broker: EmbeddedServer) -> int:
    """The pid of the test's broker."""
    process = broker.process
    assert process is not None
    return process.pid


def alone(lock: Path) -> bool:
    """Whether nobody holds the step's lock."""
    done = subprocess.run(["flock", "-n", lock, "true"], check=False)
    return done.returncode == 0
