"""`opsmesh profile enable`, `disable` and `shadow`: whether a profile decides, and acts.

Events wait behind the cursor of a disabled profile. Who enables it says what becomes of them:
nothing is acted on late, or passed over, because nobody was asked.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated, Any, Final, NoReturn

import typer
from nats.aio.client import Client

from opsmesh.cli import output, session
from opsmesh.cli.events import moment
from opsmesh.cli.profiles import lookup as profile_lookup
from opsmesh.cli.profiles import shipped
from opsmesh.cli.session import with_client
from opsmesh.handlers.live import backlog, liveness
from opsmesh.handlers.live.backlog import Backlog, Choice
from opsmesh.handlers.live.consumers import consumer_name, runs_here
from opsmesh.handlers.live.liveness import Alive, Hangs
from opsmesh.handlers.live.position import Cursor, Fenced
from opsmesh.handlers.live.scope import decides
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.rule import ProfileState
from opsmesh.router.settings import Settings
from opsmesh.schemas import times

Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

#: Seconds that handlers of this host have to let a profile go that was disabled just now.
LETTING_GO: Final = 5.0
#: Topics that are named when asked what becomes of a backlog.
SHOWN: Final = 4
FLAGS: Final = "--backlog skip | replay | shadow | since:TIME (since:10m)"


def enable(
    name: Name,
    backlog: Annotated[
        str | None,
        typer.Option(
            metavar="skip|replay|shadow|since:T",
            help="What becomes of events that came while it was disabled.",
        ),
    ] = None,
    from_shipped: Annotated[
        bool, typer.Option("--shipped", help="One that comes with opsmesh: copy it first.")
    ] = False,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="With --shipped: one of its vars."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a profile act on this host. Asks what becomes of events that wait behind it.

    \b
    skip      they are passed over: it begins with what comes from now on
    replay    it acts on them, in their order
    shadow    they are decided and recorded, and it acts from now on
    since:T   it acts on what was stored since a time or an age (since:10m), also if that is before
              it was disabled; what has a run already does not run again

    Examples: opsmesh profile enable triage --backlog since:10m
              opsmesh profile enable --shipped service-triage
    """
    if from_shipped:
        if backlog is not None:
            output.fail("--shipped begins with what comes from now on", code=output.USAGE)
        shipped.enable(name, values or [], as_json=as_json)
        return
    if values:
        output.fail("--set goes with --shipped; edit a profile of yours", code=output.USAGE)
    choice, since_us = _parsed(backlog)
    profile = profile_lookup.find(profile_lookup.load(), name)
    before = profile_lookup.state_of(profile)
    if before != "disabled" and choice is not None:
        output.fail(
            f"{name} is {before}: what comes is decided, and nothing waits behind it",
            hint=f"to go back or ahead: opsmesh profile disable {name}, then enable it",
            code=output.USAGE,
        )
    facts: dict[str, Any] = {"profile": name, "state": "enabled", "before": before}
    said = ""
    if before == "disabled":
        try:
            said = _settle(profile, choice, since_us, facts, ask=not as_json and _on_a_terminal())
        except BrokerUnavailable:
            if choice is not None:
                raise
            said = "the mesh is down: what came meanwhile will be decided as in shadow"
    _choose(profile, "enabled")
    if as_json:
        output.as_json(facts)
        return
    output.note(f"{name} is enabled now{f': {said}' if said else ''}")


def disable(name: Name, as_json: AsJson = False) -> None:
    """Stop a profile from deciding on this host; events wait until it is enabled again.

    Runs that have begun an attempt end it; queued ones and retries wait too.
    """
    profile = profile_lookup.find(profile_lookup.load(), name)
    before = profile_lookup.state_of(profile)
    _choose(profile, "disabled")
    runs = _unfinished(name)
    if as_json:
        facts = {"profile": name, "state": "disabled", "before": before, "runs_waiting": runs}
        output.as_json(facts)
        return
    many = f"{runs} runs wait" if runs != 1 else "1 run waits"
    wait = f"; {many} with it, and none is dead-lettered" if runs else ""
    output.note(f"{name} is disabled now: events wait from here on{wait}")


def shadow(name: Name, as_json: AsJson = False) -> None:
    """Let a profile decide and record on this host, but not act.

    Events that came while it was disabled are decided in the same way.
    """
    profile = profile_lookup.find(profile_lookup.load(), name)
    before = profile_lookup.state_of(profile)
    _choose(profile, "shadow")
    if as_json:
        output.as_json({"profile": name, "state": "shadow", "before": before})
        return
    output.note(f"{name} is in shadow now; what it would do: opsmesh profile diff-shadow {name}")


def _parsed(text: str | None) -> tuple[Choice | None, int]:
    """The choice, and the time of `since:T`."""
    if text is None:
        return None, 0
    kind, colon, when = text.strip().partition(":")
    if kind == "since" and when:
        return "since", moment(when) or 0
    if not colon and kind in ("skip", "replay", "shadow"):
        return kind, 0  # type: ignore[return-value]  # one of the three literals
    raise typer.BadParameter(f"{text!r} is not one of skip, replay, shadow, since:TIME")


