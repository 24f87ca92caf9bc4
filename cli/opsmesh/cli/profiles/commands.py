"""`opsmesh profile`: what fires on which events."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from rich.markup import escape

from opsmesh.cli import output, session
from opsmesh.cli.events import find
from opsmesh.cli.profiles import backtest as profile_backtest
from opsmesh.cli.profiles import cases as profile_cases
from opsmesh.cli.profiles import lookup as profile_lookup
from opsmesh.cli.profiles import shadow as profile_shadow
from opsmesh.cli.profiles import shipped
from opsmesh.cli.profiles import states as profile_states
from opsmesh.cli.profiles import suggest as profile_suggest
from opsmesh.cli.profiles import validate as profile_validate
from opsmesh.cli.said import new_event, say
from opsmesh.cli.session import with_client
from opsmesh.handlers.live import shadow_diff
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.scope import decides
from opsmesh.handlers.profiles import candidates, overrides
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, json_schema
from opsmesh.router import paths, trigger
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import encode
from opsmesh.schemas.registry import load_registry

app = typer.Typer(no_args_is_help=True, help="What fires on which events, and what it does.")

Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

app.command("enable")(profile_states.enable)
app.command("disable")(profile_states.disable)
app.command("shadow")(profile_states.shadow)
app.command("try")(profile_shadow.try_)
app.command("diff-shadow")(profile_shadow.diff_shadow)
app.command("promote")(profile_shadow.promote)
app.command("validate")(profile_validate.validate)
app.command("test")(profile_cases.profile_test)
app.command("backtest")(profile_backtest.backtest)
app.command("suggest")(profile_suggest.suggest)

COLOURS = {"enabled": "green", "shadow": "yellow", "disabled": "dim", "candidate": "yellow"}


@app.command("ls")
def ls(
    from_shipped: Annotated[
        bool, typer.Option("--shipped", help="Those that come with opsmesh, enabled or not.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List profiles: their state, what they listen to, and how many events wait for each."""
    if from_shipped:
        shipped.ls(as_json)
        return
    found = profile_lookup.load()
    chosen = overrides.read()
    trials = candidates.load(Path(paths.config_dir()))
    waiting, since = _live(found, trials)
    rows: list[dict[str, Any]] = [
        {
            "profile": profile.name,
            "state": chosen.get(profile.name, profile.state),
            "chosen": profile.name in chosen,
            "on": " ".join(profile.on),
            "steps": " ".join(step.id for step in profile.steps),
            "waiting": waiting.get(profile.name),
            "owner": profile.owner,
            "hash": profile.hash,
            "candidate": _trial(trials.profiles.get(profile.name), since),
        }
        for profile in found.profiles.values()
    ]
    new = [one for name, one in trials.profiles.items() if name not in found.profiles]
    if as_json:
        fresh = [
            {"profile": one.name, "state": "candidate", "candidate": _trial(one, since)}
            for one in new
        ]
        output.as_json(rows + fresh)
    else:
        table = []
        for row in rows:
            table += [row, *_trial_rows(trials.profiles.get(row["profile"]), since)]
        for one in new:
            table += _trial_rows(one, since)
        output.table(
            table,
            ["profile", "state", "on", "steps", "waiting", "owner", "hash"],
            empty=f"no profiles yet; write one into {_file()} (see the README)",
            style=lambda name, value: COLOURS.get(value, "") if name == "state" else "",
        )
    profile_lookup.say_errors(found)
    profile_lookup.say_errors(trials)
    if found.errors or trials.errors:
        raise typer.Exit(output.FAILED)


