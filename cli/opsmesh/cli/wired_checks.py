"""What `doctor` says of tools that are wired: whether they are heard, and when they last were.

A probe makes a tool's half speak: a shell is started, and a command fails in it. That is a real
event, so it happens only on request.
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
from typing import Any, Final

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.cli import components, producer
from opsmesh.cli.checks import Check
from opsmesh.producers import wirings
from opsmesh.producers.install import plan
from opsmesh.producers.install import record as records
from opsmesh.producers.wiring import TOKEN, Probe, Probed
from opsmesh.router import connection, supervisor_state
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import durations, times
from opsmesh.schemas.envelope import decode

#: Seconds that a probe's event may take, the tool's own start included.
PATIENCE: Final = 10.0
#: Seconds between two times of typing the same.
TYPE_EVERY: Final = 1.0
#: Seconds that a probe's program has to end once it was told to.
LEAVE: Final = 2.0


def producers(settings: Settings) -> Iterator[Check]:
    """A line for each producer: heard of when, or why it does not run."""
    rows = {row["name"]: row for row in producer.rows()}
    up = supervisor_state.running() is not None
    for name, reason in components.producers(settings).items():
        row = rows.get(name, {})
        broken = reason is not None and reason.startswith("broken: ")
        detail, ok, fix = reason or "can run here", None if reason else True, ""
        if broken:
            ok, fix = False, "mend or remove the package it came with"
        elif row.get("state") == "running":
            detail = _heard(row)
        elif up and reason is None:
            ok, fix = False, "opsmesh down && opsmesh up --detach"
            detail = f"{row.get('state', 'not supervised')}: its tool may have come after the mesh"
        yield Check(check=f"producer {name}", ok=ok, detail=detail, fix=fix)


def wired() -> Iterator[Check]:
    """A line for each tool that `opsmesh install` has wired."""
    found = wirings.discover()
    rows = {row["name"]: row for row in producer.rows()}
    for name in records.installed():
        fix = f"opsmesh install {name}"
        if (wiring := found.wirings.get(name)) is None:
            detail = found.problems.get(name, "its plug-in is gone")
            yield Check(check=f"tool {name}", ok=False, detail=detail, fix=f"opsmesh un{fix[8:]}")
            continue
        missing = wiring.missing()
        state = missing or plan.state(name, wiring.pieces(), records.load(name))
        if state != "wired":
            yield Check(check=f"tool {name}", ok=False, detail=state, fix=fix)
            continue
        row = rows.get(wiring.producer or "", {})
        told = f", {_heard(row)}" if wiring.producer else ""
        yield Check(check=f"tool {name}", ok=True, detail=f"wired{told}")


async def without_producer(client: Client) -> list[Check]:
    """A line for each wired tool that speaks to the agent itself: when it last did."""
    found = wirings.discover()
    checks = []
    for name in records.installed():
        wiring = found.wirings.get(name)
        if wiring is None or wiring.producer is not None:
            continue
        last: dict[str, Any] = {}
        for topic in wiring.topics:
            with contextlib.suppress(NotFoundError):
                message = await client.jetstream().get_last_msg(EVENTS, f"evt.*.{topic}")
                at = decode(message.data or b"").ts_utc
                if times.parse_us(at) > times.parse_us(last.get("last_time", at)) or not last:
                    last = {"last_time": at, "last_event": topic}
        checks.append(Check(check=f"tool {name}", ok=True, detail=_heard(last)))
    return checks


def _heard(row: dict[str, Any]) -> str:
    """When a producer or a tool last told something."""
    if not row.get("last_time"):
        return "no event yet"
    age = max(0, (times.now_us() - times.parse_us(row["last_time"])) // 1_000_000)
    return f"last event {durations.text(_round(age))} ago: {row['last_event']}"


def _round(seconds: int) -> int:
    """As exact as a person wants it: seconds, then minutes, then hours."""
    for unit in (86_400, 3_600, 60):
        if seconds >= 2 * unit:
            return seconds // unit * unit
    return seconds


async def probe(settings: Settings) -> list[Check]:
    """Try every wired tool that can be tried."""
    found = wirings.discover()
    names = [name for name in records.installed() if name in found.wirings]
    checks: list[Check] = []
    client = await connection.connect(connection.endpoint(settings), name="doctor", patient=False)
    try:
        for name in names:
            wiring = found.wirings[name]
            if not isinstance(wiring, Probed):
                detail = "has no probe: use it once, and look at its last event"
                checks.append(Check(check=f"probe {name}", ok=None, detail=detail))
                continue
            checks += [await _try(client, name, one) for one in wiring.probes()]
    finally:
        await client.close()
    return checks


async def _try(client: Client, name: str, one: Probe) -> Check:
    token = f"opsmesh-probe-{secrets.token_hex(4)}"
    heard = await client.subscribe(f"evt.*.{one.topic}")
    await client.flush()
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            with _terminal(one, token):
                async for message in heard.messages:
                    if token in str(decode(message.data).payload):
                        break
    except TimeoutError:
        detail = f"{one.label}: no {one.topic} within {PATIENCE:g} s"
        fix = f"opsmesh install --check {name}; opsmesh producer status"
        return Check(check=f"probe {name}", ok=False, detail=detail, fix=fix)
    except OSError as error:
        return Check(check=f"probe {name}", ok=False, detail=f"{one.label}: {error}")
    took = (time.monotonic() - began) * 1000
    detail = f"{one.label}: heard {took:.0f} ms after it was started"
    return Check(check=f"probe {name}", ok=True, detail=detail)


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