def _settle(
    profile: Profile, choice: Choice | None, since_us: int, facts: dict[str, Any], *, ask: bool
) -> str:
    """Move the cursor as chosen, and fill in `facts`; what a person is told of it."""
    settings = Settings()
    if not decides(session.scope(), profile.run_on):
        where = "at the hub" if session.scope() == "host" else "on each host by itself"
        return f"it is decided {where}, by the file and the state of each host that has it"
    if not runs_here(profile, settings.host):
        return f"it decides on {profile.run_on} alone, not on this host ({settings.host})"
    consumer = consumer_name(profile, settings.host)
    facts |= {"host": settings.host, "consumer": consumer}
    owner, waiting = with_client(lambda client, _: _look(client, profile, consumer, settings.host))
    if isinstance(owner, Alive):
        facts["owner"] = {"host": owner.host, "pid": owner.pid}
        if choice is not None:
            _still_owned(profile.name, owner)
        return f"it is live on {owner.host} (pid {owner.pid}) already, and nothing waits behind it"
    if waiting.count and choice is None:
        if not ask:
            what = f"{_summary(waiting)} wait behind {profile.name}: say what becomes of them"
            output.fail(what, hint=FLAGS, code=output.USAGE)
        choice, since_us = _ask(waiting)
    # what comes between this moment and the owner's first is not a backlog to be asked about
    chosen: Choice = choice or "replay"

    async def body(client: Client, _: Settings) -> Cursor | None:
        return await backlog.settle(
            client,
            profile,
            waiting,
            chosen,
            consumer=consumer,
            host=settings.host,
            since_us=since_us,
        )

    try:
        cursor = with_client(body)
    except Fenced:
        output.fail(
            f"somebody began to decide for {profile.name} meanwhile; nothing was changed",
            hint="opsmesh status",
        )
    facts["backlog"] = {
        "choice": choice,
        "pending": waiting.count,
        "oldest": None if waiting.oldest_us is None else times.format_us(waiting.oldest_us),
        "topics": dict(waiting.topics.most_common()),
        "cursor": None if cursor is None else cursor.seq,
        "shadow_until": None if cursor is None else cursor.shadow_until or None,
    }
    return _told(choice, waiting, since_us) + _scope(profile, settings.host)


async def _look(
    client: Client, profile: Profile, consumer: str, host: str
) -> tuple[Alive | None, Backlog]:
    """Who decides, and what waits; an owner that was just told to let go may need a moment."""
    deadline = time.monotonic() + LETTING_GO
    owner = await liveness.owner(client, consumer)
    while isinstance(owner, Alive) and owner.host == host and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        owner = await liveness.owner(client, consumer)
    if isinstance(owner, Hangs):
        output.fail(
            f"who decides for {profile.name} does not answer: nothing was changed",
            hint="opsmesh status",
        )
    if isinstance(owner, Alive):
        return owner, Backlog(cursor=None, revision=0)
    return None, await backlog.waiting(client, profile, consumer=consumer, host=host)


def _still_owned(name: str, owner: Alive) -> NoReturn:
    output.fail(
        f"{name} is live on {owner.host} (pid {owner.pid}): its events do not wait",
        hint="without --backlog it is enabled on this host as well",
    )


def _ask(waiting: Backlog) -> tuple[Choice, int]:
    question = f"{_summary(waiting)} wait: skip, replay, shadow, or replay since:T?"
    while True:
        try:
            choice, since_us = _parsed(typer.prompt(question, err=True))
        except typer.BadParameter as error:
            output.note(str(error))
            continue
        if choice is not None:
            return choice, since_us


def _summary(waiting: Backlog) -> str:
    """`37 events since 09:12:00.123 (service.start.failed 30, my.topic 7)`."""
    since = ""
    if waiting.oldest_us is not None:
        since = f" since {output.local(times.format_us(waiting.oldest_us))}"
    topics = [f"{topic} {count}" for topic, count in waiting.topics.most_common(SHOWN)]
    if len(waiting.topics) > SHOWN:
        topics.append(f"{len(waiting.topics) - SHOWN} other topics")
    named = f" ({', '.join(topics)})" if topics else ""
    return f"{_events(waiting.count)}{since}{named}"


def _told(choice: Choice | None, waiting: Backlog, since_us: int) -> str:
    count = _events(waiting.count)
    since = output.local(times.format_us(since_us))
    return {
        None: "nothing waited",
        "skip": f"{count} passed over",
        "replay": f"it acts on {count}",
        "shadow": f"{count} decided as in shadow",
        "since": f"it goes on from {since}",
    }[choice]


def _scope(profile: Profile, host: str) -> str:
    if profile.run_on == "origin":
        return f", on this host ({host}); other hosts decide their own events"
    return f", for all hosts that share {profile.name}" if profile.run_on == "any" else ""


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"


def _unfinished(name: str) -> int | None:
    """Runs that are not at their end; None when the mesh is down."""

    async def body(client: Client, settings: Settings) -> int:
        return len([run async for run in Ledger(client).runs(name) if not run.finished])

    try:
        return with_client(body)
    except BrokerUnavailable:
        return None


def _choose(profile: Profile, state: ProfileState) -> None:
    overrides.write(profile.name, None if profile.state == state else state)


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
