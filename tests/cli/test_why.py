"""`opsmesh why` and `why-not`, against records that the real engine made."""

from __future__ import annotations

import asyncio
import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.cli.conftest import Cli
from tests.conftest import mesh_client, run
from tests.handlers.explaining import Records
from tests.handlers.mesh import mesh, write_profiles

from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.live.records import records
from opsmesh.router import paths, trigger
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS, FIRINGS, VERSIONS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, encode

PROFILES = """
profiles:
  triage:
    on: service.start.failed
    where: event.severity == "error" && event.payload.unit.endsWith(".service")
    debounce: {window: 10s, key: payload.unit}
    actions: [command: ["true"]]
  shady:
    state: shadow
    on: "service.>"
    actions: [command: ["true"]]
  digest:
    on: service.start.failed
    collect: {window: 1m}
    actions: [command: ["true"]]
  calm:
    on: service.start.failed
    debounce: {window: 30s, edge: trailing}
    actions: [command: ["true"]]
  tests:
    on: python.test.failed
    actions: [command: ["true"]]
"""
#: One profile, of which nothing else is said.
ONE = """
profiles:
  triage:
    on: service.start.failed
    actions: [command: ["true"]]
"""
UNIT = {"unit": "backup.service"}


def failures(*payloads: dict[str, Any], profiles: str = PROFILES) -> list[Event]:
    """Units that failed, decided, and every timer with them."""

    async def body() -> list[Event]:
        async with mesh_client() as client:
            made = Records(client)
            found = [await made.publish("service.start.failed", one) for one in payloads]
            await made.decide(profiles, later_s=120)
            return found

    found: list[Event] = run(body())
    return found


def late(profiles: str = ONE) -> Event:
    """A unit that failed after everything was decided."""

    async def body() -> Event:
        async with mesh_client() as client:
            made = Records(client)
            await made.decide(profiles)
            return await made.publish("service.start.failed", UNIT)

    found: Event = run(body())
    return found


