"""Trials: a wired tool is made to speak, and its event is waited for.

A shell is started, and a command fails in it. That is a real event, so it happens only on request;
its producer tells it so that no profile fires (`producers.wiring.probed`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import secrets
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Final

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.cli.doctor.checks import Check
from opsmesh.cli.install import rows as install_rows
from opsmesh.producers import wirings
from opsmesh.producers.errors import ProducerError
from opsmesh.producers.wiring import PROBED, TOKEN, Probe, Wiring
from opsmesh.router import connection
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import decode, subject

#: Seconds that a probe's event may take, the tool's own start included.
PATIENCE: Final = 10.0
#: Seconds between two times of typing the same.
TYPE_EVERY: Final = 1.0
#: Seconds between two looks into the stream.
LOOK_EVERY: Final = 0.02
#: Seconds that a probe's program has to end once it was told to.
LEAVE: Final = 2.0


async def probe(settings: Settings) -> list[Check]:
    """Try every wired tool that can be tried."""
    found = wirings.discover()
    names = [row["tool"] for row in install_rows.chosen(None, found)]
    if not names:
        return [Check(check="probe", ok=None, detail="nothing is wired: opsmesh install --list")]
    try:
        where = connection.endpoint(settings, role="admin")
        client = await connection.connect(where, name="doctor", patient=False)
    except BrokerUnavailable as error:
        return [Check(check="probe", ok=False, detail=str(error), fix=error.hint)]
    try:
        return [
            check
            for name in names
            if name in found.wirings
            for check in await _tool(client, name, found.wirings[name], settings)
        ]
    finally:
        await client.close()


async def _tool(client: Client, name: str, wiring: Wiring, settings: Settings) -> list[Check]:
    try:
        probes = wirings.probes(name, wiring)
    except ProducerError as error:
        return [Check(check=f"probe {name}", ok=False, detail=str(error))]
    if probes is None:
        detail = "has no probe: use it once, and look at its last event"
        return [Check(check=f"probe {name}", ok=None, detail=detail)]
    return [await _try(client, name, one, subject(settings.host, one.topic)) for one in probes]


async def _try(client: Client, name: str, one: Probe, where: str) -> Check:
    token = f"{PROBED}{secrets.token_hex(4)}"
    heard = await client.subscribe(where)
    await client.flush()
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            with _terminal(one, token):
                async for message in heard.messages:
                    if token in str(decode(message.data).payload):
                        break
                took = (time.monotonic() - began) * 1000
                await _stored(client, where, token)
    except TimeoutError:
        detail = f"{one.label}: no {one.topic} within {PATIENCE:g} s"
        fix = f"opsmesh install --check {name}; opsmesh producer status"
        return Check(check=f"probe {name}", ok=False, detail=detail, fix=fix)
    except OSError as error:
        return Check(check=f"probe {name}", ok=False, detail=f"{one.label}: {error}")
    finally:
        await heard.unsubscribe()
    detail = f"{one.label}: heard {took:.0f} ms after it was started"
    return Check(check=f"probe {name}", ok=True, detail=detail)


async def _stored(client: Client, where: str, token: str) -> None:
    """Until the stream holds it: whoever subscribes hears it a moment before."""
    while True:
        with contextlib.suppress(NotFoundError):
            last = await client.jetstream().get_last_msg(EVENTS, where, direct=True)
            if token in str(decode(last.data or b"").payload):
                return
        await asyncio.sleep(LOOK_EVERY)


@contextlib.contextmanager
def _terminal(one: Probe, token: str) -> Iterator[None]:
    """The probe's program on a terminal of its own, in a session that ends with us. What is typed
    is typed again until we leave: a shell that is starting throws away what came too early."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    try:
        process = subprocess.Popen(
            list(one.argv),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, **one.env},
            # fish wants it to be its controlling terminal (tty_ioctl(4)); no thread runs here
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509, RUF100
        )
    except OSError:
        os.close(master)
        raise
    finally:
        os.close(slave)
    loop = asyncio.get_running_loop()
    typed = one.typed.replace(TOKEN, token).encode()
    again: asyncio.TimerHandle | None = None

    def type_it() -> None:
        nonlocal again
        with contextlib.suppress(OSError):  # it has ended, and nothing will be heard
            os.write(master, typed)
        again = loop.call_later(TYPE_EVERY, type_it)

    def look_away() -> None:
        try:
            os.read(master, 65536)  # a program whose output nobody takes would stand still
        except OSError:
            loop.remove_reader(master)

    loop.add_reader(master, look_away)
    type_it()
    try:
        yield
    finally:
        if again is not None:
            again.cancel()
        loop.remove_reader(master)
        os.close(master)  # a hang-up, which ends a shell
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LEAVE)
        if process.poll() is None:
            process.kill()
            process.wait()
