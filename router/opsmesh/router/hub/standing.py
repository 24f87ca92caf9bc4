"""How the hosts of a mesh stand: who is connected, how far behind, what was heard last.

Everything is read from the streams, which know it anyway: a source tells when it last heard of its
leaf (a heartbeat a second), a leaf's consumer what the hub has taken. Nobody is polled.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from opsmesh.router import connection
from opsmesh.router.errors import BrokerUnavailable, CredentialsRefused
from opsmesh.router.hub import leaf
from opsmesh.router.joined import Joined
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.errors import SchemaError

#: Seconds without a heartbeat, of which there is one a second, before a leaf counts as away.
SILENT: Final = 10.0
#: Microseconds by which an event may be later than its storing before a clock is wrong.
CLOCK_SLACK: Final = 2_000_000
#: Seconds to wait for the broker's answer.
TIMEOUT: Final = 5.0
#: Seconds for a hub to refuse: one that is silent refuses nobody, and `status` does not wait.
REFUSAL: Final = 1.0
STARTED: Final = "mesh.component.started"


class LastEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The newest event of a host that is here, and when it was stored."""

    topic: str
    id: str
    stored: str
    ahead_s: float = 0.0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One host. `state`: `here` (this machine's own broker has it), `connected`, `away`, `never`
    (it has not joined yet), `unknown`; `since` is when an away one was last heard of, `lag` how
    many of its events the hub has not, None where that cannot be known."""

    host: str
    kind: str
    state: str
    since: str | None = None
    lag: int | None = None
    last_event: LastEvent | None = None
    version: str | None = None
    error: str = ""


class Fed(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf's own view: whether its hub listens, how many events it has not stored yet, and when
    the oldest of them was stored here."""

    connected: bool
    lag: int
    oldest: str | None = None


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub's EVENTS tells of one leaf. `silent_s` is None when nothing was heard since the
    hub's start."""

    silent_s: float | None
    lag: int
    error: str = ""

    @property
    def connected(self) -> bool:
        """Whether the leaf's events arrive now."""
        return self.silent_s is not None and self.silent_s < SILENT


async def fed(js: JetStreamContext, host: str) -> Fed | None:
    """How this leaf and its hub stand; None while the consumer is not there yet."""
    try:
        info = await js.consumer_info(EVENTS, leaf.consumer(host))
    except NotFoundError:
        return None
    lag = (info.num_pending or 0) + (info.num_ack_pending or 0)
    floor = info.ack_floor.stream_seq if info.ack_floor else 0
    oldest = await _stored_after(js, floor) if lag else None
    return Fed(connected=bool(info.push_bound), lag=lag, oldest=oldest)


async def refused(member: Joined) -> bool:
    """Whether the hub answers, and does not let this leaf's server in: the broker here writes that
    into its log alone, so it is asked as that server asks."""
    try:
        async with asyncio.timeout(REFUSAL):
            where = connection.leaf_endpoint(member)
            client = await connection.connect(where, name="leaf", patient=False)
    except CredentialsRefused:
        return True
    except (BrokerUnavailable, TimeoutError):
        return False
    await client.close()
    return False


async def heard(client: Client, stream: str = EVENTS) -> dict[str, Heard]:
    """Each leaf that the stream sources, by its domain."""
    return {
        domain: Heard(
            silent_s=one["active"] / 1e9 if one.get("active", -1) >= 0 else None,
            lag=one.get("lag", 0),
            error=one.get("error", {}).get("description", ""),
        )
        for one in (await _info(client, stream)).get("sources") or ()
        if (domain := _domain(one))
    }


async def started(client: Client) -> set[str]:
    """The hosts, as they stand in subjects, of which a component's start is known."""
    info = await _info(client, EVENTS, f"evt.*.{STARTED}")
    subjects = info["state"].get("subjects") or {}
    return {subject.split(".")[1] for subject in subjects}


async def last_event(js: JetStreamContext, host: str, topic: str = ">") -> LastEvent | None:
    """The newest event of the host, by its name in subjects."""
    found = await _last(js, host, topic)
    return None if found is None else found[0]


async def version(js: JetStreamContext, host: str) -> str | None:
    """The version of opsmesh that the host said when a component of it started last."""
    found = await _last(js, host, STARTED)
    told = None if found is None else found[1].get("version")
    return told if isinstance(told, str) else None


async def _last(
    js: JetStreamContext, host: str, topic: str
) -> tuple[LastEvent, dict[str, Any]] | None:
    try:
        msg = await js.get_msg(EVENTS, subject=f"evt.{host}.{topic}")
    except NotFoundError:
        return None
    stored_us = round(msg.time.timestamp() * 1e6) if msg.time else 0
    try:
        event = decode(msg.data or b"")
    except SchemaError:
        topic = (msg.subject or "").split(".", 2)[-1]
        return LastEvent(topic=topic, id="", stored=times.format_us(stored_us)), {}
    ahead = max(event.ts_us - stored_us, 0)
    facts = LastEvent(
        topic=event.topic,
        id=event.id,
        stored=times.format_us(stored_us),
        ahead_s=ahead / 1e6 if ahead > CLOCK_SLACK else 0.0,
    )
    return facts, dict(event.payload)


async def _stored_after(js: JetStreamContext, seq: int) -> str | None:
    try:
        msg = await js.get_msg(EVENTS, seq=seq + 1, next=True, subject=">")
    except NotFoundError:
        return None
    return times.format_us(round(msg.time.timestamp() * 1e6)) if msg.time else None


async def _info(client: Client, stream: str, subjects: str = "") -> dict[str, Any]:
    """As the server tells it: nats-py 2.16 drops whose source it is."""
    asked = msgspec.json.encode({"subjects_filter": subjects}) if subjects else b""
    answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", asked, timeout=TIMEOUT)
    info: dict[str, Any] = msgspec.json.decode(answer.data)
    if "error" in info:
        raise NotFoundError(description=info["error"].get("description"))
    return info


def _domain(source: dict[str, Any]) -> str:
    api: str = (source.get("external") or {}).get("api", "")
    return api.removeprefix("$JS.").removesuffix(".API")
