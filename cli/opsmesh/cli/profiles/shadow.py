"""`opsmesh profile try`, `diff-shadow` and `promote`: a new text beside the one in force, on live
events, until a person has seen enough."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from nats.aio.client import Client
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.events import moment
from opsmesh.cli.profiles import lookup as profile_lookup
from opsmesh.cli.session import with_client
from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.live import shadow_diff
from opsmesh.handlers.live.shadow_diff import Apart, ShadowDiff
from opsmesh.handlers.profiles import candidates, overrides, promotion
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.router import paths
from opsmesh.router.decide import Decision
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.settings import Settings
from opsmesh.schemas import times

Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

#: Differences that are shown, unless all are asked for.
SHOWN: Final = 20
#: Why there is nothing to compare yet.
NOT_BEGUN: Final = "it has not begun to decide on this host; handlers take it up once they run"
#: Events of one firing that are named.
EVENTS_SHOWN: Final = 5


def try_(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A profile file with one profile.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(metavar="PROFILE", help="End the trial of this profile.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a profile's new text decide in shadow, beside the one in force.

    It sees every event from now on, its decisions are on record, and it runs nothing. A profile
    that is not in force yet can be tried as well.

    Example: opsmesh profile try new-triage.yaml
    """
    if stop is not None and file is None:
        _stop(stop, as_json)
        return
    if file is None or stop is not None:
        output.fail("say what: a FILE, or --stop PROFILE", code=output.USAGE)
    profile_lookup.there(file)
    profile, errors = candidates.read(file)
    if profile is None:
        for error in errors:
            output.note(str(error))
        raise typer.Exit(output.FAILED)
    found = profile_lookup.load()
    active = found.profiles.get(profile.name)
    if active is None:
        profile_lookup.stop_at_errors(found)
    elif active.hash == profile.hash:
        output.fail(f"{file} does what {profile.name} does already: there is nothing to try")
    path = candidates.put(_config(), profile.name, file.read_bytes())
    if as_json:
        facts = {"profile": profile.name, "hash": profile.hash, "new": active is None}
        output.as_json({**facts, "file": str(path)})
        return
    beside = "beside the one in force" if active else "and there is none in force yet"
    output.note(
        f"{profile.name} · candidate {profile.hash[:8]} decides in shadow, {beside}\n"
        f"see what it would do: opsmesh profile diff-shadow {profile.name}"
    )


