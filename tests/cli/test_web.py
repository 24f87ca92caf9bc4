"""The page's server: who may look, what it tells, and what can be done there."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.conftest import Cli
from tests.cli.contrast import contrast
from tests.cli.serving_web import TOKEN, Served, served
from tests.conftest import eventually, run
from tests.handlers.approving import asked
from tests.handlers.mesh import Mesh, mesh, write_profiles

from opsmesh.cli.view.follower import Follower
from opsmesh.cli.view.model import View
from opsmesh.cli.web import command
from opsmesh.cli.web.app import MAX_BODY, PAGE, Site
from opsmesh.cli.web.door import KEY, SESSIONS
from opsmesh.router import user
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

HERE = "http://127.0.0.1:9475"
PROFILES = """
version: 1
profiles:
  good:
    on: [a.b]
    actions:
      - {id: first, command: ["true"]}
      - emit: {topic: a.c, payload: {from: good}}
  asks:
    on: [a.d]
    actions:
      - {id: ask, approve: {prompt: "Really?", expires: 1h, otherwise: skip}, command: ["true"]}
  bad:
    on: [a.e]
    retry: {attempts: 1}
    actions: [command: ["false"]]
"""


@pytest.fixture
def site(home: Path) -> Site:
    """The handlers, without a mesh."""
    return Site(Follower(View(), Settings()), Settings(), token=TOKEN)


def outside(site: Site, **more: Any) -> httpx.AsyncClient:
    """Somebody on this machine who has nothing."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url=HERE, **more)


async def entered(client: httpx.AsyncClient) -> str:
    """The key of a new session, whose cookie the client keeps."""
    reply = await client.post("/api/session", json={"token": TOKEN})
    return str(reply.json()["key"])


def test_nothing_is_told_without_both(site: Site) -> None:
    """What is asked for needs the cookie and the key; one of them is worth nothing."""

    async def body() -> None:
        async with outside(site) as client:
            assert (await client.get("/api/bundles")).status_code == 401
            key = await entered(client)
            assert (await client.get("/api/bundles")).status_code == 401
            assert (await client.get("/api/bundles", headers={KEY: "x"})).status_code == 401
            assert (await client.get("/api/bundles", headers={KEY: key})).status_code == 200
            client.cookies.clear()
            assert (await client.get("/api/bundles", headers={KEY: key})).status_code == 401
            wrong = await client.post("/api/session", json={"token": "x"})
            assert (wrong.status_code, wrong.cookies) == (401, httpx.Cookies())

    run(body())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example:9475"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": HERE, "sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_other_pages_are_refused(site: Site, headers: dict[str, str], status: int) -> None:
    """A page of another address, or under another name for this one, gets nothing even with the
    token."""

    async def body() -> None:
        async with outside(site) as client:
            reply = await client.post("/api/session", json={"token": TOKEN}, headers=headers)
            assert reply.status_code == status
            assert "access-control-allow-origin" not in reply.headers

    run(body())


def test_the_policy_stands_on_everything(site: Site) -> None:
    """Every answer, a refusal too, allows our own files alone, and nothing made of text; the
    cookie is for this address and for no script."""

    async def body() -> None:
        async with outside(site) as client:
            for path in ("/", "/page/main.js", "/api/bundles", "/nothing"):
                policy = (await client.get(path)).headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "require-trusted-types-for 'script'" in policy
            reply = await client.post("/api/session", json={"token": TOKEN})
            cookie = reply.headers["set-cookie"].lower()
            assert cookie.startswith("opsmesh-web-9475=")
            assert "httponly" in cookie
            assert "samesite=strict" in cookie

    run(body())


def test_sessions_are_bounded(site: Site) -> None:
    """When there are too many, the oldest session ends."""

    async def body() -> None:
        async with outside(site) as first:
            key = await entered(first)
            for _ in range(SESSIONS):
                async with outside(site) as other:
                    await entered(other)
            assert (await first.get("/api/bundles", headers={KEY: key})).status_code == 401

    run(body())


def test_wrong_requests(site: Site) -> None:
    """What is no JSON, too long, or of no act, is refused in words; no broker is a word too."""

    async def body() -> None:
        async with outside(site) as client:
            client.headers[KEY] = await entered(client)
            for path, sent, status in (
                ("/api/backtest", b"{", 400),
                ("/api/backtest", b"[]", 400),
                ("/api/backtest", b" " * (MAX_BODY + 1), 400),
                ("/api/backtest", b'{"text": "x", "since": "x"}', 409),
                ("/api/letters/1", b'{"act": "x"}', 400),
                ("/api/letters/1", b'{"act": "drop"}', 503),
                ("/api/approvals/x", b'{"verdict": "maybe"}', 400),
            ):
                reply = await client.post(path, content=sent)
                assert (reply.status_code, "error" in reply.json()) == (status, True), sent
            away = await client.get("/api/stories/x")
            assert (away.status_code, away.json()["hint"]) == (503, "start it: opsmesh up")
            outside_page = await client.get("/page/../command.py")
            assert outside_page.status_code == 404

    run(body())


def test_the_page_holds_no_markup_of_text_and_no_address() -> None:
    """No file of the page makes markup of a text, or names another server."""
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "://"):
            assert word not in text, (file.name, word)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_the_page_can_be_read(scheme: int) -> None:
    """Each colour of a text stands out by 4.5 to 1 from each ground, the edge of a field by 3."""
    root = re.findall(r":root \{([^}]*)\}", (PAGE / "style.css").read_text())[scheme]
    colours = {
        name: (int(value[:2], 16), int(value[2:4], 16), int(value[4:], 16))
        for name, value in re.findall(r"--([a-z-]+): #([0-9a-f]{6})", root)
    }
    grounds = [colours.pop(name) for name in ("ground", "raised", "accent-ground")]
    for ground in grounds:
        for name in colours.keys() - {"line", "edge"}:
            assert contrast(colours[name], ground) >= 4.5, (name, ground)
    assert min(contrast(colours["edge"], ground) for ground in grounds[:2]) >= 3


