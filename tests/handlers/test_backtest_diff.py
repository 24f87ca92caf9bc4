"""`opsmesh profile backtest`: what differs between two versions and why, and what people see."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.conftest import mesh_client, run
from tests.handlers.backtests import (
    ACTIONS,
    BURSTS,
    DAY,
    MORNING,
    archived,
    message,
    profiles,
)
from typer.testing import CliRunner, Result

from opsmesh.cli.profiles.backtest import backtest as command
from opsmesh.handlers.backtest.backtest import backtest
from opsmesh.handlers.backtest.diff import compare, explain, same_decisions
from opsmesh.handlers.backtest.source import Stored
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.times import format_us


def explained(
    old: Sequence[Profile], new: Sequence[Profile], messages: list[Stored], **more: Any
) -> dict[str, list[tuple[str, str, str, str]]]:
    """Kind, event, clause and reason of every difference, by profile."""
    before = {profile.name: profile for profile in old}
    after = {profile.name: profile for profile in new}
    was = backtest(old, messages, host=None, until_us=MORNING + DAY)
    has = backtest(new, messages, host=None, until_us=MORNING + DAY)
    found = explain(
        compare({tested.profile: tested for tested in was.profiles}, has.profiles),
        before=before,
        after=after,
        read=lambda wants, last_us: [one for one in messages if one.time_us <= last_us],
        host=None,
        **more,
    )
    return {
        name: [(one.kind, one.firing.event_id, one.clause, one.reason) for one in some]
        for name, some in found.items()
    }


def test_diff() -> None:
    """The diff names exactly the events behind it, and why the other version did not fire."""
    old = profiles(
        """
        burst: {on: a.b, debounce: {window: 10s}}
        topics: {on: a.b}
        same: {on: a.c, where: event.payload.n > 1}
        """
    )
    new = profiles(
        """
        burst: {on: a.b, debounce: {window: 2m}}
        topics: {on: a.c, where: event.payload.n == 4}
        same: {on: a.c, where: event.payload.n >= 2}
        fresh: {on: nobody.listens}
        """
    )
    found = explained(old, new, BURSTS)
    reason = "57 s after the last event of its burst, the window is 120 s"
    assert found["burst"] == [("lost", "event-5", "debounce", reason)]
    other = "listens to a.c, not to a.b"
    assert found["topics"] == [
        *(("lost", f"event-{n}", "on", other) for n in range(1, 7)),
        ("gained", "event-11", "on", "listens to a.b, not to a.c"),
    ]
    assert found["fresh"] == [("gained", "event-12", "profile", "there is no profile of this name")]
    assert found.keys() == {"burst", "topics", "fresh"}
    assert explained(old, new, BURSTS, most=1)["topics"] == [("lost", "event-1", "on", other)]


def test_diff_of_timers() -> None:
    """A firing by a timer is known by the event that it is about."""
    old = profiles("one: {on: a.b, debounce: {window: 10s, edge: trailing}}")
    new = profiles("one: {on: a.b, debounce: {window: 10s, edge: leading}}")
    assert explained(old, new, BURSTS[:4]) == {
        "one": [
            (
                *("gained", "event-1", "debounce"),
                "waits for the burst to end, 10 s without a further event",
            ),
            (
                *("lost", "event-4", "debounce"),
                "1 s after the last event of its burst, the window is 10 s",
            ),
        ]
    }


def test_other_actions_decide_alike() -> None:
    """A version that differs in its actions alone is not decided twice."""
    [one] = profiles("one: {on: a.b, timeout: 5s}")
    [other] = profiles("one: {on: a.b, timeout: 9s}")
    [third] = profiles("one: {on: a.b, hops: 2}")
    assert one.hash != other.hash
    assert same_decisions(one, other)
    assert not same_decisions(one, third)


@dataclass
class Desk:
    """A person's files."""

    home: Path

    def write(self, name: str, *lines: str) -> str:
        """A profile file with these profiles; its path."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        body = [f"  {line[:-1]}, {ACTIONS}}}" for line in lines]
        path.write_text("\n".join(["profiles:", *body]) + "\n")
        return str(path)

    def run(self, *arguments: str) -> Result:
        """`opsmesh profile backtest` over the morning of BURSTS."""
        app = typer.Typer()
        app.command("backtest")(command)
        period = ("--since", format_us(MORNING), "--until", format_us(MORNING + 10**10))
        return CliRunner().invoke(app, [*arguments, *period])


@pytest.fixture
def desk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A configuration folder with one profile in force, and an archive."""
    monkeypatch.setenv("OPSMESH_HOST", "dev")
    made = Desk(home)
    made.write("config/opsmesh/profiles.yaml", "burst: {on: a.b, debounce: {window: 10s}}")
    archived(Path(paths.evidence_dir()), BURSTS)
    return made


