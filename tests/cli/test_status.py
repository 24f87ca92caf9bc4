"""`opsmesh status`: verdict, problems with their fixes, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console
from tests.cli.conftest import Cli, be_patient
from tests.conftest import eventually, mesh_client, run
from tests.conftest import until as wait
from tests.handlers.mesh import mesh, write_profiles
from typer.testing import Result

from opsmesh.cli import health
from opsmesh.cli import status as command
from opsmesh.cli.profiles import health as profile_health
from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.live.liveness import owner
from opsmesh.handlers.profiles import overrides
from opsmesh.router import connection, paths, sink_consumer, spool, supervisor_state, topology
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, encode, subject


@pytest.fixture(autouse=True)
def quiet(log_of_before: None) -> None:
    """What handlers log beside a command is not part of what the command prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


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
    write_profiles("profiles: {}")  # the starter's would have nobody to decide for it
    cli("up", "--detach")
    create_streams()
    result = cli("status", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"], found["problems"]) == (0, "ok", [])
    assert found["nats_url"].startswith("nats://127.0.0.1:")
    assert (found["spool"]["files"], found["spool"]["dropped"]) == (0, [])
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
    # a busy machine has not begun all of them by then
    wait(lambda: (now := supervisor_state.running()) and now.components[0].state == "running")
    create_streams()

    def told() -> Result | None:
        """What is said while it does not run: where Python starts slowly, it seems to at first."""
        done = cli("status", "--json")
        return done if "bad does not run" in done.stdout else None

    result = wait(told)
    assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (1, "degraded")


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
            sink = sink_consumer.name(Settings().host)
            for durable in ("profile-triage", sink, "somebody-elses"):
                await js.pull_subscribe("evt.>", durable=durable)

    run(use())
    found = json.loads(cli("status", "--json").stdout)
    assert "1 dead letter: an event that no attempt could handle -> opsmesh dlq ls --group" in (
        problems(cli)
    )
    consumers = {c["profile"]: c for c in found["consumers"]}
    assert consumers.keys() == {"triage", "evidence-sink"}
    assert consumers["triage"]["pending"] == 1
    assert consumers["triage"]["stale"] is True
    assert consumers["evidence-sink"]["stale"] is False


def gap(topic: str = "mesh.gap.detected", **payload: Any) -> Event:
    id = ids.uuid7()
    return Event(
        topic=topic,
        ts_utc=times.format_us(times.now_us()),
        source="opsmesh",
        component="sink",
        severity="warn",
        correlation_id=id,
        host="h",
        session_id="",
        workspace="",
        payload={"source": "pytest", **payload},
        id=id,
    )


def test_gaps_of_the_last_day_are_told(cli: Cli, stand_ins: dict[str, str]) -> None:
    """A gap is told in words, on this machine's clock, with what to do, and with what came late;
    what is lost is a fact, and the mesh may be well."""
    write_profiles("profiles: {}")
    cli("up", "--detach")
    began = datetime.now().astimezone().replace(hour=0, minute=2, second=11, microsecond=0)
    ended = began + timedelta(minutes=3)
    lost = gap(
        kind="sequence",
        lost=12,
        from_time=began.astimezone(UTC).isoformat(),
        to_time=ended.astimezone(UTC).isoformat(),
    )
    removed = gap(kind="removed", lost=40, source="evidence-sink")
    filled = gap("mesh.gap.filled", gap=removed.id, found=40, lost=0, source="evidence-sink")

    async def use() -> None:
        async with mesh_client() as client:
            for one in (lost, removed, filled):
                await client.jetstream().publish(subject("h", one.topic), encode(one))

    run(use())
    result = cli("status", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (0, "ok")
    assert [one["what"] for one in found["gaps"]] == [
        "pytest lost 12 events between 00:02 and 00:05",
        "evidence-sink missed 40 events that the stream removed unread",
    ]
    assert "opsmesh tail" in found["gaps"][0]["fix"]
    assert "events.max_bytes" in found["gaps"][1]["fix"]
    assert [one["filled"] for one in found["gaps"]] == [
        "",
        "evidence-sink: 40 events that seemed lost came late, none is missing",
    ]
    said = cli("status").stdout
    assert "! pytest lost 12 events between 00:02 and 00:05\n" in said


def test_full_stream_is_told(
    cli: Cli, stand_ins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream near its limit is named, with what it removes; it is no fault of the mesh."""
    write_profiles("profiles: {}")
    monkeypatch.setenv("OPSMESH_EVENTS__MAX_BYTES", "4KiB")
    cli("up", "--detach")

    async def use() -> None:
        async with mesh_client() as client:
            for _ in range(20):
                await client.jetstream().publish("evt.h.a.b", b"{}" * 200)

    run(use())
    result = cli("status", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (0, "ok")
    [full] = found["full"]
    assert (full["stream"], full["max_bytes"]) == ("EVENTS", 4096)
    assert full["bytes"] > 3600
    assert "% full: its oldest events go before their age" in full["what"]
    assert "events.max_bytes" in cli("status").stdout


def test_vanished_stream_is_told(cli: Cli, stand_ins: dict[str, str]) -> None:
    """A stream that held messages and is gone is a problem that names `doctor --accept-loss`."""
    cli("up", "--detach")
    create_streams()
    topology.Known(Path(paths.state_dir(), "known.json")).remember({"EVENTS": 7})
    assert "EVENTS has gone back from sequence 7 to 0" in problems(cli)

    async def remove() -> None:
        where = connection.endpoint(Settings(), role="admin")
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


def test_watch_fills_one_screen(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    """On a screen that is too small for all of it the verdict stays, and the rest is counted."""
    small = Console(force_terminal=True, width=60, height=5)
    command._fill(small, asyncio.run(health.check(Settings())))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5  # the last one clears what is below
    assert "down" in lines[0]
    assert "lines more: opsmesh status" in lines[3]


NOTE = """
profiles:
  note:
    on: service.start.failed
    actions: [command: ["true"]]
"""


async def status(cli: Cli) -> dict[str, Any]:
    """What `status --json` says, beside running handlers."""
    found: dict[str, Any] = json.loads((await asyncio.to_thread(cli, "status", "--json")).stdout)
    return found


async def verdict(cli: Cli) -> tuple[str, str]:
    """The verdict on the one profile, and its detail."""
    (one,) = (await status(cli))["profiles"]
    return one["verdict"], one["detail"]


def test_profiles_are_told(
    cli: Cli, stand_ins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile shows who decides for it; disabled, what waits and since when; and without
    handlers, that nobody decides, which is a problem with its fix."""
    be_patient(monkeypatch)
    write_profiles(NOTE)
    cli("up", "--detach")

    async def body() -> None:
        async with mesh(NOTE) as m:
            assert (await status(cli))["problems"] == []
            name, detail = await verdict(cli)
            assert (name, detail) == ("ok", f"{m.settings.host} (pid {os.getpid()}) decides")

            async def promptly() -> Any:
                began = time.perf_counter()
                text = await asyncio.to_thread(cli, "status")
                # a wait of its own would be there each time, another program's turn is not
                return text if time.perf_counter() - began < 1 else None

            text = await eventually(promptly)
            assert f"note     enabled  0        {detail}" in text.stdout
            overrides.write("note", "disabled")
            consumer = (await status(cli))["profiles"][0]["consumer"]

            async def free() -> bool:
                return await owner(m.client, consumer) is None

            await eventually(free)
            await m.publish()
            await m.publish()

            async def counted() -> bool:  # by the broker, a moment after it has them
                return (await verdict(cli))[1].startswith("disabled, 2 wait since ")

            await eventually(counted)
            assert (await verdict(cli))[0] == "disabled"
            assert (await status(cli))["problems"] == []
            (listed,) = [c for c in (await status(cli))["consumers"] if c["profile"] == "note"]
            assert (listed["pending"], listed["verdict"]) == (2, "disabled")
            checks = json.loads((await asyncio.to_thread(cli, "doctor", "--json")).stdout)
            assert [c["ok"] for c in checks if c["check"] == "profile note"] == [None]

    run(body())
    overrides.write("note", None)
    assert "note: nobody decides, 2 wait since" in problems(cli)
    assert "-> opsmesh down && opsmesh up --detach" in problems(cli)
    found = json.loads(cli("doctor", "--json").stdout)
    assert [c["ok"] for c in found if c["check"] == "profile note"] == [False]


def test_beside_a_broken_file(cli: Cli, stand_ins: dict[str, str]) -> None:
    """A profile that is new while another file is broken is not in force, and no fault of the
    handlers: the one problem is the file, and mending it the one fix."""
    write_profiles(NOTE)
    broken = Path(paths.config_dir(), "profiles.d", "broken.yaml")
    broken.parent.mkdir()
    broken.write_text("profiles: {x: {on: a.b, actions: [command: ['true']], onn: 1}}")
    cli("up", "--detach")
    create_streams()
    found = json.loads(cli("status", "--json").stdout)
    assert [one["verdict"] for one in found["profiles"]] == ["not in force"]
    [problem] = found["problems"]
    assert "profiles are broken" in problem["what"]
    assert problem["fix"].startswith("mend the file")
    checks = json.loads(cli("doctor", "--json").stdout)
    assert [c["fix"] for c in checks if c["check"] == "profile note"] == [
        "mend the file that is broken; check it: opsmesh profile validate"
    ]


def test_owners_that_do_not_work_are_told(
    cli: Cli, stand_ins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that does not answer, and one whose cursor stands still while events wait, are
    problems; one that moves is behind, which is none."""
    cli("up", "--detach")
    answers: list[dict[str, Any]] = []

    async def body() -> None:
        async with mesh(NOTE) as m:
            overrides.write("note", "disabled")
            consumer = (await status(cli))["profiles"][0]["consumer"]

            async def free() -> bool:
                return await owner(m.client, consumer) is None

            await eventually(free)
            await m.publish()
        overrides.write("note", None)
        async with mesh_client() as client:

            async def answer(msg: Any) -> None:
                if answers:
                    await msg.respond(json.dumps(answers[-1]).encode())

            await client.subscribe(f"own.{consumer}", cb=answer)
            await client.flush()
            assert (await verdict(cli))[0] == "does not answer"
            assert "does not answer" in (await status(cli))["problems"][0]["what"]
            be_patient(monkeypatch)
            now_us = time.time_ns() // 1000
            answers.append({"host": "dev", "pid": 7, "seq": 0, "since_us": 1, "at_us": now_us})
            assert await verdict(cli) == (
                "ok",
                "dev (pid 7) decides, 1 waits since " + (await verdict(cli))[1].rpartition(" ")[2],
            )
            monkeypatch.setattr(profile_health, "STUCK_S", -1.0)
            assert (await verdict(cli))[0] == "stuck"
            assert "is at sequence 0 since" in (await status(cli))["problems"][0]["what"]
            answers.append({**answers[0], "at_us": now_us + 3_600_000_000})
            assert (await verdict(cli))[0] == "behind"
            assert (await status(cli))["problems"] == []

    run(body())


def test_evidence_that_cannot_be_sealed_is_told(cli: Cli) -> None:
    """An ended file of the evidence that has waited long for its seal is a problem."""
    folder = Path(paths.evidence_dir())
    with Archive(folder, stream=topology.EVENTS, segment_bytes=100) as archive:
        for seq in range(1, 4):
            archive.event(seq, 1_795_424_400_000_000, b'{"topic":"a.b"}')
        archive.commit()
    assert [p["what"] for p in json.loads(cli("status", "--json").stdout)["problems"]] == [
        "no mesh runs here"
    ]
    for path in folder.rglob("*.jsonl"):
        os.utime(path, (0, 0))
    [_, problem] = json.loads(cli("status", "--json").stdout)["problems"]
    assert problem == {
        "what": "2 ended files of the evidence are not sealed",
        "fix": "opsmesh evidence seal says why",
    }
