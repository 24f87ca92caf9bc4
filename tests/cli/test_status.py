"""`opsmesh status`: verdict, problems with their fixes, exit codes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.cli.conftest import Cli, wait
from tests.conftest import mesh_client, run

from opsmesh.router import connection, paths, spool, supervisor_state, topology
from opsmesh.router.settings import Settings


def create_streams() -> None:
    """What the agent does when it starts."""

    async def create() -> None:
        async with mesh_client():
            pass

    run(create())


def problems(cli: Cli) -> str:
    """Every problem and fix that `status --json` names."""
    found = json.loads(cli("status", "--json").stdout)
    return "\n".join(f"{p['what']} -> {p['fix']}" for p in found["problems"])


def test_nothing_running_is_down(cli: Cli) -> None:
    """Without a mesh the verdict is down, the exit code 69, and the fix `opsmesh up`."""
    result = cli("status", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (69, "down")
    assert found["problems"][0]["fix"].startswith("opsmesh up")
    assert cli("status").stdout.startswith("down")


def test_healthy_mesh_is_ok(cli: Cli, stand_ins: dict[str, str]) -> None:
    """With everything running the verdict is ok, the exit code 0, and the JSON holds its parts."""
    cli("up", "--detach")
    create_streams()
    result = cli("status", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"], found["problems"]) == (0, "ok", [])
    assert found["nats_url"].startswith("nats://127.0.0.1:")
    assert found["spool"] == {"files": 0, "bytes": 0}
    assert found["streams"]["EVENTS"] == {"messages": 0, "last_seq": 0}
    assert found["streams"]["DLQ"] == {"messages": 0, "last_seq": 0}
    for component in found["components"]:
        assert component["state"] == "running"
        assert component["restarts"] == 0
        assert isinstance(component["pid"], int)
    assert cli("status").stdout.startswith("ok")


def test_failing_component_degrades(cli: Cli, stand_ins: dict[str, str]) -> None:
    """A component that does not run makes the verdict degraded, the exit code 1, and is named."""
    stand_ins["bad"] = "raise SystemExit(3)"
    cli("up", "--detach", "--wait", "1.5")
    create_streams()
    result = cli("status", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (1, "degraded")
    assert any("bad does not run" in p["what"] for p in found["problems"])


def test_restart_is_counted(cli: Cli, stand_ins: dict[str, str]) -> None:
    """A component that was killed and started again shows one restart."""
    cli("up", "--detach")
    state = supervisor_state.running()
    assert state is not None
    os.kill(state.components[1].pid or 0, signal.SIGKILL)
    wait(lambda: (now := supervisor_state.running()) and now.settled and now != state)
    found = json.loads(cli("status", "--json").stdout)
    assert {c["name"]: c["restarts"] for c in found["components"]} == {"broker": 0, "one": 1}


def test_events_that_wait_are_told(cli: Cli, stand_ins: dict[str, str]) -> None:
    """A spool that is not empty is a problem with its size."""
    cli("up", "--detach")
    create_streams()
    spool.write(paths.spool_dir(), [b'{"topic":"a.b"}'])
    found = json.loads(cli("status", "--json").stdout)
    assert found["spool"]["files"] == 1
    assert found["spool"]["bytes"] > 0
    assert "1 files wait in the spool" in problems(cli)


def test_dead_letters_and_consumers_are_told(cli: Cli, stand_ins: dict[str, str]) -> None:
    """Dead letters are a problem; profiles' consumers are listed with what is pending."""
    cli("up", "--detach")

    async def use() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await js.publish("dlq.p.h.a.b", b"{}")
            await js.publish("evt.h.a.b", b"{}")
            for durable in ("profile-triage", "evidence-sink", "somebody-elses"):
                await js.pull_subscribe("evt.>", durable=durable)

    run(use())
    found = json.loads(cli("status", "--json").stdout)
    assert "1 dead letters" in problems(cli)
    consumers = {c["profile"]: c for c in found["consumers"]}
    assert consumers.keys() == {"triage", "evidence-sink"}
    assert consumers["triage"]["pending"] == 1
    assert consumers["triage"]["stale"] is True
    assert consumers["evidence-sink"]["stale"] is False


def test_vanished_stream_is_told(cli: Cli, stand_ins: dict[str, str]) -> None:
    """A stream that held messages and is gone is a problem that names `doctor --accept-loss`."""
    cli("up", "--detach")
    create_streams()
    topology.Known(Path(paths.state_dir(), "known.json")).remember({"EVENTS": 7})
    assert "EVENTS has gone back from sequence 7 to 0" in problems(cli)

    async def remove() -> None:
        where = connection.endpoint(Settings())
        client = await connection.connect(where, name="test", patient=False)
        await client.jetstream().delete_stream("EVENTS")
        await client.close()

    run(remove())
    assert "EVENTS held messages up to sequence 7, and is gone" in problems(cli)
    assert "--accept-loss" in problems(cli)


def test_unreachable_broker_degrades(
    cli: Cli, stand_ins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that does not answer is a problem, not an error of `status`."""
    cli("up", "--detach")
    monkeypatch.setenv("OPSMESH_NATS_URL", "nats://127.0.0.1:1")
    found = json.loads(cli("status", "--json").stdout)
    assert found["verdict"] == "degraded"
    whats = [problem["what"] for problem in found["problems"]]
    assert any("no NATS server answers at nats://127.0.0.1:1" in what for what in whats)


def test_watch_is_for_people(cli: Cli) -> None:
    """--watch with --json is a wrong call."""
    assert cli("status", "--watch", "--json").exit_code == 2