@app.command("show")
def show(
    name: Name,
    from_shipped: Annotated[
        bool, typer.Option("--shipped", help="The text of one that comes with opsmesh.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one profile as it is understood, with every default filled in."""
    if from_shipped:
        shipped.show(name, as_json)
        return
    profile = profile_lookup.find(profile_lookup.load(), name)
    record = _record(profile)
    if as_json:
        output.as_json(record)
        return
    console = output.console()
    console.print(f"[bold]{escape(profile.name)}[/] [dim]{profile.hash}[/]")
    console.print_json(json.dumps(record))


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of profiles.yaml, for an editor's completion."""
    output.as_json(json_schema())


@app.command("trigger")
def trigger_(
    name: Name,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help="Run it for this stored event's id.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", "-t", help="Run it for a new event of this topic.")
    ] = None,
    payload: Annotated[str, typer.Option(help="That event's payload, as JSON.")] = "{}",
) -> None:
    """Run a profile now, whatever its conditions say.

    It acts where the event would have: on the event's own host for `run_on: origin`. A host that is
    away finds it when it is back.

    Examples: opsmesh profile trigger triage --event 01a205fc-…
              opsmesh profile trigger triage --topic service.start.failed --payload '{"unit": "x"}'
    """
    profile = profile_lookup.find(profile_lookup.load(), name)
    if not decides(session.scope(), profile.run_on):
        at_hub = session.scope() == "host"
        output.fail(
            f"{name} is decided {'at the hub' if at_hub else 'on each host by itself'}",
            hint=f"opsmesh {'--hub ' if at_hub else ''}profile trigger {name} …",
        )
    if (event is None) == (topic is None):
        output.fail("say for what: --event ID or --topic TOPIC", code=output.USAGE)
    try:
        content = json.loads(payload)
    except ValueError as error:
        output.fail(f"--payload is not JSON: {error}", code=output.USAGE)
    if not isinstance(content, dict):
        output.fail("--payload is not a JSON object", code=output.USAGE)

    async def body(client: Client, settings: Settings) -> str:
        again = trigger.Trigger(kind="manual", id=ids.uuid7())
        if topic is not None:
            load_registry(Path(paths.config_dir(), "topics.yaml")).check(topic, content)
            made = new_event(settings, topic, content)
            await say(client, made)
            data = encode(made)
        else:
            found = await find(client, event or "")
            if found is None:
                output.fail(f"no event {event} is in the stream", code=output.NOT_FOUND)
            data, origin = found.data, (EVENTS, found.seq, found.stored_us)
            again = trigger.Trigger(kind="manual", id=again.id, origin=origin)
        await trigger.send(client, profile.name, data, again)
        return again.id

    with_client(body)
    output.note(f"triggered {profile.name}; see: opsmesh run ls --profile {profile.name}")


def _file() -> Path:
    return Path(paths.config_dir(), "profiles.yaml")


def _live(found: ProfileSet, trials: ProfileSet) -> tuple[dict[str, int], dict[str, int]]:
    """Events that wait for each profile, and when each candidate began; empty when the mesh is
    down."""

    async def body(client: Client, settings: Settings) -> tuple[dict[str, int], dict[str, int]]:
        js = client.jetstream()
        counts, since = {}, {}
        for profile in found.profiles.values():
            try:
                info = await js.consumer_info(EVENTS, consumer_name(profile, settings.host))
            except JetStreamError:
                continue
            counts[profile.name] = (info.num_pending or 0) + (info.num_ack_pending or 0)
        for trial in trials.profiles.values():
            with contextlib.suppress(JetStreamError):
                if version := await shadow_diff.began(client, trial, host=settings.host):
                    since[trial.name] = version.at_us
        return counts, since

    try:
        return with_client(body)
    except RouterError:
        return {}, {}


def _trial(trial: Profile | None, since: dict[str, int]) -> dict[str, Any] | None:
    if trial is None:
        return None
    began_us = since.get(trial.name)
    return {
        "hash": trial.hash,
        "since": None if began_us is None else times.format_us(began_us),
    }


def _trial_rows(trial: Profile | None, since: dict[str, int]) -> list[dict[str, Any]]:
    if trial is None:
        return []
    began_us = since.get(trial.name)
    when = "not begun" if began_us is None else f"since {output.local(times.format_us(began_us))}"
    return [
        {
            "profile": f"{trial.name} · candidate {trial.hash[:8]} {when}",
            "state": "candidate",
            "on": " ".join(trial.on),
            "steps": " ".join(step.id for step in trial.steps),
            "hash": trial.hash,
        }
    ]


def _record(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "hash": profile.hash,
        "state": overrides.read().get(profile.name, profile.state),
        **profile.describe(),
    }
