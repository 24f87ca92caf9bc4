"""Who may ask `opsmesh a2a serve`, what it refuses to be, and where it sends news."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.types import (
    AuthenticationInfo,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Task,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import (
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotFoundError,
)
from tests.conftest import eventually, mesh_client, run, until
from tests.handlers.a2a_served import Served, client, message, run_of, send, served

from opsmesh.handlers.a2a import agents
from opsmesh.handlers.a2a_serve.serve import Refused, tokens
from opsmesh.handlers.http_server import is_loopback
from opsmesh.router.settings_a2a import A2aServe

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("a2a_door")


#: Made here, so that no scanner takes them for somebody's.
TOKENS = {name: f"{name}-" + "s3cret" * 4 for name in ("planner", "checker")}


class Plain:
    """Gives each secret its name's token."""

    def fill(self, text: str) -> str:
        return TOKENS.get(text.split('"')[1], "short")


def _serve(**more: Any) -> A2aServe:
    return A2aServe.model_validate(more)


def _reference(name: str) -> str:
    return f'${{{{ secret("{name}") }}}}'


@pytest.mark.parametrize(
    ("settings", "no_auth", "said"),
    [
        ({"host": "0.0.0.0"}, False, "there is no TLS"),
        ({"host": "192.168.1.2"}, True, "there is no TLS"),
        ({"host": "agents.example"}, False, "there is no TLS"),
        ({"host": "0.0.0.0", "tls_certificate": "/c", "tls_key": "/k"}, True, "--no-auth is for"),
        ({"host": "0.0.0.0", "tls_certificate": "/c", "tls_key": "/k"}, False, "nobody may ask"),
        ({"tls_certificate": "/c"}, False, "TLS needs"),
        ({}, False, "nobody may ask"),
        ({"tokens": {"a": _reference("other")}}, False, "fewer than 16"),
        (
            {"tokens": {"a": _reference("planner"), "b": _reference("planner")}},
            False,
            "the same token",
        ),
    ],
)
def test_refused(settings: dict[str, Any], no_auth: bool, said: str) -> None:
    """It serves nobody beyond this machine without TLS and a token, and no weak token."""
    with pytest.raises(Refused, match=said):
        tokens(_serve(**settings), Plain(), no_auth=no_auth)


def test_loopback() -> None:
    """What only this machine reaches."""
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil")] == [False] * 4


