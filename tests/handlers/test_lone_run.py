"""A lone run begins while its record is on its way: what is known of it when all was lost."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, restart, run
from tests.handlers.conftest import EVENT
from tests.handlers.handlers_process import Processes, handlers, owner_of
from tests.handlers.mesh import write_profiles

from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router.publish import Publisher
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.envelope import encode, subject

PROFILE = """
profiles:
  once:
    on: service.start.failed
    actions:
      - id: act
        on_unknown: skip
        command: [sh, -c, "echo $1 >> {out}", act, "${{{{ event.id }}}}"]
"""


def event_id(number: int) -> str:
    """The id of the test's event of this number."""
    return f"{EVENT.id[:-4]}{number:04d}"


async def publish(client: Client, settings: Settings, number: int) -> None:
    """One event that fires."""
    event = msgspec.structs.replace(
        EVENT,
        id=event_id(number),
        ts_utc=times.format_us(times.now_us()),
        host=settings.host,
    )
    await Publisher(client).publish(
        subject(event.host, event.topic), encode(event), msg_id=event.id
    )


async def ended(client: Client, number: int) -> Run:
    """The run of an event, once it is over."""

    async def there() -> Run | None:
        runs = [one async for one in Ledger(client).runs("once")]
        return next((r for r in runs if r.event_id == event_id(number) and r.finished), None)

    found = await eventually(there)
    assert isinstance(found, Run)
    return found


@pytest.mark.parametrize("kindly", [False, True])
def test_what_may_have_begun_when_the_broker_died_is_unknown(
    nats_server: EmbeddedServer, tmp_path: Path, kindly: bool
) -> None:
    """When an owner was killed and the broker started anew, its next firing may have begun without
    a trace: it is unknown, and those behind it are not. An owner that let go leaves no doubt."""
    out, settings = tmp_path / "out", Settings()
    write_profiles(PROFILE.format(out=out))

    def lose(processes: Processes, pid: int) -> None:
        processes.stop(pid) if kindly else processes.kill(pid)

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                pid = processes.start()
                await owner_of(client, f"profile-once-on-{settings.host}")
                await publish(client, settings, 1)
                await ended(client, 1)
                lose(processes, pid)
                await restart(client, nats_server)
                await publish(client, settings, 2)
                await publish(client, settings, 3)
                processes.start()
                [second, third] = [await ended(client, 2), await ended(client, 3)]
                assert [step.state for step in third.steps] == ["done"]
                assert [step.state for step in second.steps] == ["done" if kindly else "skipped"]
                doubt = "the broker was restarted" in (second.steps[0].error or "")
                assert doubt is not kindly

    run(body())
    did = [event_id(n) for n in ((1, 2, 3) if kindly else (1, 3))]
    assert sorted(out.read_text().split()) == did


def test_a_run_that_begins_has_its_record_at_the_broker(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """A handler that is killed by the first line of its action leaves behind that it was begun."""
    settings = Settings()
    write_profiles(
        """
profiles:
  once:
    on: service.start.failed
    actions:
      - {id: act, on_unknown: skip, command: [sh, -c, "kill -9 $PPID"]}
"""
    )

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                pid = processes.start()
                await owner_of(client, f"profile-once-on-{settings.host}")
                await publish(client, settings, 1)
                await eventually(lambda: processes.ended(pid))
                processes.start()
                found = await ended(client, 1)
                assert [step.state for step in found.steps] == ["skipped"]

    run(body())
