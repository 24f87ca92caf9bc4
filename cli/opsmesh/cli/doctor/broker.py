"""What `doctor` asks the broker: does it answer, sync every write, and hold what it held?"""

from __future__ import annotations

from pathlib import Path

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from opsmesh.cli.config_file import mask_url
from opsmesh.cli.doctor.checks import Check
from opsmesh.cli.hub import health as hub_health
from opsmesh.cli.profiles import health as profile_health
from opsmesh.router import connection, listing, paths, running, server, state_format, topology
from opsmesh.router.errors import BrokerUnavailable, NeedsUpgrade, RouterError, StateTooNew
from opsmesh.router.settings import Settings

#: What to do about a stream whose messages are gone.
RESTORE = "restore the JetStream store, or: opsmesh doctor --accept-loss"
#: What a profile's verdict is to `doctor`; any other is wrong.
_MARKS = {"ok": True, "behind": True, "disabled": None, "elsewhere": None}


async def check(settings: Settings) -> tuple[list[Check], list[str]]:
    """The checks that ask the broker, and the streams whose messages are gone."""
    if not settings.nats.url and running.mesh() is None:
        return [Check(check="broker", ok=None, detail="no mesh runs", fix="opsmesh up")], []
    try:
        where = connection.endpoint(settings, role="admin")
        client = await connection.connect(where, name="doctor", patient=False)
    except BrokerUnavailable as error:
        return [Check(check="broker", ok=False, detail=str(error), fix=error.hint)], []
    checks = [Check(check="broker", ok=True, detail=f"{mask_url(where.url)} answers")]
    lost: list[str] = []
    known = topology.Known(topology.known_file())
    try:
        checks.append(await _form(client.jetstream()))
        for wanted in topology.streams(settings):
            name = wanted.name or ""
            checks.append(await _stream(client.jetstream(), name, known.last_seq(name)))
            if checks[-1].fix == RESTORE:
                lost.append(name)
        checks += await _profiles(client, settings)
        checks += hub_health.check(await hub_health.look(client, settings))
    except (NatsError, TimeoutError) as error:
        detail = f"JetStream does not answer: {error or type(error).__name__}"
        checks.append(
            Check(check="streams", ok=False, detail=detail, fix=profile_health.anew_with("broker"))
        )
    finally:
        await client.close()
    if not settings.nats.url and (own := server.known(Path(paths.state_dir()))):
        try:
            server.check_durable(own)
            checks.append(Check(check="durability", ok=True, detail="every write is synced"))
        except (RouterError, OSError, ValueError) as error:
            fix = str(getattr(error, "hint", ""))
            checks.append(Check(check="durability", ok=False, detail=str(error), fix=fix))
    return checks, lost


async def _form(js: JetStreamContext) -> Check:
    try:
        await topology.check_form(js)
    except (StateTooNew, NeedsUpgrade) as error:
        return Check(check="form", ok=False, detail=str(error), fix=error.hint)
    return Check(check="form", ok=True, detail=f"{state_format.FORMAT}, this version's")


async def _profiles(client: Client, settings: Settings) -> list[Check]:
    try:
        infos = await listing.consumers(client.jetstream(), topology.EVENTS)
        found = await profile_health.check(client, settings, infos)
    except NotFoundError:  # the stream's own check says so
        return []
    except ImportError as error:
        return [Check(check="profiles decided", ok=False, detail=str(error), fix="reinstall it")]
    return [
        Check(
            check=f"{one.kind} {one.profile}",
            ok=_MARKS.get(one.verdict, False),
            detail=one.detail,
            fix=one.fix,
        )
        for one in found
    ]


async def _stream(js: JetStreamContext, name: str, known: int) -> Check:
    try:
        found = (await js.stream_info(name)).state.last_seq
    except NotFoundError:
        if not known:
            detail, fix = "not there yet", "the agent creates it: opsmesh up"
            return Check(check=f"stream {name}", ok=False, detail=detail, fix=fix)
        found = 0
    detail = f"last sequence {found}" if found >= known else f"known up to {known}, found {found}"
    fix = "" if found >= known else RESTORE
    return Check(check=f"stream {name}", ok=not fix, detail=detail, fix=fix)
