"""`opsmesh a2a serve`, asked by the SDK's own client: a real broker, handlers and server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Part,
    SubscribeToTaskRequest,
    TaskState,
)
from a2a.utils.errors import (
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from tests.conftest import eventually, mesh_client, run
from tests.handlers.a2a_served import (
    Served,
    client,
    events,
    message,
    run_of,
    send,
    served,
    stream,
)

from opsmesh.handlers.runs.ledger import Ledger

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("a2a_serve")


COMPLETED, CANCELED = TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_CANCELED


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One mesh for all tests of this module."""
    with served(tmp_path_factory.mktemp("served"), "--no-auth", "--port", "0", "--v0-3") as found:
        yield found


def test_card(mesh: Served) -> None:
    """The card names the enabled profiles that are exposed, and what is written about them."""
    found = httpx.get(f"{mesh.address}/.well-known/agent-card.json", timeout=60).json()
    skills = {one["id"]: one for one in found["skills"]}
    assert sorted(skills) == ["asks", "data", "fails", "persons", "say", "until", "values"]
    assert skills["say"]["description"] == "says it again"
    assert (skills["say"]["tags"], skills["say"]["examples"]) == (["say"], ["hello"])
    assert found["supportedInterfaces"][0]["url"].startswith(mesh.address)
    assert "securitySchemes" not in found


def test_completed(mesh: Served) -> None:
    """A message is a run of the profile, and what its last step said is the result."""

    async def body() -> None:
        async with client(mesh.address) as asking, mesh_client() as nats:
            task = await send(asking, message("hello $(id)", "say", context_id="story-1"))
            assert (task.status.state, task.context_id) == (COMPLETED, "story-1")
            result, went = task.artifacts
            assert result.parts[0].text == "hello $(id)"
            found = await run_of(nats, task.id)
            assert found is not None
            assert MessageToDict(went.parts[0].data)["runId"] == found.run_id
            assert (found.state, found.correlation_id) == ("succeeded", "story-1")
            assert found.topic == "a2a.message.received"

    run(body())


def test_data(mesh: Served) -> None:
    """What a step says in JSON is data."""

    async def body() -> None:
        async with client(mesh.address) as asking:
            task = await send(asking, message("go", "data"))
            assert MessageToDict(task.artifacts[0].parts[0].data) == {"count": 3.0, "name": "x"}

    run(body())


def test_what_the_profile_sees(mesh: Served) -> None:
    """A stranger's message is data: marked, bounded, without secrets, and its event's story goes on
    by one hop. It is on record for everybody, and triggers one profile alone."""
    token = "ghp_" + "a1B2" * 9
    envelope = {"id": "e-1", "hops": 4, "host": "far", "topic": "x.y", "payload": {"n": 1}}
    event = Part(data=ParseDict(envelope, Value()))
    event.metadata.update({"opsmesh.kind": "envelope"})
    parts = [Part(text=f"look {token}\x1b[31m"), Part(text="x" * 50_000), event]

    async def body() -> None:
        async with client(mesh.address) as asking, mesh_client() as nats:
            task = await send(asking, message("", "data", parts=parts, context_id="story-2"))
            found = await run_of(nats, task.id)
            assert found is not None
            assert found.data is not None
            seen = json.loads(found.data)
            assert (seen["correlation_id"], seen["causation_id"], seen["hops"]) == (
                "story-2",
                "e-1",
                5,
            )
            payload = seen["payload"]
            assert (payload["untrusted"], payload["truncated"]) == (True, True)
            assert payload["data"]["payload"] == {"n": 1}
            assert len(payload["text"]) < 17_000
            assert token not in found.data
            assert "\\u001b" not in found.data
            [accepted] = [
                one
                for one in await events(nats, "a2a.task.accepted")
                if one.payload["task_id"] == task.id
            ]
            assert accepted.payload["skill"] == "data"
            assert await events(nats, "a2a.message.received") == []
            ran = [r.profile async for r in Ledger(nats).runs() if r.event_id == task.id]
            assert ran == ["data"]

    run(body())


