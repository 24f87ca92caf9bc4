"""`opsmesh dlq`, beside a real broker and real handlers: chosen, sent again once, given up."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import pty
import re
import select
import subprocess
import sys
from typing import Any

import pytest
import structlog
from nats.aio.client import Client
from tests.cli.conftest import Cli
from tests.conftest import PATIENCE, eventually, mesh_client, run
from tests.handlers.mesh import Mesh, mesh, write_profiles

from opsmesh.cli.dlq.settle import Settled, settle
from opsmesh.handlers.profiles import overrides
from opsmesh.router import deadletter, trigger
from opsmesh.router.deadletter import Letter
from opsmesh.router.decide import EventRef
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas import ids, times


@pytest.fixture(autouse=True)
def quiet(log_of_before: None) -> None:
    """What handlers log beside a command is not part of what the command prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


FAILING = """
profiles:
  note:
    on: service.start.failed
    retry: {attempts: 1}
    actions: [command: ["false"]]
"""
MENDED = FAILING.replace('"false"', '"true"')


async def typed(cli: Cli, *arguments: str) -> Any:
    """The command's result, beside a mesh that runs in this loop."""
    return await asyncio.to_thread(cli, "dlq", *arguments)


async def dead(m: Mesh, count: int = 1) -> list[Letter]:
    """The dead letters, once there are so many."""

    async def there() -> list[Letter]:
        found = await m.letters()
        return found if len(found) >= count else []

    found: list[Letter] = await eventually(there)
    return found


async def write(client: Client, seq: int, **more: Any) -> int:
    """One letter as a handler writes it."""
    event_id = ids.derived(seq, "event")
    event = {
        "topic": "service.start.failed",
        "ts_utc": times.format_us(seq * 1_000_000),
        "source": "t",
        "component": "t",
        "severity": "error",
        "correlation_id": f"story-{seq}",
        "host": "laptop",
        "session_id": "",
        "workspace": "",
        "payload": {"unit": "backup.service"},
        "id": event_id,
    }
    facts = {
        "profile": "note",
        "host": "laptop",
        "topic": "service.start.failed",
        "data": json.dumps(event).encode(),
        "reason": f"the run took over {seq} s",
        "msg_id": f"m-{seq}",
        "event_id": event_id,
        "run_id": ids.derived(seq, "run"),
    }
    return await deadletter.write(client, **{**facts, **more})


def letters(*written: dict[str, Any]) -> None:
    """Letters in a mesh without handlers."""

    async def body() -> None:
        async with mesh_client() as client:
            for seq, more in enumerate(written, 1):
                assert await write(client, seq, **more) == seq

    run(body())


def listed(cli: Cli, *filters: str) -> list[int]:
    """Numbers that `dlq ls` shows."""
    return [letter["seq"] for letter in json.loads(cli("dlq", "ls", "--json", *filters).stdout)]


