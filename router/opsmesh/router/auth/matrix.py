"""Every role against every kind of subject, tried at a real server: what is promised, and what is.

The one rule: what is expected stands here in full (docs/security.md is made of it), not derived
from `permissions`: a permission that says too much must differ from something.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import nats
from nats.aio.client import Client

from opsmesh.router import connection, server, topology
from opsmesh.router.auth import creds
from opsmesh.router.auth.permissions import INBOX
from opsmesh.router.auth.reads import ASK, REFUSED, Reads
from opsmesh.router.connection import Endpoint
from opsmesh.router.gate import Gate
from opsmesh.router.roles import ROLES
from opsmesh.router.settings import Settings

#: The host of the roles that are tried.
HERE: Final = "here"
#: A handler that reads what its profiles listen to: here `triage`, of its own host's events.
OF_PROFILES: Final = "handler --profiles"
#: Who is tried.
KINDS: Final = (*ROLES, OF_PROFILES)

_READS: Final = {
    "profile-triage-on-here": Reads(profile="triage", subjects=["evt.here.service.start.failed"])
}
#: Connections that try something at the same time: each waits mostly.
AT_ONCE: Final = 16
#: Seconds that the agent has for an answer.
PATIENCE: Final = 5.0

_ALL: Final = frozenset(KINDS)
_WRITER: Final = frozenset({"handler", "admin", OF_PROFILES})
_HANDLER: Final = frozenset({"handler", "admin"})
_READERS: Final = frozenset({"viewer", "handler", "admin"})
_ASKER: Final = frozenset({"viewer", "sink", OF_PROFILES})
_LOOKER: Final = frozenset({"viewer", "sink"})
_ADMIN: Final = frozenset({"admin"})


@dataclass(frozen=True)
class Line:
    """One thing that may be done, and who may. `{user}` in a subject is the one who tries, `{gate}`
    its way to the agent; what is to `ask` is asked there, by its subject after `$JS.`."""

    what: str
    does: Literal["publish", "subscribe", "ask"]
    subject: str
    who: frozenset[str]
    body: bytes = b""


LINES: Final = (
    Line(
        "its own host's events",
        "publish",
        "evt.here.shell.command.failed",
        _ALL - {"viewer", "sink"},
    ),
    Line(
        "losses that the archive finds", "publish", "evt.here.mesh.gap.detected", _ALL - {"viewer"}
    ),
    Line("another host's events", "publish", "evt.elsewhere.shell.command.failed", _ADMIN),
    Line(
        "events for its host's agent",
        "publish",
        "ingest.here.shell.command.failed",
        frozenset({"producer", "admin"}),
    ),
    Line("events for another host's agent", "publish", "ingest.elsewhere.a.b", _ADMIN),
    Line(
        "lines that are no events",
        "publish",
        "dlq.ingest.here.invalid",
        _ALL - {"viewer", "sink", OF_PROFILES},
    ),
    Line(
        "dead letters of its profiles",
        "publish",
        "dlq.triage.elsewhere.service.start.failed",
        _WRITER,
    ),
    Line("dead letters of others", "publish", "dlq.other.elsewhere.service.start.failed", _HANDLER),
    Line("its own host's decisions", "publish", "dec.triage.here", _WRITER),
    Line("its own host's firings", "publish", "fir.triage.here", _WRITER),
    Line("another host's decisions", "publish", "dec.triage.elsewhere", _ADMIN),
    Line("a run by hand", "publish", "trg.triage", _HANDLER),
    Line("a person's answer", "publish", "ctl.runs.answer", _HANDLER),
    Line("what waits for an answer", "publish", "ctl.runs.questions", _READERS),
    Line("the ledger of its profiles", "publish", "$KV.opsmesh-runs.triage.1", _WRITER),
    Line("the ledger of others", "publish", "$KV.opsmesh-runs.other.1", _HANDLER),
    Line(
        "what its profiles remember",
        "publish",
        "$KV.opsmesh-windows.profile-triage-on-here.cursor",
        _WRITER,
    ),
    Line("what others remember", "publish", "$KV.opsmesh-windows.profile-other.cursor", _HANDLER),
    Line("the text of its profiles", "publish", "ver.profile-triage-on-here", _WRITER),
    Line("the text of others", "publish", "ver.profile-other", _HANDLER),
    Line("evidence bundles", "publish", "$O.opsmesh-evidence.M.x", _HANDLER),
    Line("who decides a profile", "publish", "own.profile-other", _WRITER | {"viewer"}),
    Line("a question to the agent", "publish", "{gate}x", _ASKER | _ADMIN),
    Line("a question in another's name", "publish", "ask.somebody.x", _ADMIN),
    Line("a question in another viewer's", "publish", "ask.=viewer.somebody.x", _ADMIN),
    Line("the progress of any reader", "publish", "$JS.ACK.EVENTS.x.1.1.1.1.0", _HANDLER),
    Line("how a stream is", "publish", "$JS.API.STREAM.INFO.EVENTS", _HANDLER),
    Line("one stored message", "publish", "$JS.API.STREAM.MSG.GET.EVENTS", _HANDLER),
    Line("the newest of a subject", "publish", "$JS.API.DIRECT.GET.EVENTS.evt.here.a.b", _HANDLER),
    Line("a reader without a name", "publish", "$JS.API.CONSUMER.CREATE.EVENTS", _HANDLER),
    Line("what a reader has waiting", "publish", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.x", _HANDLER),
    Line("a durable reader", "publish", "$JS.API.CONSUMER.CREATE.EVENTS.x.evt.>", _HANDLER),
    Line("the end of a reader", "publish", "$JS.API.CONSUMER.DELETE.EVENTS.x", _HANDLER),
    Line("what another stream holds", "publish", "$JS.API.STREAM.MSG.GET.DLQ", _HANDLER),
    Line("the end of a dead letter", "publish", "$JS.API.STREAM.MSG.DELETE.DLQ", _ADMIN),
    Line("the end of events", "publish", "$JS.API.STREAM.PURGE.EVENTS", _ADMIN),
    Line("another shape of a stream", "publish", "$JS.API.STREAM.UPDATE.EVENTS", _ADMIN),
    Line("the end of a stream", "publish", "$JS.API.STREAM.DELETE.EVENTS", _ADMIN),
    Line("somebody's answer", "publish", "_INBOX.somebody.x", _WRITER),
    Line(
        "an event of its profiles, by the agent",
        "ask",
        "API.DIRECT.GET.EVENTS.evt.here.service.start.failed",
        _ASKER,
    ),
    Line(
        "its profile's reader, by the agent",
        "ask",
        "API.CONSUMER.DURABLE.CREATE.EVENTS.profile-triage-on-here",
        frozenset({OF_PROFILES}),
        b'{"stream_name": "EVENTS", "config": {"durable_name": "profile-triage-on-here",'
        b' "ack_policy": "none", "filter_subjects": ["evt.here.service.start.failed"]}}',
    ),
    Line(
        "that reader for every host, by the agent",
        "ask",
        "API.CONSUMER.DURABLE.CREATE.EVENTS.profile-triage-on-here",
        frozenset(),
        b'{"stream_name": "EVENTS", "config": {"durable_name": "profile-triage-on-here",'
        b' "ack_policy": "none", "filter_subjects": ["evt.*.service.start.failed"]}}',
    ),
    Line(
        "another host's event, by the agent",
        "ask",
        "API.DIRECT.GET.EVENTS.evt.elsewhere.service.start.failed",
        _LOOKER,
    ),
    Line(
        "any event, by the agent",
        "ask",
        "API.STREAM.MSG.GET.EVENTS",
        _LOOKER,
        b'{"last_by_subj": "evt.>"}',
    ),
    Line(
        "what another stream holds, by the agent",
        "ask",
        "API.STREAM.MSG.GET.DLQ",
        frozenset({"viewer"}),
        b'{"last_by_subj": ">"}',
    ),
    Line(
        "a reader of all events, by the agent",
        "ask",
        "API.CONSUMER.CREATE.EVENTS",
        _LOOKER,
        b'{"stream_name": "EVENTS", "config": {"ack_policy": "none"}}',
    ),
    Line(
        "a reader that is sent elsewhere, by the agent",
        "ask",
        "API.CONSUMER.CREATE.EVENTS",
        frozenset(),
        b'{"stream_name": "EVENTS", "config": {"deliver_subject": "ctl.runs.cancel"}}',
    ),
    Line(
        "its archive's reader, by the agent",
        "ask",
        "API.CONSUMER.CREATE.EVENTS.evidence-sink-on-here.evt.>",
        frozenset({"sink"}),
        b'{"stream_name": "EVENTS", "config": {"durable_name": "evidence-sink-on-here",'
        b' "ack_policy": "all", "filter_subject": "evt.>"}}',
    ),
    Line(
        "another archive's reader, by the agent",
        "ask",
        "API.CONSUMER.DELETE.EVENTS.evidence-sink-on-elsewhere",
        frozenset(),
    ),
    Line(
        "the end of its profile's events, by the agent",
        "ask",
        "API.STREAM.PURGE.EVENTS",
        frozenset(),
        b'{"filter": "evt.here.service.start.failed"}',
    ),
    Line("the end of a stream, by the agent", "ask", "API.STREAM.DELETE.EVENTS", frozenset()),
    Line("its own answers", "subscribe", "_INBOX.{user}.x", _ALL),
    Line("somebody's answers", "subscribe", "_INBOX.somebody.>", _ADMIN),
    Line("everybody's answers", "subscribe", "_INBOX.>", _ADMIN),
    Line("events as they come", "subscribe", "evt.>", frozenset({"viewer", "admin"})),
    Line(
        "what is asked on its host",
        "subscribe",
        "evt.here.automation.approval.*",
        _READERS | {OF_PROFILES},
    ),
    Line("who asks for its profile", "subscribe", "own.profile-triage-on-here", _WRITER),
    Line("who asks for others", "subscribe", "own.profile-other", _HANDLER),
    Line("what is asked of the agent", "subscribe", "ask.>", _ADMIN),
    Line("questions to handlers", "subscribe", "ctl.runs.answer", _HANDLER),
    Line("the ledger as it changes", "subscribe", "$KV.opsmesh-runs.>", _HANDLER),
    Line("everything", "subscribe", ">", _ADMIN),
)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a role may by this table (`expected`), and what the server said."""

    role: str
    what: str
    does: str
    subject: str
    expected: bool
    allowed: bool