def test_json(desk: Desk) -> None:
    """The JSON has every count, and every difference with its event."""
    file = desk.write("new.yaml", "burst: {on: a.b, debounce: {window: 2m}}", "fresh: {on: a.d}")
    result = desk.run(file, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "from": "evidence",
        "since": "2026-11-23T09:00:00.000000Z",
        "until": "2026-11-23T11:46:40.000000Z",
        "host": "dev",
        "messages": 12,
        "undecodable": 0,
        "profiles": [
            {
                "profile": "burst",
                "hash": profiles("burst: {on: a.b, debounce: {window: 2m}}")[0].hash,
                "events": 6,
                "firings": 1,
                "outcomes": {"fire": 1, "debounced": 5},
                "open": 0,
                "elsewhere": 0,
                "days": {
                    "2026-11-23": {"events": 6, "outcomes": {"fire": 1, "debounced": 5}},
                },
            },
            {
                "profile": "fresh",
                "hash": profiles("fresh: {on: a.d}")[0].hash,
                **{"events": 0, "firings": 0, "outcomes": {}},
                **{"open": 0, "elsewhere": 0, "days": {}},
            },
        ],
        "against": "current",
        "diff": [
            {
                "profile": "burst",
                "before": profiles("burst: {on: a.b, debounce: {window: 10s}}")[0].hash,
                "after": profiles("burst: {on: a.b, debounce: {window: 2m}}")[0].hash,
                **{"firings_before": 2, "firings_after": 1, "gained": 0, "lost": 1},
                "differences": [
                    {
                        "kind": "lost",
                        "event_id": "event-5",
                        "event_seq": 5,
                        "time": "2026-11-23T09:01:00.000000Z",
                        "topic": "a.b",
                        "workspace": "/src",
                        "host": "dev",
                        "fired": {
                            "at": "2026-11-23T09:01:00.000000Z",
                            "clause": "on",
                            "reason": "listens to a.b",
                            "events": ["event-5"],
                        },
                        "other": {
                            "outcome": "debounced",
                            "clause": "debounce",
                            "reason": "57 s after the last event of its burst, the window is 120 s",
                        },
                    }
                ],
            },
            {
                "profile": "fresh",
                "before": None,
                "after": profiles("fresh: {on: a.d}")[0].hash,
                **{"firings_before": 0, "firings_after": 0, "gained": 0, "lost": 0},
                "differences": [],
            },
        ],
    }


def test_text(desk: Desk) -> None:
    """People see a table of what there is, the diff, and on standard error how long it took."""
    file = desk.write("new.yaml", "burst: {on: a.b, debounce: {window: 2m}}", "fresh: {on: a.d}")
    result = desk.run(file)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:3] == ["PROFILE EVENTS FIRINGS DEBOUNCED", "burst 6 1 5", "fresh 0 0 0"]
    assert "2 firings before, 1 now: 0 gained, 1 lost" in lines
    assert "before fires: on: listens to a.b" in lines
    assert (
        "now not: debounced by debounce: 57 s after the last event of its burst, the window is "
        "120 s" in lines
    )
    assert lines[-1] == "the same firings as current: fresh"
    assert "12 messages in" in result.stderr