def test_retry_uses_the_definition_of_today(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A profile that failed, is mended in its file and asked for at once: the mended one runs,
    from its first step, and the retry is on record before the letter goes."""

    async def body() -> None:
        async with mesh(FAILING) as m:
            event = await m.publish()
            (letter,) = await dead(m)
            write_profiles(MENDED)
            result = await typed(cli, "retry", str(letter.seq))
            assert (result.exit_code, await m.letters()) == (0, [])
            (done,) = await m.wait("automation.run.succeeded")
            assert done.causation_id == event.id
            (record,) = await m.wait("automation.deadletter.redriven")
            assert record.payload["dlq_seq"] == letter.seq
            assert (record.correlation_id, record.causation_id) == (event.correlation_id, event.id)
            assert (await typed(cli, "retry", str(letter.seq))).exit_code == 3

    run(body())


class Cut(Exception):
    """The command ends here."""


@pytest.mark.parametrize("after", ["record", "trigger", "nothing, and two at once"])
def test_retried_twice_is_one_run(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """A retry that was cut off after any of its steps and said again, and two people at once: one
    record and one run, and the letter is gone."""

    async def body() -> None:
        async with mesh(FAILING) as m:
            await m.publish()
            (letter,) = await dead(m)
            write_profiles(MENDED)

            async def again() -> Settled:
                so_far = Settled(wanted=1)
                await settle(m.client, m.settings, [letter.seq], "retry", so_far=so_far)
                return so_far

            async def cut(*_: Any) -> int:
                raise Cut

            with monkeypatch.context() as patched:
                if after == "record":
                    patched.setattr(trigger, "publish", cut)
                if after == "trigger":
                    patched.setattr(deadletter, "remove_all", cut)
                if after in ("record", "trigger"):
                    with pytest.raises(Cut):
                        await again()
                    assert len(await m.letters()) == 1
            await asyncio.gather(again(), again())
            await m.wait("automation.run.succeeded")
            assert (await again()).gone == [letter.seq]
            await m.publish()  # what comes later has been handled: nothing is still under way
            await m.wait("automation.run.succeeded", 2)
            assert [one.trigger for one in await m.runs()].count("redrive") == 1
            assert len(await m.events("automation.deadletter.redriven")) == 1
            assert await m.letters() == []

    run(body())


def test_all_events_of_a_firing_are_sent_again(nats_server: EmbeddedServer, cli: Cli) -> None:
    """The letter of a run that was about several events brings all of them back."""
    profiles = """
profiles:
  note:
    on: service.start.failed
    collect: {window: 30s, max: 3}
    retry: {attempts: 1}
    actions: [command: ["false", "${{ size(events) }}"]]
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            events = [await m.publish() for _ in range(3)]
            (letter,) = await dead(m)
            assert [ref.id for ref in letter.events] == [event.id for event in events]
            assert "about 3 events" in (await typed(cli, "show", str(letter.seq))).stdout
            write_profiles(profiles.replace('"false"', "echo"))
            assert (await typed(cli, "retry", str(letter.seq))).exit_code == 0
            await m.wait("automation.run.succeeded")
            (again,) = [one for one in await m.runs() if one.trigger == "redrive"]
            assert [ref.id for ref in again.events] == [event.id for event in events]
            assert again.steps[0].output["stdout"].strip() == "3"

    run(body())


def test_what_no_profile_can_be_handed_stays(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A line that was no event, bytes that are none, an event that is gone, a profile that is: each
    stays with its reason and the next step, and the others go."""
    write_profiles(MENDED)
    letters(
        {},
        {"profile": "ingest", "data": b"{"},
        {"data": b"\xff"},
        {"data": b""},
        {"profile": "notes"},
    )
    result = cli("dlq", "retry", "--all", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [one["seq"] for one in found["done"]] == [1]
    assert {one["seq"]: one["why"].split(":")[0] for one in found["refused"]} == {
        2: "never became an event, and no profile can be handed it",
        3: "is no event",
        4: "its event had left the stream before the run began, and is not in the letter",
        5: "no profile 'notes' is in force",
    }
    assert listed(cli) == [2, 3, 4, 5]
    said = " ".join(cli("dlq", "retry", "5").stderr.split())
    assert "it may be called note now" in said
    assert "opsmesh dlq drop --all --profile notes" in said


def test_broken_profiles_refuse_a_retry(nats_server: EmbeddedServer, cli: Cli) -> None:
    """While the files are broken nothing is sent again: the handlers would use the old text."""
    letters({})
    write_profiles(MENDED.replace("actions", "actoins"))
    result = cli("dlq", "retry", "1")
    assert result.exit_code == 1
    assert "definition of before" in result.stderr
    assert listed(cli) == [1]


def test_disabled_profile_waits(
    nats_server: EmbeddedServer, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry for a disabled profile says so, and its run begins when it is enabled."""
    monkeypatch.setenv("OPSMESH_HOST", "laptop")  # the letter's: it acts where its event would have

    async def body() -> None:
        async with mesh(MENDED) as m:
            overrides.write("note", "disabled")
            await eventually(lambda: m.server.in_force("note").state == "disabled")
            seq = await write(m.client, 1)
            result = await typed(cli, "retry", str(seq))
            assert "note is disabled: its runs begin when it is enabled" in result.stderr
            (waiting,) = await eventually(m.runs)
            assert waiting.state == "queued"
            overrides.write("note", None)
            await m.wait("automation.run.succeeded")

    run(body())


def test_a_trigger_that_comes_back_keeps_its_event(nats_server: EmbeddedServer) -> None:
    """A redrive for a profile that has gone, and one whose bytes this version cannot read, are
    letters again, with all that was known, although their first letter was written just now."""

    async def body() -> None:
        async with mesh(MENDED) as m:
            refs = (EventRef("a", 1), EventRef("b", 2))
            again = trigger.Trigger(kind="redrive", id="t-1", origin=("EVENTS", 2, 7), events=refs)
            event = await m.publish("editor.save")
            stored = await m.client.jetstream().get_last_msg(
                "EVENTS", f"evt.{m.settings.host}.editor.save"
            )
            await trigger.send(m.client, "gone", stored.data or b"", again)
            (letter,) = await dead(m)
            assert (letter.profile, letter.topic, letter.event_id) == (
                "gone",
                "editor.save",
                event.id,
            )
            assert (letter.origin, letter.origin_seq, letter.events) == ("EVENTS", 2, refs)
            await write(m.client, 1, msg_id="dlq:note:EVENTS:9", data=b"\xff")
            nine = trigger.Trigger(kind="redrive", id="t-2", origin=("EVENTS", 9, 7))
            await trigger.send(m.client, "note", b"\xff", nine)
            assert (await dead(m, 3))[-1].reason.startswith("undecodable")

    run(body())


FILTERED = [
    {"reason": "cannot open /tmp/a: denied"},
    {"reason": "cannot open /tmp/b: denied", "host": "tower"},
    {"reason": "exit status 1 (x)", "topic": "editor.save"},
    {"reason": "Exit status 2", "profile": "other"},
]


def test_filters(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Each filter leaves out what it says, and all of them have to let a letter through."""
    letters(*FILTERED)
    assert listed(cli) == [1, 2, 3, 4]
    assert listed(cli, "--profile", "other") == [4]
    assert listed(cli, "--topic", "service.>") == [1, 2, 4]
    assert listed(cli, "--host", "tower") == [2]
    assert listed(cli, "--reason", "EXIT status") == [3, 4]
    assert listed(cli, "--reason", "(x)") == [3]
    assert listed(cli, "--reason", "/status [23]/") == [4]
    assert listed(cli, "--event", ids.derived(2, "event")) == [2]
    assert listed(cli, "--run", ids.derived(3, "run")) == [3]
    assert listed(cli, "--since", "1h") == [1, 2, 3, 4]
    assert listed(cli, "--until", "1h") == []
    assert listed(cli, "--reason", "denied", "--host", "laptop") == [1]
    assert listed(cli, "--limit", "2") == [3, 4]
    assert cli("dlq", "ls", "--reason", "/(/").exit_code == 2


def test_groups(nats_server: EmbeddedServer, cli: Cli) -> None:
    """--group counts equal failures, and names the command that settles exactly these."""
    letters(*FILTERED)
    first, *rest = json.loads(cli("dlq", "ls", "--group", "--json").stdout)
    assert (first["count"], first["reason"]) == (2, "cannot open <path>: denied")
    assert (first["example_seq"], len(rest)) == (2, 2)
    assert first["command"] == f"opsmesh dlq retry --all --group-key {first['key']}"
    assert first["key"] in cli("dlq", "ls", "--group").stdout
    assert listed(cli, "--group-key", first["key"]) == [1, 2]
    dropped = cli("dlq", "drop", "--all", "--group-key", first["key"], "--limit", "1", "--json")
    assert [one["seq"] for one in json.loads(dropped.stdout)["done"]] == [1]
    assert listed(cli) == [2, 3, 4]


def test_wrong_calls(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Many letters need --all, numbers and filters exclude each other, and one number that is not
    there means that nothing is done."""
    letters({})
    assert cli("dlq", "retry").exit_code == 2
    assert cli("dlq", "drop", "--profile", "note").exit_code == 2
    assert cli("dlq", "drop", "1", "--all").exit_code == 2
    assert cli("dlq", "drop", "1", "--profile", "note").exit_code == 2
    missing = cli("dlq", "drop", "1", "77")
    assert (missing.exit_code, listed(cli)) == (3, [1])
    assert "no dead letter 77; nothing was done" in missing.stderr


def test_drop_is_recorded_before_the_letter_goes(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dropped letter leaves an event that says who and why, also when the command is cut off
    before the letter goes; said again it leaves no second one."""

    async def body() -> None:
        async with mesh("profiles: {}") as m:
            seqs = [await write(m.client, seq) for seq in range(1, 4)]

            async def drop() -> Settled:
                so_far = Settled(wanted=3)
                await settle(m.client, m.settings, seqs, "drop", comment="old", so_far=so_far)
                return so_far

            async def cut(*_: Any) -> int:
                raise Cut

            with monkeypatch.context() as patched:
                patched.setattr(deadletter, "remove_all", cut)
                with pytest.raises(Cut):
                    await drop()
            assert len(await m.letters()) == 3
            assert len((await drop()).done) == 3
            records = await m.events("automation.deadletter.dropped")
            assert sorted(one.payload["dlq_seq"] for one in records) == seqs
            assert {one.payload["reason"] for one in records} == {"old"}

    run(body())


def test_letters_keep_their_text_and_always_fit(nats_server: EmbeddedServer) -> None:
    """Whatever a reason holds and however many events and errors there are, the letter is stored,
    and reads the same alone and in the list; one that has gone is not there, and not removed."""

    async def body() -> None:
        async with mesh_client() as client:
            refs = [EventRef(ids.uuid7(), 10**9 + n) for n in range(1000)]
            errors = [
                {"attempt": n, "at_us": 1, "step": "s", "error": "ü" * 9000} for n in range(9)
            ]
            reason = "naïve ‘quote’ " * 2000
            seq = await write(
                client, 1, reason=reason, events=refs, errors=errors, headers={"x": "y" * 30_000}
            )
            alone = await deadletter.get(client, seq)
            assert [one async for one in deadletter.letters(client)] == [alone]
            assert alone is not None
            assert alone.reason.startswith("naïve ‘quote’ naïve")
            assert list(alone.events) == refs
            assert await deadletter.remove_all(client, [seq, 99]) == 1
            assert await deadletter.get(client, seq) is None

    run(body())


def on_a_terminal(*argv: str, answer: str) -> str:
    """What the command writes to a terminal on which somebody types."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "opsmesh.cli.entry", "dlq", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    ):
        os.close(theirs)
        # what is read may end within a character
        said, text = "", codecs.getincrementaldecoder("utf-8")()
        while select.select([ours], [], [], PATIENCE)[0]:
            try:
                said += text.decode(os.read(ours, 4096))
            except OSError:  # the other side has ended
                break
            if answer and said.rstrip().endswith("[y/N]:"):
                os.write(ours, answer.encode())
                answer = ""
    os.close(ours)
    return said


def test_a_person_is_asked_and_sees_the_newest(nats_server: EmbeddedServer, cli: Cli) -> None:
    """On a terminal `ls` shows the newest 20 and says what else there is, and what is done to many
    is asked for with their count; a no changes nothing."""
    letters(*[{} for _ in range(25)])
    said = on_a_terminal("ls", answer="")
    assert "and 5 older ones: --all, or --group for a summary" in said
    assert re.findall(r"^(\d+) +\d\d:", said, re.MULTILINE) == [str(n) for n in range(6, 26)]
    said = on_a_terminal("drop", "--all", answer="n\n")
    assert "Give 25 letters of note up? [y/N]:" in said
    assert len(listed(cli)) == 25
    on_a_terminal("drop", "--all", "--limit", "24", answer="y\n")
    assert listed(cli) == [25]