async def prove() -> list[Tried]:
    """Every role against every line, at a server of its own with an agent's gate."""
    with tempfile.TemporaryDirectory(prefix="opsmesh-auth-") as folder:
        running = server.EmbeddedServer(server.prepare(Path(folder), name=HERE))
        await asyncio.to_thread(running.start)
        try:
            return await _all(running.broker, Path(folder))
        finally:
            await asyncio.to_thread(running.stop)


async def _all(broker: server.Broker, folder: Path) -> list[Tried]:
    # the owner comes last: it may end the stream that the others are asked about
    kinds: dict[str, tuple[str, Path]] = {}
    for kind, role, reads in (
        (OF_PROFILES, "handler", _READS),
        ("viewer", "viewer", None),
        ("sink", "sink", None),
    ):
        user, file = f"other-{kind.replace(' --', '-')}", folder / f"{kind}.creds"
        file.write_text(broker.auth.issue(user, role=role, host=HERE, reads=reads))
        kinds[kind] = (user, file)
    for own in ROLES:  # what stays on the machine of the broker
        kinds.setdefault(own, (f"{HERE}-{own}", broker.credentials(own)))
    where = Endpoint(url=broker.url, credentials=broker.credentials("admin"))
    agent = await connection.connect(where, name="gate", patient=False)
    try:
        await topology.ensure(agent.jetstream(), Settings(), topology.Known(folder / "known.json"))
        await Gate(broker.auth, quiet=True).attach(agent)
        await agent.flush()
        found = [await _kind(broker.url, kind, user, file) for kind, (user, file) in kinds.items()]
        return [one for some in found for one in some]
    finally:
        await agent.close()