def diff_shadow(
    name: Name,
    since: Annotated[
        str | None, typer.Option(help="Only firings since so long ago (2h) or a time.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help=f"Every difference, not the first {SHOWN}.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show where a profile and its candidate part on live events, and why.

    For a profile in shadow that has no candidate: what it would have fired.

    Example: opsmesh profile diff-shadow triage --since 2h
    """
    diff, compared = _diff(name, moment(since))
    if diff is None:
        output.fail(f"{name}: {NOT_BEGUN}", hint="opsmesh status")
    if as_json:
        output.as_json(_as_dict(diff, compared))
        return
    _print(diff, compared, most=None if everything else SHOWN)


def promote(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a candidate in force, in place of the text that is.

    Only this profile's lines of its file change; the file of before is kept as FILE.bak. A new
    profile gets a file of its own in profiles.d. One in shadow without a candidate is enabled.

    Example: opsmesh profile promote triage
    """
    found = profile_lookup.load()
    profile_lookup.stop_at_errors(found)
    candidate, active = _candidate(name), found.profiles.get(name)
    try:
        diff, compared = _diff(name, None)
        if diff is None:
            output.note(f"what it would do is not known: {NOT_BEGUN}")
        elif not as_json:
            _print(diff, compared, most=SHOWN)
    except BrokerUnavailable as error:
        output.note(f"what it would do is not known: {error}")
    if not yes:
        if as_json:
            output.fail("--json does not ask: say --yes", code=output.USAGE)
        what = "in place of the text in force" if candidate and active else "in force"
        typer.confirm(f"Put {name} {what}?", abort=True, err=True)
    if candidate is not None:
        facts, said = _put_in_force(candidate, active)
    else:
        active = profile_lookup.find(found, name)
        overrides.write(name, None if active.state == "enabled" else "enabled")
        facts = {"profile": name, "hash": active.hash, "state": "enabled"}
        said = f"{name} is enabled now"
    if as_json:
        output.as_json(facts)
    else:
        output.note(said)


def _put_in_force(candidate: Profile, active: Profile | None) -> tuple[dict[str, Any], str]:
    name = candidate.name
    try:
        file = promotion.promote(_config(), candidate, active)
    except (ConfigError, OSError) as error:
        output.fail(
            f"nothing was changed: {error}", hint="the candidate goes on deciding in shadow"
        )
    state = overrides.read().get(name, candidate.state)
    facts = {"profile": name, "hash": candidate.hash, "state": state, "file": str(file)}
    said = f"{name} {candidate.hash[:8]} is in force now, in {file}"
    if state != "enabled":
        said += f"; it is {state}: opsmesh profile enable {name}"
    return facts, said


def _stop(name: str, as_json: bool) -> None:
    if not candidates.remove(_config(), name):
        known = ", ".join(candidates.load(_config()).profiles) or "there is none"
        output.fail(f"no candidate {name!r}", hint=f"candidates: {known}", code=output.NOT_FOUND)
    if as_json:
        output.as_json({"profile": name, "stopped": True})
        return
    output.note(f"the candidate of {name} is removed; what it decided stays on record")


def _config() -> Path:
    return Path(paths.config_dir())


def _candidate(name: str) -> Profile | None:
    found = candidates.load(_config())
    file = f"{candidates.FOLDER}/{name}.yaml"
    for error in found.errors:
        if error.file == file:
            output.fail(str(error), hint=f"opsmesh profile try --stop {name}")
    return found.profiles.get(name)


def _diff(name: str, since_us: int | None) -> tuple[ShadowDiff | None, bool]:
    """The differences, None before the first event; and whether there are two texts to compare."""
    candidate = _candidate(name)
    found = profile_lookup.load()
    if candidate is not None:
        trial, active = candidate, found.profiles.get(name)

        async def body(client: Client, settings: Settings) -> ShadowDiff | None:
            return await shadow_diff.compare(
                client, trial, active, host=settings.host, since_us=since_us
            )

        return with_client(body), active is not None
    profile = profile_lookup.find(found, name)
    if profile_lookup.state_of(profile) != "shadow":
        output.fail(
            f"{name} has no candidate, and is not in shadow",
            hint="opsmesh profile try FILE",
            code=output.NOT_FOUND,
        )

    async def by_itself(client: Client, settings: Settings) -> ShadowDiff | None:
        return await shadow_diff.alone(client, profile, host=settings.host, since_us=since_us)

    return with_client(by_itself), False


def _print(diff: ShadowDiff, compared: bool, *, most: int | None) -> None:
    console = output.console()
    began = output.local(times.format_us(diff.began_us))
    kind = "candidate" if compared else "in shadow,"
    console.print(
        f"[bold]{escape(diff.profile)}[/] · {kind} {diff.hash[:8]} since {began} "
        f"[dim](EVENTS {diff.from_seq} to {diff.until_seq}, on {escape(diff.host)})[/]"
    )
    if not compared:
        console.print(f"would have fired {len(diff.apart)} times")
    else:
        active, candidate = len(diff.only("active")), len(diff.only("candidate"))
        console.print(
            f"fired by both {len(diff.both)} · [red]only active {active}[/] · "
            f"[green]only candidate {candidate}[/]"
        )
    for one in diff.apart[:most]:
        mark = "[green]+[/]" if one.only == "candidate" else "[red]-[/]"
        fired = one.fired
        when = output.local(times.format_us(fired.at_us))
        console.print(f"{mark} {when}  {escape(fired.topic)}  [dim]{escape(fired.event_id)}[/]")
        if len(one.events) > 1:
            console.print(f"    [dim]{_events(one)}[/]")
        console.print(f"    {one.only if compared else 'it'}: {escape(_reason(fired))}")
        if compared:
            other = "candidate" if one.only == "active" else "active"
            why = " · ".join(filter(None, (one.other.outcome, one.other.clause, one.other.reason)))
            console.print(f"    [dim]{other}: {escape(why)}[/]")
    if most is not None and len(diff.apart) > most:
        output.note(f"{len(diff.apart) - most} more: --all")


def _reason(fired: Decision) -> str:
    """Why it fires, whether in shadow or not."""
    if fired.clause != "shadow":
        return f"{fired.clause}: {fired.reason}"
    return fired.reason.removeprefix("would have fired (").removesuffix(
        "); the profile is in shadow"
    )


def _events(one: Apart) -> str:
    named = [f"{ref.seq}" for ref in one.events[:EVENTS_SHOWN]]
    more = len(one.events) - len(named)
    return (
        f"{len(one.events)} events: EVENTS {', '.join(named)}{f' and {more} more' if more else ''}"
    )


def _as_dict(diff: ShadowDiff, compared: bool) -> dict[str, Any]:
    return {
        "profile": diff.profile,
        "host": diff.host,
        "hash": diff.hash,
        "compared": compared,
        "since": times.format_us(diff.began_us),
        "from_seq": diff.from_seq,
        "until_seq": diff.until_seq,
        "both": [_fired(one) for one in diff.both],
        "only_active": [_apart(one, compared) for one in diff.only("active")],
        "only_candidate": [_apart(one, compared) for one in diff.only("candidate")],
    }


def _fired(one: Decision) -> dict[str, Any]:
    return {
        "time": times.format_us(one.at_us),
        "event": one.event_id,
        "seq": one.event_seq,
        "topic": one.topic,
    }


def _apart(one: Apart, compared: bool) -> dict[str, Any]:
    facts = _fired(one.fired)
    facts["events"] = [{"id": ref.id, "seq": ref.seq} for ref in one.events]
    facts["reason"] = _reason(one.fired)
    if compared:
        facts["other"] = {
            "outcome": one.other.outcome,
            "clause": one.other.clause,
            "reason": one.other.reason,
        }
    return facts