def test_fail_on_diff(desk: Desk) -> None:
    """The exit code is 1 when firings differ and that was asked for, and else 0."""
    same = desk.write("same.yaml", "burst: {on: a.b, debounce: {window: 10s}, timeout: 1s}")
    other = desk.write("other.yaml", "burst: {on: a.b, debounce: {window: 2m}}")
    assert desk.run(same, "--fail-on-diff").exit_code == 0
    assert desk.run(other, "--fail-on-diff").exit_code == 1
    assert desk.run(other, "--fail-on-diff", "--against", "none").exit_code == 0
    assert desk.run(other, "--fail-on-diff", "--against", other).exit_code == 0


def test_most_differences(desk: Desk) -> None:
    """Twenty differences of a profile are shown, all with --all."""
    folder = Path(paths.evidence_dir())
    archived(folder, [message(13 + n, 300 + n, "a.d") for n in range(30)])
    file = desk.write("new.yaml", "fresh: {on: a.d}")
    few, every = desk.run(file), desk.run(file, "--all")
    assert "and 10 more: --all" in few.stdout
    assert (few.stdout.count("  + "), every.stdout.count("  + ")) == (20, 30)


def test_other_hosts(desk: Desk) -> None:
    """Events of other hosts are left out, which is said, unless all hosts are asked for."""
    file = desk.write("new.yaml", "one: {on: a.b}")
    mine = desk.run(file, "--host", "elsewhere", "--json", "--against", "none")
    assert json.loads(mine.stdout)["profiles"][0]["elsewhere"] == 6
    assert "6 events of other hosts than elsewhere" in desk.run(file, "--host", "elsewhere").stderr
    every = json.loads(desk.run(file, "--all-hosts", "--json", "--against", "none").stdout)
    assert (every["host"], every["profiles"][0]["firings"]) == (None, 6)
    assert (every["against"], every["diff"]) == (None, [])


def test_broken_file(desk: Desk) -> None:
    """A file with errors is refused with each of them, and nothing is decided."""
    path = Path(desk.write("bad.yaml", "one: {on: a.b, debouce: 3s}", "two: {on: a.b, where: 1 +}"))
    result = desk.run(str(path))
    assert result.exit_code == 2
    assert result.stdout == ""
    said = " ".join(result.stderr.split())
    assert "bad.yaml:2:" in said
    assert "bad.yaml:3:" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["absent.yaml"], 3, "no such file"),
        (["{file}", "--against", "absent.yaml"], 2, "absent.yaml is refused"),
        (["{file}", "-p", "burts"], 3, "did you mean burst?"),
        (["{file}", "--host", "a", "--all-hosts"], 2, "contradict"),
    ],
)
def test_wrong_calls(desk: Desk, arguments: list[str], code: int, said: str) -> None:
    """A wrong call ends with an error that tells the next step."""
    file = desk.write("new.yaml", "burst: {on: a.b}")
    result = desk.run(*(argument.format(file=file) for argument in arguments))
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())


def test_nothing_archived(home: Path) -> None:
    """Without an archive the exit code is 3, and the stream is offered."""
    desk = Desk(home)
    result = desk.run(desk.write("new.yaml", "one: {on: a.b}"), "--from", "evidence")
    assert result.exit_code == 3
    assert "--from stream" in result.stderr


def test_stream(nats_server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an archive the stream is read, with the same result, and nothing is left behind."""
    monkeypatch.setenv("OPSMESH_HOST", "dev")

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            for one in BURSTS:
                await js.publish(f"evt.dev.{decode(one.data).topic}", one.data)

    run(body())
    desk = Desk(home)
    file = desk.write("new.yaml", "burst: {on: a.b, debounce: {window: 1h}}", "some: {on: a.c}")
    app = typer.Typer()
    app.command("backtest")(command)
    result = CliRunner().invoke(app, [file, "--since", "1h", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["from"] == "stream"
    assert [(one["events"], one["firings"]) for one in found["profiles"]] == [(6, 1), (5, 5)]
    assert list((home / "state" / "opsmesh").glob("backtest-*")) == []