async def _kind(url: str, kind: str, user: str, file: Path) -> list[Tried]:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(line: Line) -> Tried:
        async with free:
            return Tried(
                role=kind,
                what=line.what,
                does=line.does,
                subject=_subject(line, file, user),
                expected=kind in line.who,
                allowed=await tried(url, file, user, line),
            )

    return await asyncio.gather(*(one(line) for line in LINES))


def _subject(line: Line, file: Path, user: str) -> str:
    gate = creds.read(file).gate or f"{ASK}.{user}."
    prefix = gate if line.does == "ask" else ""
    return prefix + line.subject.format(user=user, gate=gate)


async def tried(url: str, file: Path, user: str, line: Line) -> bool:
    """Whether the server, or the agent, lets it: with a plain client, which believes nothing of
    itself."""
    refused: list[str] = []
    subject = _subject(line, file, user)

    async def error(said: Exception) -> None:
        refused.append(str(said))

    client: Client = await nats.connect(
        url,
        user_credentials=str(file),
        inbox_prefix=f"{INBOX}.{user}",
        error_cb=error,
        allow_reconnect=False,
    )
    try:
        answers = None
        if line.does == "ask":
            inbox = client.new_inbox()
            answers = await client.subscribe(inbox)
            await client.publish(subject, line.body, reply=inbox)
        elif line.does == "publish":
            await client.publish(subject, line.body)
        else:
            await client.subscribe(subject)
        # The server answers in order: what it refuses, before a PING that comes after it. nats-py
        # sends the first PING past what its flusher has not written yet.
        await client.flush()
        await client.flush()
        if any("ermissions" in text for text in refused):
            return False
        if answers is None:
            return True
        return REFUSED not in ((await answers.next_msg(timeout=PATIENCE)).headers or {})
    finally:
        with contextlib.suppress(Exception):
            await client.close()
