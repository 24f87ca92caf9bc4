"""The agent's gate: what other machines' users ask of JetStream, handed on after a look.

A request to `ask.<user>.API.…` is one to `$JS.API.…`. The permissions let nobody but that user send
it, the subject or the manifest says what the user may read, and the broker answers the user itself:
what is read does not pass through here.

The one rule: an answer goes to an inbox of the user who asks. The broker would send it anywhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.nuid import NUID

from opsmesh.router import logs, sink_consumer
from opsmesh.router.auth import reads
from opsmesh.router.auth.manifest import Manifest
from opsmesh.router.auth.permissions import INBOX, covers
from opsmesh.router.auth.reads import ASK, REFUSED, ReadsByConsumer, rights
from opsmesh.router.auth.store import Store
from opsmesh.router.pull import delivery
from opsmesh.router.roles import Role
from opsmesh.router.topology import EVENTS, TRIGGERS

#: Several agents of one mesh share the work.
GROUP: Final = "gate"
#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0
#: Nanoseconds after which the broker forgets a reader without a name that nobody reads, at most.
INACTIVE_NS: Final = 300 * 10**9
#: What a reader may say of itself; where it is to be sent (`deliver_subject`) is not among it.
_CONFIG: Final = frozenset(
    {
        *("name", "durable_name", "description", "filter_subject", "filter_subjects"),
        *("deliver_policy", "opt_start_seq", "opt_start_time", "replay_policy", "headers_only"),
        *("ack_policy", "ack_wait", "max_deliver", "max_ack_pending", "max_waiting"),
        *("inactive_threshold", "mem_storage", "num_replicas"),
    }
)

#: What may be said of a message.
_SETTLES: Final = (b"+ACK", b"-NAK", b"+WPI", b"+TERM")
#: What tells of the ends of runs, on any host.
OF_RUNS: Final = "evt.*.automation.run.>"

log = structlog.get_logger()


class Refusal(Exception):
    """What may not be read."""


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks; of a handler, what its profiles listen to."""

    user: str
    role: Role
    place: str = ""
    reads: ReadsByConsumer = field(default_factory=dict)

    @property
    def rights(self) -> Mapping[str, Sequence[str]]:
        """By stream, the subjects that are its business: all that a handler may read, and what a
        sink does."""
        if self.role == "sink":
            return {EVENTS: (">",)}
        return rights(self.place, self.reads) if self.reads else {}

    def readable(self, stream: str) -> Sequence[str]:
        """The subjects of a stream that it may read; a viewer may read all."""
        return (">",) if self.role == "viewer" else self.rights.get(stream, ())

    def named(self, stream: str) -> Mapping[str, Sequence[str]]:
        """Its readers of a stream that have a name, and what each may be shown: those of its
        profiles, and the queue of triggers for its host; or those of its archive."""
        if stream == EVENTS and self.role == "sink":
            return dict.fromkeys((sink_consumer.name(self.place), sink_consumer.FORMER), ("evt.>",))
        if stream == EVENTS:
            return {name: one.subjects for name, one in self.reads.items()}
        if stream == TRIGGERS and self.reads:
            return {f"triggers-on-{self.place}": [f"trg.*.{self.place}"]}
        return {}

    def owns(self, stream: str, consumer: str) -> bool:
        """Whether a consumer is one of its own, or was made for it here."""
        return consumer in self.named(stream) or consumer.startswith(f"{self.user}=")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of the broker in its place. With `seq` it is one message, whose subject has to
    be looked at; with `consumer` a reader of `stream`, which may be somebody else's by now."""

    subject: str
    body: bytes
    seq: int = 0
    stream: str = ""
    consumer: str = ""


