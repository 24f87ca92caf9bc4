"""The page's server: files, what is live, what is asked for, and what is done.

The one rule: it holds no state of the mesh but the view, and nothing is answered that the door has
not let in.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from opsmesh.cli.dlq.text import letter_record
from opsmesh.cli.view.follower import Follower
from opsmesh.cli.web import deeds, looks, stories
from opsmesh.cli.web.deeds import Refusal
from opsmesh.cli.web.door import Door, cookie_name
from opsmesh.cli.web.live import Live, encode
from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.explain.story import Ambiguous
from opsmesh.handlers.runs.approvals import UnknownApproval
from opsmesh.router import deadletter
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import BrokerUnavailable, RouterError
from opsmesh.router.settings import Settings
from opsmesh.schemas.errors import SchemaError

#: The files of the page.
PAGE: Final = Path(__file__).parent / "page"
#: Bytes of a request.
MAX_BODY: Final = 512 * 1024

Handler = Callable[[Request], Awaitable[Response]]


class _Wrong(Exception):
    """The request is not one of the page's."""


class Site:
    """One server's handlers."""

    def __init__(self, follower: Follower, settings: Settings, *, token: str) -> None:
        self._follower = follower
        self._settings = settings
        self.app = Door(
            Starlette(
                routes=[
                    Route("/", _index),
                    Mount("/page", StaticFiles(directory=PAGE)),
                    Route("/api/session", _told(self.enter), methods=["POST"]),
                    Route("/api/live", self.live),
                    Route("/api/stories/{name}", _told(self.story)),
                    Route("/api/runs/{name}", _told(self.run)),
                    Route("/api/letters/{seq:int}", _told(self.letter)),
                    Route("/api/letters/{seq:int}", _told(self.settle), methods=["POST"]),
                    Route("/api/approvals/{name}", _told(self.answer), methods=["POST"]),
                    Route("/api/bundles", _told(self.bundles)),
                    Route("/api/bundles/{name}", _told(self.bundle)),
                    Route("/api/backtest", _told(self.backtest), methods=["POST"]),
                ]
            ),
            token=token,
        )

    def _client(self) -> Client:
        client = self._follower.client
        if client is None:
            raise BrokerUnavailable("", "the page goes on looking for it")
        return client

    async def enter(self, request: Request) -> Response:
        """A session for who has the token."""
        body = await _body(request)
        entered = self.app.enter(str(body.get("token") or ""))
        if entered is None:
            wrong = {"error": "the token is wrong", "hint": "opsmesh web prints the address anew"}
            return JSONResponse(wrong, 401)
        cookie, key = entered
        reply = JSONResponse({"key": key, "host": self._settings.host})
        reply.set_cookie(
            cookie_name(request.headers["host"]), cookie, httponly=True, samesite="strict"
        )
        return reply

    async def live(self, request: Request) -> Response:
        """Server-sent events, for as long as the page is open."""
        frames = Live(self._follower).frames()
        return StreamingResponse(frames, media_type="text/event-stream")

    async def story(self, request: Request) -> Response:
        """The graph of a story."""
        name = request.path_params["name"]
        found = await stories.story(self._client(), self._settings, name)
        if found is None:
            return JSONResponse({"error": f"no event, run or correlation {name[:80]}"}, 404)
        return _json(found)

    async def run(self, request: Request) -> Response:
        """A run whole."""
        found = self._follower.view.runs.get(request.path_params["name"])
        if found is None:
            return JSONResponse(
                {"error": "this run is none of the newest", "hint": "opsmesh run show ID"}, 404
            )
        return _json(stories.run_record(found))

    async def letter(self, request: Request) -> Response:
        """A dead letter whole."""
        seq = request.path_params["seq"]
        found = await deadletter.get(self._client(), seq)
        if found is None:
            return JSONResponse({"error": f"there is no dead letter {seq} any more"}, 404)
        return _json(letter_record(found))

    async def settle(self, request: Request) -> Response:
        """Retry or drop a dead letter."""
        body = await _body(request)
        act = body.get("act")
        if act not in ("retry", "drop"):
            raise _Wrong("act is retry or drop")
        done = await deeds.letter(
            self._client(),
            self._settings,
            request.path_params["seq"],
            act,
            comment=str(body.get("comment") or ""),
        )
        self._follower.look()
        return _json(done)

    async def answer(self, request: Request) -> Response:
        """Say yes or no to a question."""
        body = await _body(request)
        verdict = body.get("verdict")
        if verdict not in ("granted", "denied"):
            raise _Wrong("verdict is granted or denied")
        name = request.path_params["name"]
        done = await deeds.answer(self._client(), self._settings, name, verdict, body=body)
        self._follower.look()
        return _json(done)

    async def bundles(self, request: Request) -> Response:
        """Bundles, the newest first."""
        return _json(await asyncio.to_thread(looks.bundles))

    async def bundle(self, request: Request) -> Response:
        """A bundle's manifest and report."""
        return _json(await asyncio.to_thread(looks.bundle, request.path_params["name"]))

    async def backtest(self, request: Request) -> Response:
        """Decide the past with a text that was typed."""
        body = await _body(request)
        text, since = body.get("text"), body.get("since")
        if not isinstance(text, str) or not isinstance(since, str):
            raise _Wrong("text and since are needed")
        return _json(await looks.backtest(text, since))


async def _index(request: Request) -> Response:
    return FileResponse(PAGE / "index.html")


def _json(value: Any) -> Response:
    return Response(encode(value), media_type="application/json")


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise _Wrong(f"a request has at most {MAX_BODY} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise _Wrong("the request is no JSON") from None
    if not isinstance(found, dict):
        raise _Wrong("the request is no JSON object")
    return found


def _told(handler: Handler) -> Handler:
    """Turns our errors into a message and a next step."""

    async def call(request: Request) -> Response:
        try:
            return await handler(request)
        except _Wrong as error:
            return JSONResponse({"error": str(error)}, 400)
        except UnknownApproval as error:
            return JSONResponse({"error": str(error), "hint": error.hint}, 404)
        except (HandlersError, Refusal) as error:
            hint = str(getattr(error, "hint", ""))
            return JSONResponse({"error": str(error), "hint": hint}, 409)
        except (Ambiguous, SchemaError) as error:
            return JSONResponse({"error": str(error)}, 409)
        except (*AWAY, RouterError) as error:
            text = str(error) or "the broker does not answer"
            hint = getattr(error, "hint", "") or "opsmesh status"
            return JSONResponse({"error": text, "hint": hint}, 503)

    return call