def test_same_message_again(mesh: Served) -> None:
    """A message that is sent again, at the same time too, is the same task and one run."""

    async def body() -> None:
        async with client(mesh.address) as asking, mesh_client() as nats:
            said = message("once", "say", context_id="story-3")
            tasks = await asyncio.gather(*(send(asking, said) for _ in range(5)))
            assert len({task.id for task in tasks}) == 1
            ran = [r async for r in Ledger(nats).runs() if r.correlation_id == "story-3"]
            assert len(ran) == 1

    run(body())


def test_stream(mesh: Served, tmp_path: Path) -> None:
    """A stream begins with the task, tells how it goes on, and ends with it."""

    async def body() -> None:
        async with client(mesh.address, streaming=True) as asking:
            news = []
            async for one in stream(asking, message(str(tmp_path / "go"), "until")):
                news.append(one)
                (tmp_path / "go").touch()  # what is over when it is asked for is told in one
            assert news[0].HasField("task")
            assert news[-1].status_update.status.state == COMPLETED
            artifacts = [one.artifact_update.artifact.name for one in news]
            assert [name for name in artifacts if name] == ["result", "run"]

    run(body())


def test_get_list_and_subscribe(mesh: Served, tmp_path: Path) -> None:
    """A task under way is there for whoever asks again, and can be listened to."""

    async def body() -> None:
        async with client(mesh.address, streaming=True) as asking:
            said = message(str(tmp_path / "go"), "until", context_id="story-4")
            async with client(mesh.address) as plain:
                task = await send(plain, said, immediately=True)
            assert task.status.state in (
                TaskState.TASK_STATE_SUBMITTED,
                TaskState.TASK_STATE_WORKING,
            )
            listed = await asking.list_tasks(ListTasksRequest(context_id="story-4"))
            assert [(one.id, len(one.artifacts)) for one in listed.tasks] == [(task.id, 0)]
            assert listed.tasks[0].history[0].message_id == said.message_id
            subscribed = asking.subscribe(SubscribeToTaskRequest(id=task.id))
            first = await anext(subscribed)
            assert first.task.id == task.id
            (tmp_path / "go").touch()
            news = [one async for one in subscribed]
            assert news[-1].status_update.status.state == COMPLETED
            got = await asking.get_task(GetTaskRequest(id=task.id, history_length=0))
            assert (got.status.state, len(got.history)) == (COMPLETED, 0)
            with pytest.raises(UnsupportedOperationError):
                await anext(asking.subscribe(SubscribeToTaskRequest(id=task.id)))

    run(body())


def test_pages(mesh: Served) -> None:
    """Tasks are listed by their news, the newest first, page by page."""

    async def body() -> None:
        async with client(mesh.address) as asking:
            made = [
                (await send(asking, message(f"{n}", "say", context_id="story-5"))).id
                for n in range(3)
            ]
            found: list[str] = []
            token = ""
            while True:
                page = await asking.list_tasks(
                    ListTasksRequest(context_id="story-5", page_size=2, page_token=token)
                )
                found += [one.id for one in page.tasks]
                assert page.total_size == 3
                token = page.next_page_token
                if not token:
                    break
            assert found == made[::-1]

    run(body())


def test_cancel(mesh: Served, tmp_path: Path) -> None:
    """A task that is canceled stops its run; one that is over cannot be."""

    async def body() -> None:
        async with client(mesh.address) as asking, mesh_client() as nats:
            task = await send(asking, message(str(tmp_path / "never"), "until"), immediately=True)
            over = await asking.cancel_task(CancelTaskRequest(id=task.id))
            assert over.status.state == CANCELED
            found = await run_of(nats, task.id)
            assert found is not None
            assert (found.state, found.reason) == ("cancelled", "an agent canceled the task")
            with pytest.raises(TaskNotCancelableError):
                await asking.cancel_task(CancelTaskRequest(id=task.id))

    run(body())