def answers(cli: Cli, *arguments: str) -> dict[str, Any]:
    """`why --json` by profile."""
    result = cli("why", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return {one["profile"]: one for one in json.loads(result.stdout)["profiles"]}


def verdict(answer: dict[str, Any], clause: str, finding: int = 0) -> dict[str, Any]:
    """One clause's verdict."""
    found = answer["findings"][finding]["verdicts"]
    return next(one for one in found if one["clause"] == clause)


def test_firing(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A firing tells the clause that decided, each condition with its values, and its run."""
    (event,) = failures(UNIT)
    triage = answers(cli, event.id)["triage"]
    assert (triage["status"], triage["state"]) == ("decided", "enabled")
    (finding,) = triage["findings"]
    assert (finding["decision"]["outcome"], finding["decision"]["clause"]) == ("fire", "where")
    assert (finding["recorded"], finding["took_us"]) == (True, 41.5)
    assert finding["run"]["state"] == "succeeded"
    where = verdict(triage, "where")
    assert where["decided"]
    assert [part["true"] for part in where["parts"]] == [True, True]
    text = cli("why", event.id, "--profile", "triage").stdout
    assert "triage  fired (where)" in text
    assert "all of its 2 conditions are true" in text
    assert 'event.payload.unit = "backup.service"' in text
    assert f"opsmesh run show {finding['run']['run_id']}" in text
    assert f"text {triage['hash']}, enabled then" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_beginning_of_an_id(nats_server: EmbeddedServer, cli: Cli) -> None:
    """An event is found by the beginning of its id; one that several have is a wrong call."""
    first, second = failures(UNIT, UNIT)
    assert "triage" in answers(cli, first.id[:23])
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first.id, second.id, strict=True))
    shared = "".join(letter for letter, _ in same)
    result = cli("why", shared)
    assert result.exit_code == 2
    assert "2 events begin with" in result.stderr
    assert cli("why", "no-such-id").exit_code == 3
    assert cli("why").exit_code == 2
    result = cli("why", first.id, "-p", "triag")
    assert (result.exit_code, "did you mean triage?" in result.stderr) == (3, True)


def test_derived_again(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A miss that event and text give is not on record, and is made again."""
    (event,) = failures({"unit": "tmp.mount"})
    triage = answers(cli, event.id)["triage"]
    (finding,) = triage["findings"]
    assert (finding["recorded"], finding["decision"]["outcome"]) == (False, "filtered")
    assert verdict(triage, "debounce")["answer"] == "not_asked"
    text = cli("why", event.id, "-p", "triage").stdout
    assert "triage  filtered (where)  re-derived" in text
    assert 'event.payload.unit.endsWith(".service") is false' in text


def test_delayed_firings(nats_server: EmbeddedServer, cli: Cli) -> None:
    """An event that was held shows the later decision: of its window for another event, or of the
    firing that holds it."""
    first, last = failures(UNIT, UNIT)
    found = answers(cli, first.id)
    assert [one["role"] for one in found["digest"]["findings"]] == ["own", "held"]
    held = found["digest"]["findings"][1]
    assert [ref[0] for ref in held["decision"]["events"]] == [first.id, last.id]
    assert held["run"]["state"] == "succeeded"
    roles = [one["role"] for one in found["calm"]["findings"]]
    assert roles == ["own", "replaced", "window"]
    assert found["calm"]["findings"][2]["decision"]["event_id"] == last.id
    assert [one["role"] for one in answers(cli, last.id)["calm"]["findings"]] == ["own", "own"]
    text = cli("why", first.id, "-p", "calm").stdout
    assert "a later event took its place" in text
    assert "the burst of 2 events since" in text


def test_others_in_one_line(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Profiles that do not listen to the topic are named at the end; --all shows them in full."""
    (event,) = failures(UNIT)
    text = cli("why", event.id).stdout
    assert "1 more profile: the event is not on what it listens to (tests)" in text
    assert "would have fired" in text
    full = cli("why", event.id, "--all").stdout
    assert "listens to python.test.failed, not to service.start.failed" in full
    assert answers(cli, event.id, "--all")["tests"]["status"] == "unheard"


def test_not_decided_yet(nats_server: EmbeddedServer, cli: Cli) -> None:
    """An event behind the cursor, with nobody who decides, says so and names the next step."""
    event = late()
    triage = answers(cli, event.id)["triage"]
    assert triage["status"] == "undecided"
    assert triage["text"] == "nobody decides for this profile; it is the next one"
    assert triage["hint"] == "opsmesh status"


def test_queue_before_it(nats_server: EmbeddedServer, cli: Cli) -> None:
    """With an owner that is behind, the events before it are counted, and the owner is named; an
    owner that does not answer is told as that."""

    async def body() -> tuple[str, str]:
        async with mesh_client() as client:
            made = Records(client)
            await made.decide(ONE)
            await made.publish("service.start.failed", UNIT)
            await made.publish("other.topic", {})
            await made.publish("service.start.failed", UNIT)
            event = await made.publish("service.start.failed", UNIT)
            consumer = f"profile-triage-on-{made.settings.host}"

            async def answer(msg: Msg) -> None:
                await msg.respond(b'{"host": "dev", "pid": 77, "seq": 0, "since_us": 0}')

            subscription = await client.subscribe(f"own.{consumer}", cb=answer)
            await client.flush()  # the broker knows of it before the command asks
            one = await asyncio.to_thread(answers, cli, event.id)
            await subscription.unsubscribe()
            await client.subscribe(f"own.{consumer}")
            await client.flush()
            other = await asyncio.to_thread(answers, cli, event.id)
            return one["triage"]["text"], other["triage"]["text"]

    answering, hanging = run(body())
    assert answering == "its owner (dev, pid 77) is at sequence 0; 2 events wait before it"
    assert hanging.startswith("its owner does not answer: at sequence 0 for ")


def test_disabled_and_new_profiles(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A disabled profile, and one whose first version is younger than the event, say so."""

    async def body() -> tuple[Event, Event]:
        async with mesh_client() as client:
            made = Records(client)
            before = await made.publish("service.start.failed", UNIT)
            await made.decide(ONE, from_seq=2)
            event = await made.publish("service.start.failed", UNIT)
            await made.decide(ONE.replace("on:", "state: disabled\n    on:"), from_seq=2)
            return before, event

    before, event = run(body())
    assert "did not exist then: its first version" in answers(cli, before.id)["triage"]["text"]
    triage = answers(cli, event.id)["triage"]
    assert triage["text"].startswith("the profile is disabled since ")
    assert triage["hint"] == "opsmesh profile enable triage"


def test_profile_without_a_version(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A profile that is only in the file says why nobody has taken it up."""
    (event,) = failures(UNIT, profiles=ONE)
    write_profiles(ONE + ONE.replace("profiles:", "").replace("triage", "fresh").strip("\n") + "\n")
    assert answers(cli, event.id)["fresh"]["text"] == "no process has taken it up yet"
    write_profiles(ONE.replace("triage", "far").replace("on:", "run_on: mars\n    on:"))
    assert "it runs on mars" in answers(cli, event.id)["far"]["text"]


def test_event_of_the_archive(nats_server: EmbeddedServer, cli: Cli) -> None:
    """What only the archive still has is explained from there, and marked."""
    (event,) = failures(UNIT)
    archived()
    result = json.loads(cli("why", event.id, "--json").stdout)
    assert (result["archived"], result["seq"]) == (True, 1)
    triage = next(one for one in result["profiles"] if one["profile"] == "triage")
    assert triage["findings"][0]["decision"]["outcome"] == "fire"
    assert "from the archive" in cli("why", event.id).stdout


def test_by_hand_beside_a_miss(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A trigger's firing stands beside the miss that event and text give."""
    strict = ONE.replace("actions:", "where: event.payload.unit == 'x'\n    actions:")

    async def body() -> None:
        async with mesh(strict) as m:
            event = await m.publish()
            await m.decided("triage", 2)
            data, where = encode(event), (EVENTS, 2, times.now_us())
            asked = trigger.Trigger(kind="manual", id=ids.uuid7(), origin=where)
            await trigger.send(m.client, "triage", data, asked)
            await m.wait("automation.run.succeeded")
            found = await asyncio.to_thread(answers, cli, event.id)
            made = [(f["recorded"], f["decision"]["clause"]) for f in found["triage"]["findings"]]
            assert made == [(False, "where"), (True, "trigger")]
            assert found["triage"]["findings"][1]["run"]["state"] == "succeeded"
            again = await asyncio.to_thread(cli, "why", event.id, "--rederive")
            assert (again.exit_code, "a person's trigger" in again.stdout) == (0, True)

    run(body())


def archived() -> None:
    """Everything of the stream is in the archive alone."""

    async def body() -> None:
        async with mesh_client() as client:
            with Archive(Settings().evidence_dir, stream=EVENTS, segment_bytes=2**20) as archive:
                async for msg in scan(client, EVENTS):
                    where = delivery(msg.reply)
                    archive.event(where.stream_seq, where.timestamp_ns // 1000, msg.data)
                archive.commit()
            await client.jetstream().purge_stream(EVENTS)

    run(body())


def test_texts_that_are_gone(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A decision whose text is no longer on record is shown without its clauses."""
    (event,) = failures(UNIT, profiles=ONE)

    async def body() -> None:
        async with mesh_client() as client:
            await client.jetstream().purge_stream(VERSIONS)

    run(body())
    triage = answers(cli, event.id)["triage"]
    assert triage["findings"][0]["verdicts"] == []
    assert "no longer on record" in cli("why", event.id).stdout


def test_same_bytes(nats_server: EmbeddedServer, cli: Cli) -> None:
    """--rederive makes the event's recorded decisions again, and tells that they are the same."""
    (event,) = failures(UNIT)
    result = cli("why", event.id, "--rederive", "-p", "triage")
    assert result.exit_code == 0
    assert "triage fired (where)" in result.stdout
    assert "bytes" in result.stdout
    assert "1 decision made again: 1 the same, 0 different, 0 not checked" in result.stdout
    (miss,) = failures({"unit": "tmp.mount"}, profiles=ONE.replace("on:", "run_on: mars\n    on:"))
    assert cli("why", miss.id, "--rederive", "-p", "triage").exit_code == 3


def test_difference_ends_with_1(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A record that its inputs do not give is shown field by field, with exit code 1."""
    (event,) = failures(UNIT, profiles=ONE)

    async def forge(client: Client) -> None:
        [record] = [one async for one in records(client)]
        forged = msgspec.structs.replace(record.decision, reason="because")
        host = Settings().host
        await client.jetstream().publish(f"fir.triage.{host}", forged.encode())

    async def body() -> None:
        async with mesh_client() as client:
            await forge(client)
            assert (await client.jetstream().stream_info(FIRINGS)).state.messages == 2

    run(body())
    result = cli("why", "--rederive", "--since", "1h")
    assert result.exit_code == 1
    assert 'recorded   "because"' in result.stdout
    assert "2 decisions made again: 1 the same, 1 different, 0 not checked" in result.stdout
    found = json.loads(cli("why", "--rederive", "--since", "1h", "--json").stdout)
    assert found["counts"] == {"same": 1, "different": 1, "unchecked": 0}
    assert [one["field"] for one in found["checks"][0]["differences"]] == ["reason"]
    assert cli("why", event.id, "--rederive").exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("why", "--rederive"),
        ("why", "x", "--since", "1h"),
        ("why", "x", "--rederive", "--since", "1h"),
        ("why-not", "triage", "--at", "1h", "--event", "x"),
        ("why-not", "triage", "--at", "yesterday"),
    ],
)
def test_wrong_calls(cli: Cli, arguments: tuple[str, ...]) -> None:
    """A call that says too little or too much is a wrong call."""
    assert cli(*arguments).exit_code == 2


def test_why_not_lately(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Without a time: how the profile is, and what its last events came to, re-derived ones too."""
    failures(UNIT, {"unit": "tmp.mount"}, UNIT)
    found = json.loads(cli("why-not", "triage", "--json").stdout)
    outcomes = [
        one["decisions"][0]["findings"][0]["decision"]["outcome"] for one in found["events"]
    ]
    assert outcomes == ["fire", "filtered", "debounced"]
    assert found["health"]["deciding"][0]["waiting"] == 0
    assert "nobody decides on" in found["health"]["problems"][0]["text"]
    text = cli("why-not", "triage").stdout
    assert "decided by nobody now, at sequence 3, nothing waits" in text
    assert "3 events of its topics lately" in text
    assert "filtered (where)  re-derived" in text


def test_why_not_at_a_time(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Around a time: the events then; when there are none, the last and the next, and who emits."""
    (event,) = failures(UNIT)
    now = times.format_us(times.now_us())
    assert event.id in cli("why-not", "triage", "--at", now).stdout
    text = cli("why-not", "triage", "--at", "2h").stdout
    assert "no event of its topics came between" in text
    assert "the next one came 1h59m" in text
    silent = json.loads(cli("why-not", "tests", "--at", "2h", "--json").stdout)
    assert (silent["last_before"], silent["next_after"]) == (None, None)
    assert silent["producers"] == ["pytest"]
    later = times.format_us(times.now_us() + 3_600_000_000)
    found = json.loads(cli("why-not", "triage", "--at", later, "--json").stdout)
    assert found["last_before"]["event"]["id"] == event.id


def test_why_not_for_an_event(nats_server: EmbeddedServer, cli: Cli) -> None:
    """For one event: the profile in full, also when it does not listen to the topic."""
    (event,) = failures(UNIT)
    result = cli("why-not", "tests", "--event", event.id)
    assert result.exit_code == 0
    assert "listens to python.test.failed, not to service.start.failed" in result.stdout
    assert "nobody decides on profile-tests-on" in result.stdout
    result = cli("why-not", "testz", "--event", event.id)
    assert (result.exit_code, "did you mean tests?" in result.stderr) == (3, True)


def test_why_not_of_a_broken_file(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A file that cannot be read is named, with the older text that stays in force."""
    failures(UNIT, profiles=ONE)
    write_profiles("profiles: {triage: {onn: x}}\n")
    text = cli("why-not", "triage").stdout
    assert "a profile file is broken, an older text stays in force: profiles.yaml:1" in text
    assert "opsmesh profile validate" in text
    write_profiles(ONE.replace("on:", "state: disabled\n    on:"))
    assert "opsmesh profile enable triage" in cli("why-not", "triage").stdout


def test_live_mesh(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Against running handlers: a profile and its candidate, each with its own answer."""
    write_profiles(ONE)
    folder = Path(paths.config_dir(), "candidates")
    folder.mkdir()
    stricter = "where: event.payload.unit == 'x'\n    actions:"
    Path(folder, "triage.yaml").write_text(ONE.replace("actions:", stricter))

    async def body() -> None:
        async with mesh(ONE) as m:
            event = await m.publish()
            await m.wait("automation.run.succeeded")
            await m.decided("triage", 2)
            found = await asyncio.to_thread(cli, "why", event.id, "--json")
            both = json.loads(found.stdout)["profiles"]
            assert {one["candidate"] for one in both} == {False, True}
            active = next(one for one in both if not one["candidate"])
            assert active["findings"][0]["run"]["state"] == "succeeded"
            how = await asyncio.to_thread(cli, "why-not", "triage")
            assert "nothing keeps it from firing" in how.stdout
            again = await asyncio.to_thread(cli, "why", "--rederive", "--since", "1h")
            assert again.exit_code == 0

    run(body())
