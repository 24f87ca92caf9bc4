"""`opsmesh feedback` and `opsmesh profile suggest`, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.conftest import Cli
from tests.conftest import mesh_client, run
from tests.handlers.mesh import write_profiles
from typer.testing import CliRunner, Result

from opsmesh.cli.profiles.suggest import suggest
from opsmesh.handlers.live import firing
from opsmesh.handlers.profiles import candidates, overrides
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import paths
from opsmesh.router.publish import Publisher
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event, complete, decode, subject

PROFILES = """
profiles:
  note:
    on: service.start.failed
    where: event.severity == "error"
    false_positives: {budget: 40%, of_last: 10, then: shadow}
    actions: [command: ["true"]]
  quiet:
    on: service.start.failed
    actions: [command: ["true"]]
"""


@pytest.fixture
def suggesting(home: Path) -> Cli:
    """`profile suggest` on an app of the test's own."""
    app = typer.Typer()
    app.command("suggest")(suggest)
    app.command("other")(lambda: None)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, ["suggest", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return invoke


@pytest.fixture
def happened(nats_server: EmbeddedServer) -> Callable[..., list[Run]]:
    """Stores an event for each unit, with a run of the profile for it."""
    write_profiles(PROFILES)

    def happen(*units: str, profile: str = "note", trigger: Trigger | None = None) -> list[Run]:
        one = load_profiles(Path(paths.config_dir())).profiles[profile]

        async def body() -> list[Run]:
            settings = Settings()
            defaults = {
                **{"host": settings.host, "session_id": "1", "workspace": "/src"},
                **{"source": "test", "component": "test", "severity": "error"},
            }
            made = []
            async with mesh_client(settings) as client:
                for unit in units:
                    raw = {"topic": "service.start.failed", "payload": {"unit": unit}}
                    data, event = complete(raw, defaults=defaults, now_us=times.now_us())
                    where = subject(event.host, event.topic)
                    ack = await Publisher(client).publish(where, data, msg_id=event.id)
                    new = firing.new_run(
                        one,
                        event,
                        consumer="profile-note",
                        host=settings.host,
                        seq=ack.seq,
                        stored_us=times.now_us(),
                        trigger=trigger,
                    )
                    assert await Ledger(client).create(new) is not None
                    made.append(new)
            return made

        made: list[Run] = run(body())
        return made

    return happen


def stored(topic: str) -> list[Event]:
    """Every stored event of the topic."""

    async def body() -> list[Event]:
        async with mesh_client() as client:
            found = scan(client, EVENTS, subjects=[f"evt.*.{topic}"])
            return [decode(msg.data) async for msg in found]

    events: list[Event] = run(body())
    return events


Happened = Callable[..., list[Run]]


def test_mark(cli: Cli, happened: Happened) -> None:
    """A run is marked by the beginning of its id, with the command's name or without."""
    one, *_ = happened("a", "b", "c")
    result = cli("feedback", one.run_id, "--false-positive", "--note", "by hand")
    assert result.exit_code == 0
    assert "is marked false positive" in result.stderr
    assert "1 false positive in its last 3 runs (33.3%), the budget is 40%" in result.stderr
    assert cli("feedback", "mark", "--useful", one.run_id).exit_code == 0
    first, second = stored("automation.feedback.recorded")
    assert (first.payload["verdict"], first.payload["comment"]) == ("false_positive", "by hand")
    assert (second.payload["verdict"], second.run_id) == ("useful", one.run_id)
    assert first.component == "cli"


def test_over_budget(cli: Cli, happened: Happened) -> None:
    """Beyond the budget the person is told once, the profile is in shadow, and how to undo it."""
    one, other = happened("a", "b")
    facts = json.loads(cli("feedback", one.run_id, "--false-positive", "--json").stdout)
    assert facts["shadowed"]
    assert facts["told"] == stored("automation.profile.over_budget")[0].id
    assert facts["budget"] == {
        **{"budget": 0.4, "of_last": 10, "then": "shadow"},
        **{"runs": 2, "false_positives": 1, "rate": 0.5, "over": True},
    }
    assert overrides.read() == {"note": "shadow"}
    said = cli("feedback", other.run_id, "--false-positive").stderr
    assert "note is over its budget, as was told before" in said
    assert "opsmesh profile enable" not in said
    assert cli("profile", "enable", "note").exit_code == 0
    assert overrides.read() == {}


def test_over_budget_is_said(cli: Cli, happened: Happened) -> None:
    """What happened to the profile is said with the next steps."""
    [one] = happened("a")
    said = cli("feedback", one.run_id, "--false-positive").stderr
    assert "note is over its budget of false positives" in said
    assert "opsmesh profile suggest note" in said
    assert "note is in shadow now on this host" in said
    assert "undo it: opsmesh profile enable note" in said


def test_asked_for_by_hand(cli: Cli, happened: Happened) -> None:
    """A run that was asked for by hand can be judged, and does not count."""
    happened("a")
    [by_hand] = happened("b", trigger=Trigger(kind="manual", id="t1"))
    result = cli("feedback", by_hand.run_id, "--false-positive")
    assert "does not count" in result.stderr
    assert "0 false positives in 1 run (0%)" in result.stderr


def test_wrong_calls(cli: Cli, happened: Happened) -> None:
    """A run that is not there, one of several, no verdict and both are told apart."""
    one, other = happened("a", "b")
    common = one.run_id[: next(n for n, c in enumerate(one.run_id) if other.run_id[n] != c)]
    for arguments, code, said in (
        (("nothing", "--useful"), 3, "no run nothing is known"),
        (("", "--useful"), 3, "no run"),
        ((common, "--useful"), 2, f"2 runs begin with {common}"),
        ((one.run_id,), 2, "--false-positive or --useful"),
        ((one.run_id, "--useful", "--false-positive"), 2, "--false-positive or --useful"),
        (("ls", "--profile", "nobody"), 3, "no profile 'nobody'"),
    ):
        result = cli("feedback", *arguments)
        assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert stored("automation.feedback.recorded") == []


def test_profile_that_is_gone(cli: Cli, happened: Happened) -> None:
    """A run of a profile that is no longer in the files can be judged."""
    [one] = happened("a", profile="quiet")
    write_profiles("profiles: {}")
    result = cli("feedback", one.run_id, "--useful")
    assert result.exit_code == 0
    assert "no profile quiet is in force" in result.stderr


def test_ls(cli: Cli, happened: Happened) -> None:
    """The rates of the last judged runs, of all runs, and of those that the budget looks at."""
    runs = happened(*"abcde")
    happened("f", profile="quiet")
    for one, verdict in zip(runs, ("--false-positive", "--useful", "--useful"), strict=False):
        cli("feedback", one.run_id, verdict)
    note, quiet = json.loads(cli("feedback", "ls", "--json").stdout)
    assert note == {
        **{"profile": "note", "runs": 5, "false_positives": 1, "useful": 2},
        "judged": {"runs": 3, "false_positives": 1, "rate": 0.333333},
        "all": {"runs": 5, "false_positives": 1, "rate": 0.2},
        "budget": {
            **{"budget": 0.4, "of_last": 10, "then": "shadow"},
            **{"runs": 5, "false_positives": 1, "rate": 0.2, "over": False},
        },
    }
    assert quiet["budget"] is None
    assert quiet["judged"]["rate"] is None
    [last] = json.loads(cli("feedback", "ls", "-p", "note", "--last", "2", "--json").stdout)
    assert last["judged"] == {"runs": 2, "false_positives": 0, "rate": 0.0}
    table = cli("feedback", "ls").stdout
    assert "33.3% (1/3)" in table
    assert "40% of 10" in table


def judged(cli: Cli, happened: Happened) -> None:
    """Two false positives of one unit, a useful run of another, and others."""
    runs = happened("x", "x", "y", "z")
    verdicts = ("--useful", "--false-positive", "--false-positive")
    for one, verdict in zip((runs[2], runs[0], runs[1]), verdicts, strict=True):
        assert cli("feedback", one.run_id, verdict).exit_code == 0


def test_suggest(cli: Cli, suggesting: Cli, happened: Happened) -> None:
    """The clause is shown with what it removes and loses, and the firings before and after."""
    judged(cli, happened)
    result = suggesting("note")
    assert result.exit_code == 0, result.stderr
    assert '1. where  event.payload.unit != "x"' in result.stdout
    told = "removes 2 of 2 false positives, loses 0 of 1 useful and 0 of 1 unjudged runs"
    assert told in result.stdout
    assert "backtest over 30d: 4 firings before, 2 after" in result.stdout
    facts = json.loads(suggesting("note", "--json").stdout)
    best: dict[str, Any] = facts["suggestions"][0]
    assert best["removes"] == {"false_positives": 2, "useful": 0, "unjudged": 0}
    assert best["told"] == told
    assert (facts["firings"], best["firings"]) == (4, 2)


def test_suggest_writes_a_candidate(cli: Cli, suggesting: Cli, happened: Happened) -> None:
    """-o writes the whole changed profile, which can be tried, and no file that is there."""
    judged(cli, happened)
    file = Path(paths.config_dir(), "new.yaml")
    assert suggesting("note", "-o", str(file)).exit_code == 0
    profile, errors = candidates.read(file)
    assert errors == []
    assert profile is not None
    assert profile.content["where"] == '(event.severity == "error") && event.payload.unit != "x"'
    assert profile.false_positives is not None
    assert cli("profile", "try", str(file)).exit_code == 0
    again = suggesting("note", "-o", str(file))
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    nowhere = suggesting("note", "-o", str(file / "below"))
    assert nowhere.exit_code == 2


def test_too_few_marks(cli: Cli, suggesting: Cli, happened: Happened) -> None:
    """With fewer than two false positives it says how to mark them, and ends with 1."""
    [one] = happened("x")
    cli("feedback", one.run_id, "--false-positive")
    result = suggesting("note")
    assert result.exit_code == 1
    assert "1 of note's runs marked" in result.stderr
    assert "opsmesh feedback RUN --false-positive" in result.stderr
    assert suggesting("nobody").exit_code == 3


def test_nothing_to_suggest(cli: Cli, suggesting: Cli, happened: Happened) -> None:
    """When nothing tells the runs apart it says so, ends with 1, and writes nothing."""
    runs = happened("x", "x", "x")
    for one, verdict in zip(runs, ("false-positive", "false-positive", "useful"), strict=True):
        cli("feedback", one.run_id, f"--{verdict}")
    file = Path(paths.config_dir(), "new.yaml")
    result = suggesting("note", "-o", str(file))
    assert (result.exit_code, "nothing to suggest" in result.stderr) == (1, True)
    assert not file.exists()