def test_failed(mesh: Served) -> None:
    """A run that is given up is a failed task, with what went wrong."""

    async def body() -> None:
        async with client(mesh.address) as asking:
            task = await send(asking, message("print", "fails"))
            assert task.status.state == TaskState.TASK_STATE_FAILED
            assert task.status.message.parts[0].text == "exit code 3: out of paper"
            assert list(task.artifacts) == []

    run(body())


@pytest.mark.parametrize(
    ("skill", "said"),
    [
        ("hidden", "no skill 'hidden' here"),
        ("off", "no skill 'off' here"),
        ("../x", "no skill"),
        ("", "name a skill"),
    ],
)
def test_not_offered(mesh: Served, skill: str, said: str) -> None:
    """A profile that is not exposed, or not enabled, cannot be asked for."""

    async def body() -> None:
        async with client(mesh.address) as asking:
            with pytest.raises(InvalidParamsError, match=said):
                await send(asking, message("go", skill))

    run(body())


@pytest.mark.parametrize("task_id", ["nothing", "*", "a.b", ">", "x" * 500])
def test_no_such_task(mesh: Served, task_id: str) -> None:
    """A task that is not there is not found, whatever its id would mean to the broker."""

    async def body() -> None:
        async with client(mesh.address) as asking:
            with pytest.raises(TaskNotFoundError):
                await asking.get_task(GetTaskRequest(id=task_id))
            with pytest.raises(TaskNotFoundError):
                await send(asking, message("more", "say", task_id=task_id))

    run(body())


def test_no_further_message(mesh: Served) -> None:
    """A run takes no second message: not when it is over, and not in another context."""

    async def body() -> None:
        async with client(mesh.address) as asking:
            task = await send(asking, message("one", "say"))
            with pytest.raises(UnsupportedOperationError, match="is over"):
                await send(asking, message("two", "say", task_id=task.id))
            with pytest.raises(InvalidParamsError, match="another context"):
                await send(asking, message("two", "say", task_id=task.id, context_id="other"))

    run(body())


INPUT_REQUIRED = TaskState.TASK_STATE_INPUT_REQUIRED


@pytest.mark.parametrize(
    ("word", "outcome"), [("yes", "done"), ("No.", "skipped"), ("granted", "done")]
)
def test_approval(mesh: Served, word: str, outcome: str) -> None:
    """A run that waits for an approval is a task that wants input; a caller that the question names
    may answer it."""

    async def body() -> None:
        async with client(mesh.address) as asking, mesh_client() as nats:
            task = await send(asking, message("nginx", "asks"))
            assert task.status.state == INPUT_REQUIRED
            assert task.status.message.parts[0].text == "Waits for an answer: Restart nginx?"
            with pytest.raises(InvalidParamsError, match="yes or no"):
                await send(asking, message("perhaps", "", task_id=task.id))
            over = await send(asking, message(word, "", task_id=task.id))
            assert over.status.state == COMPLETED
            found = await run_of(nats, task.id)
            assert found is not None
            assert found.steps[0].state == outcome
            reply = found.steps[0].asked[0].reply
            assert reply is not None
            assert (reply.by, reply.via) == ("a2a:local", "a2a")

    run(body())


def test_listening_beyond_a_question(mesh: Served) -> None:
    """Who subscribes to a task that waits for an answer hears of its end, whoever answers."""

    async def body() -> None:
        async with client(mesh.address) as plain, client(mesh.address, streaming=True) as asking:
            task = await send(plain, message("nginx", "asks"))
            subscribed = asking.subscribe(SubscribeToTaskRequest(id=task.id))
            assert (await anext(subscribed)).task.status.state == INPUT_REQUIRED
            await send(plain, message("yes", "", task_id=task.id))
            news = [one async for one in subscribed]
            assert news[-1].status_update.status.state == COMPLETED

    run(body())