def checked(asker: Asker, api: Sequence[str], body: bytes) -> Request:
    """The request that stands for `$JS.API.<api>`; Refusal when it is not to be."""
    subject = ".".join(("$JS.API", *api))
    if asker.role == "viewer" and _only_looks(api):
        return Request(subject=subject, body=body)
    match api:
        case ["STREAM", "INFO", _] if not body:
            return Request(subject=subject, body=b"")
        case ["STREAM", "PURGE", stream] if stream.startswith("KV_"):
            # of its own keys; what may be read elsewhere may not be ended
            asked = _json(body)
            _within(asker.rights.get(stream, ()), [str(asked.get("filter") or ">")])
            if asked.keys() != {"filter"}:
                raise Refusal("more of a purge than a filter")
            return Request(subject=subject, body=json.dumps(asked).encode())
        case ["STREAM", "MSG", "GET", stream] if _json(body).keys() == {"last_by_subj"}:
            asked = _json(body)
            _covered(asker, stream, [str(asked["last_by_subj"])])
            return Request(subject=subject, body=json.dumps(asked).encode())
        case ["DIRECT", "GET", stream] | ["STREAM", "MSG", "GET", stream]:
            seq = _json(body).get("seq")
            if not isinstance(seq, int) or seq < 1 or len(_json(body)) > 1 or stream != EVENTS:
                raise Refusal(f"{stream} but by a subject, or an event's sequence")
            return Request(subject=subject, body=json.dumps({"seq": seq}).encode(), seq=seq)
        case ["DIRECT", "GET", stream, *wanted] if not body:
            _covered(asker, stream, [".".join(wanted)])
            return Request(subject=subject, body=b"")
        case ["CONSUMER", "CREATE", stream]:
            return _reader(asker, stream, "", body)
        case ["CONSUMER", "DURABLE", "CREATE", stream, name]:
            return _reader(asker, stream, name, body)
        case ["CONSUMER", "CREATE", stream, name, *_]:  # the filter, which its body holds too
            return _reader(asker, stream, name, body)
        case ["CONSUMER", "MSG", "NEXT", stream, name] if asker.owns(stream, name):
            known = name if name in asker.named(stream) else ""
            return Request(subject=subject, body=body, stream=stream, consumer=known)
        case ["CONSUMER", "INFO" | "DELETE", stream, name] if asker.owns(stream, name):
            return Request(subject=subject, body=b"")
    raise Refusal(subject)


def _only_looks(api: Sequence[str]) -> bool:
    """Whether this changes nothing, whatever its body says."""
    match api:
        case ["INFO"] | ["STREAM", "NAMES" | "LIST"] | ["CONSUMER", "LIST" | "NAMES", _]:
            return True
        case ["STREAM", "INFO", _] | ["STREAM", "MSG", "GET", _] | ["CONSUMER", "INFO", _, _]:
            return True
        case ["DIRECT", "GET", _, *_]:
            return True
    return False


def _reader(asker: Asker, stream: str, name: str, body: bytes) -> Request:
    """A consumer: of a profile by its name, or one that is forgotten soon, by a name from here."""
    asked = _json(body).get("config")
    config = {k: v for k, v in (asked if isinstance(asked, dict) else {}).items() if v}
    if strange := sorted(config.keys() - _CONFIG):
        raise Refusal(f"{stream} by a reader with {', '.join(strange)}")
    one, several = config.get("filter_subject"), config.get("filter_subjects")
    filters = [str(part) for part in (several if isinstance(several, list) else [])]
    filters += [str(one)] if one else []
    filters = filters or [">"]
    known = asker.named(stream).get(name)
    if name and known is None:
        raise Refusal(f"{stream} as {name}")
    if known is not None:
        _within(known, filters)
        config |= {"durable_name": name, "name": name}
    else:
        # whether the end of a run was told: that it was, and not what
        told = [OF_RUNS] if stream == EVENTS and config.get("headers_only") is True else []
        _within([*asker.readable(stream), *told], filters)
        name = f"{asker.user}={NUID().next().decode()}"
        config.pop("durable_name", None)
        wanted = config.get("inactive_threshold")
        rest = wanted if isinstance(wanted, int) and 0 < wanted < INACTIVE_NS else INACTIVE_NS
        config |= {"name": name, "inactive_threshold": rest}
    return Request(
        subject=f"$JS.API.CONSUMER.CREATE.{stream}.{name}",
        body=json.dumps({"stream_name": stream, "config": config}).encode(),
    )


def _covered(asker: Asker, stream: str, subjects: Sequence[str]) -> None:
    _within(asker.readable(stream), subjects)


def _within(given: Sequence[str], subjects: Sequence[str]) -> None:
    for subject in subjects:
        if not any(covers(pattern, subject) for pattern in given):
            raise Refusal(subject)


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refusal("what is not asked for as an object of JSON")
    return found


