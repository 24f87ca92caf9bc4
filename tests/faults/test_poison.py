"""Messages that are no events, among good ones."""

from __future__ import annotations

import pytest

from opsmesh.router.settings import Settings
from tests.conftest import run
from tests.faults.checks import check, client, rest
from tests.faults.load import load
from tests.faults.meshes import PROFILE, TOPIC, Mesh
from tests.faults.sizes import SLOW_SIZES
from tests.router.agent_process import Connection

#: Poison of each kind: straight into the stream, and through the ingest socket.
EACH = 500


def poison(kind: str, n: int) -> bytes:
    """Something different each time: cut off, no JSON, no UTF-8, no object."""
    made = [b'{"topic":"load.test","payload":{"n":%d', b"poison %d", b"\xff\xfe%d", b"[%d]"]
    return made[n % len(made)] % n + b" " + kind.encode()


async def _into_the_stream(count: int) -> None:
    async with client() as nc:
        for n in range(count):
            await nc.jetstream().publish(f"evt.{Settings().host}.{TOPIC}", poison("stream", n))


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_poison(fault: Mesh, count: int) -> None:
    """Every message that is no event is a dead letter with its bytes, and in evidence if it was
    stored; no good one waits for it."""
    fault.start_all()
    with load(fault.home, count) as events:
        events.reached(0.2)
        socket = Connection()
        for n in range(EACH):
            socket.send(poison("socket", n) + b"\n")
        run(_into_the_stream(EACH))
        socket.close()
        events.finish()
        rest(fault)
        found = check(fault, events)
    stored = sorted(poison("stream", n) for n in range(EACH))
    assert sorted(found.undecodable) == stored
    assert sorted(letter.data for letter in found.letters if letter.profile == PROFILE) == stored
    refused = sorted(letter.data for letter in found.letters if letter.profile == "ingest")
    assert refused == sorted(poison("socket", n) for n in range(EACH))
