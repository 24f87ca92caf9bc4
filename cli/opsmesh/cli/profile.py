"""`opsmesh profile`: what fires on which events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.events import SEARCH_SLACK_US, stored
from opsmesh.cli.said import new_event, say
from opsmesh.cli.session import with_client
from opsmesh.handlers import overrides
from opsmesh.handlers.profiles import Profile, ProfileSet, json_schema, load_profiles
from opsmesh.handlers.serve import consumer_name
from opsmesh.router import paths, trigger
from opsmesh.router.decide import ProfileState
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import encode
from opsmesh.schemas.nearest import nearest
from opsmesh.schemas.registry import load_registry

app = typer.Typer(no_args_is_help=True, help="What fires on which events, and what it does.")

Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

COLOURS = {"enabled": "green", "shadow": "yellow", "disabled": "dim"}


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List profiles: their state, what they listen to, and how many events wait for each."""
    found = _load()
    chosen = overrides.read()
    waiting = _waiting(found)
    rows = [
        {
            "profile": profile.name,
            "state": chosen.get(profile.name, profile.state),
            "chosen": profile.name in chosen,
            "on": " ".join(profile.on),
            "steps": " ".join(step.id for step in profile.steps),
            "waiting": waiting.get(profile.name),
            "owner": profile.owner,
            "hash": profile.hash,
        }
        for profile in found.profiles.values()
    ]
    if as_json:
        output.as_json(rows)
    else:
        output.table(
            rows,
            ["profile", "state", "on", "steps", "waiting", "owner", "hash"],
            empty=f"no profiles yet; write one into {_file()} (see the README)",
            style=lambda name, value: COLOURS.get(value, "") if name == "state" else "",
        )
    if found.errors:
        _say_errors(found)
        raise typer.Exit(output.FAILED)


@app.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one profile as it is understood, with every default filled in."""
    profile = _find(_load(), name)
    record = _record(profile)
    if as_json:
        output.as_json(record)
        return
    console = output.console()
    console.print(f"[bold]{escape(profile.name)}[/] [dim]{profile.hash}[/]")
    console.print_json(json.dumps(record))


@app.command("validate")
def validate(
    folder: Annotated[
        Path | None, typer.Argument(help="A configuration folder; yours unless given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the profile files; exit code 1 when anything is wrong with them."""
    found = load_profiles(folder or Path(paths.config_dir()))
    if as_json:
        output.as_json(
            {
                "profiles": sorted(found.profiles),
                "errors": [
                    {
                        "file": str(error.file),
                        "line": error.line,
                        "column": error.column,
                        "message": error.message,
                        "hint": error.hint,
                    }
                    for error in found.errors
                ],
                "problems": [str(problem) for problem in found.problems],
            }
        )
    elif found.errors:
        _say_errors(found)
    else:
        output.note(f"{len(found.profiles)} profiles are valid: {', '.join(found.profiles)}")
    if found.errors:
        raise typer.Exit(output.FAILED)


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

    Examples: opsmesh profile trigger triage --event 01a205fc-…
              opsmesh profile trigger triage --topic service.start.failed --payload '{"unit": "x"}'
    """
    profile = _find(_load(), name)
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
            found = await _event(client, event or "")
            if found is None:
                output.fail(f"no event {event} is in the stream", code=output.NOT_FOUND)
            data, origin = found
            again = trigger.Trigger(kind="manual", id=again.id, origin=origin)
        await trigger.send(client, profile.name, data, again)
        return again.id

    with_client(body)
    output.note(f"triggered {profile.name}; see: opsmesh run ls --profile {profile.name}")


@app.command("enable")
def enable(name: Name) -> None:
    """Let a profile act. What came while it was disabled stays decided as it was."""
    _choose(name, "enabled")


@app.command("disable")
def disable(name: Name) -> None:
    """Stop a profile from acting; events are still decided, and recorded as suppressed.

    Work that it has begun waits until it is enabled again.
    """
    _choose(name, "disabled")


@app.command("shadow")
def shadow(name: Name) -> None:
    """Let a profile decide and record, but not act."""
    _choose(name, "shadow")


def _choose(name: str, state: ProfileState) -> None:
    profile = _find(_load(), name)
    overrides.write(profile.name, None if profile.state == state else state)
    output.note(f"{profile.name} is {state} now")


def _file() -> Path:
    return Path(paths.config_dir(), "profiles.yaml")


def _load() -> ProfileSet:
    return load_profiles(Path(paths.config_dir()))


def _find(found: ProfileSet, name: str) -> Profile:
    if name not in found.profiles:
        if found.errors:
            _say_errors(found)
            raise typer.Exit(output.FAILED)
        near = nearest(name, found.profiles)
        hint = f"did you mean {near}?" if near else "opsmesh profile ls"
        output.fail(f"no profile {name!r}", hint=hint, code=output.NOT_FOUND)
    return found.profiles[name]


def _say_errors(found: ProfileSet) -> None:
    for error in found.errors:
        output.note(str(error))


def _waiting(found: ProfileSet) -> dict[str, int]:
    """Events that wait for each profile's consumer; empty when the mesh is down."""

    async def body(client: Client, settings: Settings) -> dict[str, int]:
        js = client.jetstream()
        counts = {}
        for profile in found.profiles.values():
            try:
                info = await js.consumer_info(EVENTS, consumer_name(profile, settings.host))
            except JetStreamError:
                continue
            counts[profile.name] = (info.num_pending or 0) + (info.num_ack_pending or 0)
        return counts

    try:
        return with_client(body)
    except RouterError:
        return {}


async def _event(client: Client, event_id: str) -> tuple[bytes, tuple[str, int, int]] | None:
    ms = ids.unix_ms(event_id)
    since_us = None if ms is None else ms * 1000 - SEARCH_SLACK_US
    async for item in stored(client, since_us=since_us):
        if item.event is not None and item.event.id.startswith(event_id):
            return item.data, (EVENTS, item.seq, item.stored_us)
    return None


def _record(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "hash": profile.hash,
        "state": overrides.read().get(profile.name, profile.state),
        **profile.describe(),
    }