def test_answer_with_a_value(mesh: Served) -> None:
    """A question for a value says its schema, takes what fits, and nothing else."""

    async def body() -> None:
        async with client(mesh.address) as asking:
            task = await send(asking, message("", "values", parts=[Part(text="go")]))
            schema = MessageToDict(task.status.message.parts[1].data)["schema"]
            assert schema["required"] == ["branch"]
            wrong = Part(data=ParseDict({"branch": 3}, Value()))
            with pytest.raises(InvalidParamsError, match="does not fit"):
                await send(asking, message("", "", task_id=task.id, parts=[wrong]))
            right = Part(data=ParseDict({"branch": "main"}, Value()))
            over = await send(asking, message("", "", task_id=task.id, parts=[right]))
            assert over.artifacts[0].parts[0].text == "main"
            refused = await send(asking, message("", "values", parts=[Part(text="go")]))
            no = message("not now", "", task_id=refused.id)
            no.metadata.update({"verdict": "denied"})
            assert (await send(asking, no)).status.state == TaskState.TASK_STATE_FAILED

    run(body())


def test_approval_of_a_person(mesh: Served) -> None:
    """A question that does not name the caller is a person's, also where any person may answer."""

    async def body() -> None:
        async with client(mesh.address) as asking:
            task = await send(asking, message("x", "persons"))
            assert task.status.state == INPUT_REQUIRED
            with pytest.raises(UnsupportedOperationError, match="a person of the mesh"):
                await send(asking, message("yes", "", task_id=task.id))
            over = await asking.cancel_task(CancelTaskRequest(id=task.id))
            assert over.status.state == CANCELED

    run(body())


def test_survives_its_restart(mesh: Served, tmp_path: Path) -> None:
    """A server that is killed leaves its tasks: the next one knows them, and their ends."""

    async def body() -> None:
        async with client(mesh.address) as asking, mesh_client() as nats:
            said = message(str(tmp_path / "go"), "until", context_id="story-6")
            task = await send(asking, said, immediately=True)
            await asyncio.to_thread(mesh.stop, kill=True)
            (tmp_path / "go").touch()

            async def over() -> bool:
                found = await run_of(nats, task.id)
                return found is not None and found.finished

            await eventually(over)
        await asyncio.to_thread(mesh.serve, *mesh.argv)
        async with client(mesh.address) as asking:
            assert (await asking.get_task(GetTaskRequest(id=task.id))).status.state == COMPLETED
            again = await send(asking, said)  # whose answer may have been lost
            assert again.id == task.id

    run(body())


def _rpc(mesh: Served, **more: Any) -> httpx.Response:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "GetTask",
        "params": {"id": "nothing"},
    }
    headers = {"A2A-Version": "1.0", **more.pop("headers", {})}
    facts: dict[str, Any] = {"json": body, "headers": headers, "timeout": 60, **more}
    return httpx.post(f"{mesh.address}/a2a/v1/rpc", **facts)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 200),
        ({"headers": {"Origin": "https://evil.example"}}, 403),
        ({"headers": {"Host": "evil.example"}}, 403),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"content": b" " * 2_000_000, "headers": {"Content-Type": "application/json"}}, 413),
    ],
)
def test_door(mesh: Served, more: dict[str, Any], status: int) -> None:
    """Without a token a browser's page, a rebound name, another content and a long request are
    sent away."""
    if "content" in more:
        more = {"json": None, **more}
    assert _rpc(mesh, **more).status_code == status


def test_long_request_without_a_length(mesh: Served) -> None:
    """A request that does not say how long it is is read to its limit, and no further."""
    pieces = (b" " * 100_000 for _ in range(20))
    headers = {"Content-Type": "application/json"}
    answer = _rpc(mesh, json=None, content=pieces, headers=headers)
    assert answer.json()["error"]["message"] == "Payload too large"


def test_old_clients(mesh: Served) -> None:
    """With the flag a client of protocol 0.3 is answered."""
    said = {
        "kind": "message",
        "messageId": "old-1",
        "role": "user",
        "metadata": {"skill": "say"},
        "parts": [{"kind": "text", "text": "hello"}],
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": said}}
    answer = httpx.post(f"{mesh.address}/a2a/v1/rpc", json=body, timeout=60).json()
    assert answer["result"]["status"]["state"] == "completed"
