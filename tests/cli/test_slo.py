"""`opsmesh slo`: the same figures from the stream and from the archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.conftest import mesh_client, run
from tests.evidence.made import opened
from tests.handlers.mesh import write_profiles

from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, encode, subject

PROFILES = """
version: 1
profiles:
  steady:
    on: [a.b]
    slo: {success: 90%, latency_p50: 10ms, min_runs: 5, window: 1d}
    actions: [command: ["true"]]
  free: {on: [a.b], actions: [command: ["true"]]}
"""


def ended(n: int, *, good: bool, waited_ms: float = 2.0) -> Event:
    """What is told of a run's end."""
    topic = f"automation.run.{'succeeded' if good else 'deadlettered'}"
    payload: dict[str, Any] = {"profile": "steady", "waited_ms": waited_ms}
    if not good:
        payload["error"] = "exit code 1"
    id = ids.uuid7()
    return Event(
        topic=topic,
        ts_utc=times.format_us(times.now_us()),
        source="opsmesh",
        component="steady",
        severity="info",
        correlation_id=id,
        host=Settings().host,
        session_id="",
        workspace="",
        payload=payload,
        run_id=f"run-{n}",
        id=id,
    )


def store(events: list[Event]) -> None:
    async def body() -> None:
        async with mesh_client() as client:
            for event in events:
                data = encode(event)
                await client.jetstream().publish(subject(event.host, event.topic), data)

    run(body())


@pytest.mark.usefixtures("nats_server")
def test_how_profiles_stand(cli: Cli) -> None:
    """Each objective is a row with what is wanted and what there is; one that is missed is exit
    code 1."""
    write_profiles(PROFILES)
    store([ended(n, good=True) for n in range(9)])
    done = cli("slo")
    assert done.exit_code == 0, done.output
    assert "free" not in done.stdout
    [latency, success] = json.loads(cli("slo", "steady", "--json").stdout)
    assert (success["objective"], success["good"], success["verdict"]) == ("success", 1.0, "ok")
    assert (latency["value_ms"], latency["within_ms"]) == (2.0, 10.0)
    store([ended(n, good=False) for n in range(20, 24)])
    done = cli("slo")
    assert done.exit_code == 1
    line = next(line for line in done.stdout.splitlines() if "success" in line)
    assert line.split()[2:] == ["90%", "69.23%", "13", "4", "-207.7%", "3.08×", "breached"]


def test_from_evidence_alone(cli: Cli, home: Path) -> None:
    """Without a broker, the archive gives the same figures."""
    write_profiles(PROFILES)
    made = [encode(ended(n, good=n > 0)) for n in range(10)]
    now_us = times.now_us()
    with opened(Path(paths.evidence_dir())) as into:
        for seq, data in enumerate(made, start=1):
            into.event(seq, now_us - 1000 + seq, data)
        into.commit()
    rows = json.loads(cli("slo", "--evidence", "--json").stdout)
    assert [(row["runs"], row["bad"], row["verdict"]) for row in rows] == [
        (10, 0, "ok"),
        (10, 1, "ok"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("free",), 3, "profile free has no objectives"),
        (("stedy",), 3, "steady"),
        (("--window", "soon"), 2, "soon"),
    ],
)
def test_what_cannot_be_asked(cli: Cli, arguments: tuple[str, ...], code: int, said: str) -> None:
    """What is wrong is said, with the next step."""
    write_profiles(PROFILES)
    done = cli("slo", *arguments)
    assert done.exit_code == code
    assert said in done.output


def test_no_objectives_at_all(cli: Cli) -> None:
    """That nobody wants anything is no error, and says how to want something."""
    write_profiles("version: 1\nprofiles: {}\n")
    done = cli("slo", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])
    assert "slo: {success: 99%" in done.stderr