@asynccontextmanager
async def looked_at(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Mesh, Served]]:
    """A mesh with something of everything, and its page."""
    monkeypatch.setattr("opsmesh.cli.view.follower.LOOK_S", 0.5)
    monkeypatch.setattr("opsmesh.cli.health._components", lambda health: True)
    async with mesh(PROFILES) as m:
        await m.publish("a.b", payload={"text": "first"})
        await m.publish("a.d")
        await m.publish("a.e")
        await m.wait("automation.run.succeeded")
        await m.wait("automation.run.deadlettered")
        await asked(m)
        async with served(m.settings) as s:

            def whole() -> bool:
                """Events, runs and the rest are heard each for itself: in whatever order."""
                topics = {one.event.topic for one in s.view.events if one.event}
                over = {one.profile for one in s.view.runs.values() if one.finished}
                rest = s.view.approvals and s.view.letters and s.view.profiles
                return bool(rest) and {"a.b", "a.c", "a.d"} <= topics and {"good", "bad"} <= over

            await eventually(whole)
            yield m, s


async def frames(client: httpx.AsyncClient, wanted: set[str]) -> dict[str, Any]:
    """What the stream tells, until all of these names were told."""
    found: dict[str, Any] = {}
    name = ""
    async with client.stream("GET", "/api/live") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        async for line in reply.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                found[name] = json.loads(line[6:])
            if wanted <= found.keys():
                return found
    raise AssertionError(f"the stream ended after {found.keys()}")


def test_looked_at(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream tells all that the views show; a story is a graph; answers and letters are done
    as the command line does them, on record as from here."""

    async def body() -> None:
        async with looked_at(monkeypatch) as (m, s), s.client() as client:
            told = await frames(client, {"events", "runs", "profiles", "approvals", "letters"})
            assert {"a.b", "a.c", "a.d"} <= {one["topic"] for one in told["events"]}
            assert {one["name"] for one in told["profiles"]} == {"good", "asks", "bad"}
            by_profile = {one["profile"]: one for one in told["runs"]}
            assert [one["state"] for one in by_profile["good"]["steps"]] == ["done", "done"]
            assert by_profile["good"]["latency_ms"] >= 0
            await tells_a_story(client, by_profile["good"])
            await answers(m, client, told["approvals"][0])
            await settles(m, client, told["letters"][0])

    run(body())


async def tells_a_story(client: httpx.AsyncClient, good: dict[str, Any]) -> None:
    reply = await client.get(f"/api/stories/{good['event']}")
    nodes = {one["id"]: one for one in reply.json()["nodes"]}
    assert nodes[good["event"]]["above"] is None
    assert nodes[good["id"]]["above"] == good["event"]
    caused = [one for one in nodes.values() if one["above"] == good["id"]]
    assert "a.c" in {one["event"]["topic"] for one in caused}
    assert (await client.get("/api/stories/nothing-like-it")).status_code == 404


async def answers(m: Mesh, client: httpx.AsyncClient, one: dict[str, Any]) -> None:
    whole = await client.get(f"/api/runs/{one['run']}")
    assert "token_sha256" not in whole.text
    said = {"verdict": "granted", "comment": "go on"}
    reply = await client.post(f"/api/approvals/{one['id']}", json=said)
    assert reply.json() == {"run": one["run"], "verdict": "granted", "new": True}
    [granted] = await m.wait("automation.approval.granted")
    told = granted.payload
    assert (told["by"], told["via"], told["comment"]) == (user.name(), "web", "go on")
    late = await client.post(f"/api/approvals/{one['id']}", json={"verdict": "denied"})
    assert (late.status_code, "answered already" in late.json()["error"]) == (409, True)
    assert (await client.post("/api/approvals/x", json=said)).status_code == 404


async def settles(m: Mesh, client: httpx.AsyncClient, one: dict[str, Any]) -> None:
    whole = (await client.get(f"/api/letters/{one['seq']}")).json()
    assert whole["event"]["topic"] == "a.e"
    write_profiles("profiles: [")
    broken = await client.post(f"/api/letters/{one['seq']}", json={"act": "retry"})
    assert (broken.status_code, "validate" in broken.json()["hint"]) == (409, True)
    write_profiles(PROFILES)
    done = await client.post(f"/api/letters/{one['seq']}", json={"act": "retry"})
    assert done.json() == {"seq": one["seq"], "act": "retry"}
    await m.wait("automation.deadletter.redriven")
    again = await client.post(f"/api/letters/{one['seq']}", json={"act": "drop"})
    assert (again.status_code, "any more" in again.json()["error"]) == (409, True)


def test_without_the_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's packages are missing, the command says how they come."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused = cli("web")
    assert (refused.exit_code, "opsmesh[web]" in refused.stderr) == (1, True)


def test_a_taken_port(cli: Cli) -> None:
    """A port that somebody else has is said, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = cli("web", "--port", str(taken.getsockname()[1]))
    assert (refused.exit_code, "opsmesh web --port 0" in refused.stderr) == (1, True)


def test_the_address_is_handed_over_in_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser's command line, which others can read, holds no token; the file is one's own."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    command.hand_over(f"{HERE}/#token=secret")
    [given] = opened
    file = Path(given.removeprefix("file://"))
    assert "secret" not in given
    assert f'content="0; url={HERE}/#token=secret"' in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