class Gate:
    """Answers over the connection of the agent, which may everything. A `quiet` one logs no
    refusal: they are what is tried."""

    def __init__(self, store: Store, *, quiet: bool = False) -> None:
        self._store = store
        self._quiet = quiet
        self._client: Client | None = None
        self._manifest = Manifest()
        self._read: tuple[int, int, int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._throttle = logs.Throttle()

    async def attach(self, client: Client) -> None:
        """Answer over this connection from now on; nothing for one that is known."""
        if client is not self._client:
            await client.subscribe(f"{ASK}.*.>", queue=GROUP, cb=self._heard)
            self._client = client

    async def _heard(self, msg: Msg) -> None:
        task = asyncio.create_task(self._answer(msg))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, msg: Msg) -> None:
        user = ""
        try:
            match msg.subject.split("."):
                case [_, reads.VIEWER, user, *asked]:
                    asker = Asker(user=user, role="viewer")
                case [_, reads.SINK, place, user, *asked]:
                    asker = Asker(user=user, role="sink", place=place)
                case [_, user, *asked]:
                    asker = self._of_profiles(user)
            if asked[:1] == ["ACK"]:
                await self._acknowledge(asker, "$JS." + ".".join(asked), msg.data)
            elif asked[:1] == ["API"] and msg.reply.startswith(f"{INBOX}.{user}."):
                await self._hand_on(asker, asked[1:], msg)
        except Refusal as refusal:
            if not self._quiet and self._throttle.allows(f"{user} {refusal}"):
                log.warning("gate.refused", user=user, asked=msg.subject, what=str(refusal))
            await self._refuse(msg.reply, str(refusal))
        except Exception as error:  # the asker's wait ends, and it asks again
            if self._throttle.allows("gate.failed"):
                log.warning("gate.failed", user=user, error=f"{type(error).__name__}: {error}")

    async def _hand_on(self, asker: Asker, api: Sequence[str], msg: Msg) -> None:
        request = checked(asker, api, msg.data)
        if request.consumer:
            await self._still(asker, request)
        if request.seq:
            await self._one(asker, request, msg.reply)
            return
        await self._broker.publish(request.subject, request.body, reply=msg.reply)

    async def _still(self, asker: Asker, request: Request) -> None:
        """Refusal when another handler, whose text says otherwise, has made this reader wider."""
        where = f"{request.stream}.{request.consumer}"
        answer = await self._broker.request(f"$JS.API.CONSUMER.INFO.{where}", b"", timeout=TIMEOUT)
        config = json.loads(answer.data).get("config")
        if config is None:
            return  # there is none: the broker says so itself
        filters = config.get("filter_subjects") or [config.get("filter_subject") or ">"]
        _within(asker.named(request.stream)[request.consumer], filters)

    async def _one(self, asker: Asker, request: Request, reply: str) -> None:
        """One event by its sequence. Of a foreign one, when it was stored: whoever has had
        everything up to there has to know whether it is still the same."""
        found = await self._broker.request(request.subject, request.body, timeout=TIMEOUT)
        headers = dict(found.headers or {})
        subject, stored = headers.get("Nats-Subject", ""), headers.get("Nats-Time-Stamp", "")
        if not headers:  # not by the short way: the leader's answer, in JSON
            message = json.loads(found.data).get("message") or {}
            subject, stored = message.get("subject", ""), message.get("time", "")
        if subject and not any(covers(one, subject) for one in asker.rights[EVENTS]):
            await self._refuse(reply, f"event {request.seq}", stored=stored)
            return
        await self._broker.publish(reply, found.data, headers=headers)

    async def _acknowledge(self, asker: Asker, subject: str, body: bytes) -> None:
        where = delivery(subject)
        mine = asker.owns(where.stream, where.consumer)
        if mine and body.startswith(_SETTLES):  # and not +NXT, which asks for another one
            await self._broker.publish(subject, body)

    async def _refuse(self, reply: str, what: str, *, stored: str = "") -> None:
        if not reply:
            return
        headers = {"Status": "403", "Description": "Permission Denied", REFUSED: what}
        if stored:
            headers["Nats-Time-Stamp"] = stored
        error = {"code": 403, "description": f"not to be read: {what}"}
        await self._broker.publish(reply, json.dumps({"error": error}).encode(), headers=headers)

    def _of_profiles(self, user: str) -> Asker:
        known = self._users().users.get(user)
        if known is None or not known.reads:
            raise Refusal("anything by way of the agent")
        return Asker(user=user, role="handler", place=known.host, reads=known.reads)

    def _users(self) -> Manifest:
        """The manifest as it is now: what was issued since counts."""
        stat = (self._store.folder / "manifest.yaml").stat()
        now = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if now != self._read:
            self._manifest, self._read = self._store.manifest(), now
        return self._manifest

    @property
    def _broker(self) -> Client:
        assert self._client is not None  # noqa: S101 (it is who we heard it from)
        return self._client