@pytest.mark.parametrize(
    ("url", "yes"),
    [
        ("http://127.0.0.1:9/hook", True),
        ("http://127.0.0.1:9/hook/a", True),
        ("http://127.0.0.1:9/hooked", False),
        ("http://127.0.0.1:9/hook/../admin", False),
        ("http://127.0.0.1:9/hook/%2e%2E/admin", False),
        ("http://127.0.0.1:9/hook/..%2fadmin", False),
        ("http://127.0.0.1:9/hook/a\\b", False),
        ("http://127.0.0.1:9/", False),
        ("http://127.0.0.1:10/hook", False),
        ("https://127.0.0.1:9/hook", False),
        ("http://127.0.0.1:9@evil.example/hook", False),
        ("http://evil.example/?http://127.0.0.1:9/hook", False),
        ("http://127.0.0.1.evil.example:9/hook", False),
        ("http://user@127.0.0.1:9/hook", False),
        ("file:///hook", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_allowed_addresses(url: str, yes: bool) -> None:
    """An address is within another one when it is that, or below it, on the same host and port."""
    assert agents.within(url, "http://127.0.0.1:9/hook") is yes


class Hook:
    """Hears news; it may send whoever brings them elsewhere."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.status = 200
        self.port = 0

    def of(self, task_id: str) -> list[tuple[str, dict[str, str], dict[str, Any]]]:
        """What was heard of one task; news of an earlier test's may still be on their way."""
        return [one for one in self.heard if _about(one[2]) == task_id]


def _about(news: dict[str, Any]) -> str:
    [(kind, said)] = news.items()
    return str(said["id" if kind == "task" else "taskId"])


@contextmanager
def hook() -> Iterator[Hook]:
    """A receiver on this machine."""
    found = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.heard.append((self.path, dict(self.headers), body))
            self.send_response(found.status)
            self.send_header("Location", f"http://127.0.0.1:{found.port}/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join(60)


@pytest.fixture(scope="module")
def heard() -> Iterator[Hook]:
    """One receiver for all tests of this module."""
    with hook() as found:
        yield found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, heard: Hook) -> Iterator[Served]:
    """A mesh that knows two callers, and sends news to one address."""
    home = tmp_path_factory.mktemp("door")
    secrets = home / "config" / "opsmesh" / "secrets"
    settings = {
        "secrets": {"order": ["file"]},
        "a2a_serve": {
            "tokens": {name: _reference(name) for name in TOKENS},
            "push_urls": [f"http://127.0.0.1:{heard.port}/hook", "http://127.0.0.1:9/"],
            "per_minute": 30,
        },
    }
    for folder in (home / "config", home / "config" / "opsmesh", secrets):
        folder.mkdir(mode=0o700)
    for name, token in TOKENS.items():
        (secrets / name).write_text(token)
        (secrets / name).chmod(0o600)
    with served(home, "--port", "0", settings=settings) as found:
        yield found


@pytest.fixture(autouse=True)
def _quiet(heard: Hook) -> None:
    heard.heard.clear()
    heard.status = 200


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer wrong", "Basic cGxhbm5lcg==", f"bearer {TOKENS['planner']}x"],
)
def test_no_token(mesh: Served, authorization: str) -> None:
    """Whoever has no token of ours is told how to prove itself, and nothing else."""
    headers = {"Authorization": authorization, "A2A-Version": "1.0"}
    for path in ("/a2a/v1/rpc", "/a2a/v1/tasks", "/a2a/v1/tasks/x", "/"):
        answer = httpx.post(f"{mesh.address}{path}", json={}, headers=headers, timeout=60)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    card = httpx.get(f"{mesh.address}/.well-known/agent-card.json", timeout=60)
    assert card.json()["securityRequirements"][0]["schemes"] == {"bearer": {}}


def test_own_tasks_alone(mesh: Served) -> None:
    """A caller sees its own tasks; another's is one that is not there. The same message of two
    callers is two tasks."""

    async def body() -> None:
        said = message("mine", "say", context_id="shared")
        async with (
            client(mesh.address, token=TOKENS["planner"]) as planner,
            client(mesh.address, token=TOKENS["checker"]) as checker,
            mesh_client() as nats,
        ):
            mine, other = await send(planner, said), await send(checker, said)
            assert mine.id != other.id
            with pytest.raises(TaskNotFoundError):
                await checker.get_task(GetTaskRequest(id=mine.id))
            listed = await checker.list_tasks(ListTasksRequest(context_id="shared"))
            assert [task.id for task in listed.tasks] == [other.id]
            found = await run_of(nats, mine.id)
            assert found is not None
            assert found.data is not None
            seen = json.loads(found.data)
            assert (seen["payload"]["caller"], seen["component"]) == ("planner", "planner")
            assert TOKENS["planner"] not in found.data

    run(body())
    assert TOKENS["planner"] not in (mesh.home / "serve.log").read_text()


def _push(heard: Hook, path: str = "/hook/a", **more: Any) -> TaskPushNotificationConfig:
    return TaskPushNotificationConfig(url=f"http://127.0.0.1:{heard.port}{path}", **more)


def test_news(mesh: Served, heard: Hook) -> None:
    """News of a task are sent where the message says, with its token, to the task's end."""

    async def body() -> Task:
        async with client(mesh.address, token=TOKENS["planner"]) as asking:
            auth = AuthenticationInfo(scheme="Bearer", credentials="hook-" + "c0de" * 4)
            to = _push(heard, token="t-" + "1" * 8, authentication=auth)
            said = message("told", "say")
            return await send(asking, said, task_push_notification_config=to)

    task = run(body())
    path, headers, body_ = until(lambda: [one for one in heard.of(task.id) if "task" in one[2]])[0]
    assert path == "/hook/a"
    assert headers["X-A2A-Notification-Token"] == "t-" + "1" * 8
    assert headers["Authorization"] == "Bearer hook-" + "c0de" * 4
    assert body_["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/hook", "http://169.254.169.254/latest", "http://localhost/hook", "x:/"],
)
def test_news_elsewhere(mesh: Served, url: str) -> None:
    """No address that the settings do not name is taken, and nothing is begun for it."""

    async def body() -> None:
        async with client(mesh.address, token=TOKENS["checker"]) as asking:
            said = message("told", "say", context_id=url)
            to = TaskPushNotificationConfig(url=url)
            with pytest.raises(InvalidParamsError, match="not sent to this address"):
                await send(asking, said, task_push_notification_config=to)
            listed = await asking.list_tasks(ListTasksRequest(context_id=url))
            assert list(listed.tasks) == []

    run(body())


def test_too_many_addresses(mesh: Served, heard: Hook) -> None:
    """A task sends news to five addresses; the same one again is no other."""

    async def body() -> None:
        async with client(mesh.address, token=TOKENS["planner"]) as asking:
            task = await send(asking, message("many", "say"))

            async def add(n: int) -> None:
                to = _push(heard, f"/hook/{n}", task_id=task.id)
                await asking.create_task_push_notification_config(to)

            for n in (0, 0, 1, 2, 3, 4, 4):
                await add(n)
            with pytest.raises(InvalidParamsError, match="5 addresses at most"):
                await add(5)

    run(body())


def test_news_are_not_redirected(mesh: Served, heard: Hook) -> None:
    """Whoever gets news cannot send them on."""
    heard.status = 307

    async def body() -> Task:
        async with client(mesh.address, token=TOKENS["planner"]) as asking:
            said = message("told", "say")
            return await send(asking, said, task_push_notification_config=_push(heard))

    task = run(body())
    told = until(lambda: heard.of(task.id))
    assert {path for path, *_ in told} == {"/hook/a"}


@pytest.mark.slow
def test_news_beside_an_address_that_is_away(mesh: Served, heard: Hook) -> None:
    """An address that does not answer holds up no other; one that comes with a message that is sent
    again is added to the task's."""

    async def body() -> None:
        async with client(mesh.address, token=TOKENS["planner"]) as asking:
            said = message("twice", "say")
            away = TaskPushNotificationConfig(url="http://127.0.0.1:9/")
            first = await send(asking, said, task_push_notification_config=away)
            again = await send(asking, said, task_push_notification_config=_push(heard))
            assert first.id == again.id
            await eventually(lambda: [one for *_, one in heard.of(first.id) if "task" in one])

    run(body())


@pytest.mark.slow
def test_news_after_a_restart(mesh: Served, heard: Hook, tmp_path: Path) -> None:
    """What ended while no server was there is told by the next one, once."""

    async def body() -> str:
        async with client(mesh.address, token=TOKENS["planner"]) as asking, mesh_client() as nats:
            said = message(str(tmp_path / "go"), "until")
            task = await send(asking, said, immediately=True)
            await asking.create_task_push_notification_config(_push(heard, task_id=task.id))
            configs = await asking.list_task_push_notification_configs(
                ListTaskPushNotificationConfigsRequest(task_id=task.id)
            )
            assert len(configs.configs) == 1
            await asyncio.to_thread(mesh.stop, kill=True)
            (tmp_path / "go").touch()

            async def over() -> bool:
                found = await run_of(nats, task.id)
                return found is not None and found.finished

            await eventually(over)
            return task.id

    task_id = run(body())

    def ends(of: str) -> list[Any]:
        return [body for *_, body in heard.of(of) if "task" in body]

    async def another() -> str:
        async with client(mesh.address, token=TOKENS["planner"]) as asking:
            to = _push(heard)
            task = await send(asking, message("x", "say"), task_push_notification_config=to)
            await eventually(lambda: ends(task.id))
            return task.id

    mesh.serve(*mesh.argv)
    run(eventually(lambda: ends(task_id)))
    mesh.stop()
    mesh.serve(*mesh.argv)
    run(another())  # by then the one before would have been told again
    assert len(ends(task_id)) == 1


def test_too_many(mesh: Served) -> None:
    """A caller that sends without measure is slowed down; others are not."""

    async def body() -> None:
        async with (
            client(mesh.address, token=TOKENS["checker"]) as asking,
            client(mesh.address, token=TOKENS["planner"]) as other,
        ):
            said = message("again", "say")
            with pytest.raises(InternalError, match="over 30 messages a minute"):
                await asyncio.gather(*(send(asking, said) for _ in range(31)))
            await send(other, said)

    run(body())


@pytest.mark.slow
def test_without_handlers(tmp_path: Path) -> None:
    """Without handlers nothing is accepted: it would run whenever they come back. Nor are news
    promised that nobody would send."""
    with served(tmp_path / "lonely", "--no-auth", "--port", "0") as mesh:
        mesh.processes.end()

        async def body() -> None:
            async with client(mesh.address) as asking:
                with pytest.raises(InternalError, match="no handlers are running"):
                    await send(asking, message("hello", "say"))
                assert list((await asking.list_tasks(ListTasksRequest())).tasks) == []
                to = TaskPushNotificationConfig(url="http://127.0.0.1:9/x")
                with pytest.raises(PushNotificationNotSupportedError):
                    await send(asking, message("x", "say"), task_push_notification_config=to)

        run(body())
