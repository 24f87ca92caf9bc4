"""A stand-in for agents that break the protocol, which no SDK's server does: plain HTTP, a thread.

Each kind of lie has a card of its own: `<address>/<kind>/.well-known/agent-card.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

BOMB = gzip.compress(b"0" * 50_000_000)
WORKING, COMPLETED = "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"


def task(context: str, *, id: str = "t1", state: str = WORKING, **more: Any) -> dict[str, Any]:
    return {"id": id, "contextId": context, "status": {"state": state}, **more}


class Liar:
    """What each kind answers; `calls` are the methods that it was asked, `cards` how often its
    card was."""

    def __init__(self) -> None:
        self.address = ""
        self.calls: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.cards = 0
        self.version = "1"

    async def card(self, request: Request) -> Response:
        self.cards += 1
        kind = request.path_params["kind"]
        if kind == "card_huge":
            return Response(b" " * 300_000, media_type="application/json")
        if kind == "card_html":
            return Response("<html>", media_type="text/html")
        if kind == "card_list":
            return JSONResponse([1])
        if kind == "card_wrong":
            return JSONResponse({"name": {"a": 1}, "capabilities": 3})
        if kind == "card_bare":
            return JSONResponse({})
        if kind == "card_503":
            return Response(status_code=503)
        if kind == "card_404":
            return Response(status_code=404)
        etag = f'"{kind}-{self.version}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304)
        url = f"{self.address}/{kind}/rpc"
        if kind == "elsewhere":
            url = url.replace("127.0.0.1", "localhost")
        binding = "GRPC" if kind == "grpc" else "JSONRPC"
        about = {
            "name": "Liar\x1b[31m\n" + "x" * 500,
            "description": "lies",
            "version": self.version,
            "supportedInterfaces": [
                {"url": url, "protocolBinding": binding, "protocolVersion": "1.0"}
            ],
            "capabilities": {"streaming": True},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [],
        }
        if kind == "key":
            about["securitySchemes"] = {
                "k": {"apiKeySecurityScheme": {"location": "header", "name": "X-Agent-Key"}}
            }
            about["securityRequirements"] = [{"schemes": {"k": {"list": []}}}]
        if kind == "key_host":
            about["securitySchemes"] = {
                "k": {"apiKeySecurityScheme": {"location": "header", "name": "Host"}}
            }
        return JSONResponse(about, headers={"ETag": etag})

    async def rpc(self, request: Request) -> Response:
        kind, body = request.path_params["kind"], await request.json()
        self.calls.append((kind, body["method"]))
        self.headers.append(dict(request.headers))
        if body["method"] == "CancelTask":
            return self._result(body, task("", state="TASK_STATE_CANCELED"))
        context = body.get("params", {}).get("message", {}).get("contextId", "")
        answer: Callable[[dict[str, Any], str], Any] = getattr(self, f"_{kind}", self._done)
        found = answer(body, context)
        done: Response = await found if asyncio.iscoroutine(found) else found
        return done

    def _result(self, body: dict[str, Any], result: Any) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": body["id"], "result": result})

    def _task(self, body: dict[str, Any], found: dict[str, Any]) -> Response:
        sent = body["method"] == "SendMessage"
        return self._result(body, {"task": found} if sent else found)

    def _error(self, body: dict[str, Any], code: int) -> Response:
        error = {"code": code, "message": "no"}
        return JSONResponse({"jsonrpc": "2.0", "id": body["id"], "error": error})

    def _done(self, body: dict[str, Any], context: str) -> Response:
        return self._task(body, task(context, state=COMPLETED))

    def _other_task(self, body: dict[str, Any], context: str) -> Response:
        id = "t1" if body["method"] == "SendMessage" else "t2"
        return self._task(body, task(context or "story", id=id))

    def _other_context(self, body: dict[str, Any], context: str) -> Response:
        return self._task(body, task("somebody else's", state=COMPLETED))

    def _no_id(self, body: dict[str, Any], context: str) -> Response:
        return self._task(body, task(context, id="", state=COMPLETED))

    def _neither(self, body: dict[str, Any], context: str) -> Response:
        return self._result(body, {})

    def _a_list(self, body: dict[str, Any], context: str) -> Response:
        return JSONResponse([1, 2])

    def _wrong_types(self, body: dict[str, Any], context: str) -> Response:
        return self._result(body, {"task": {"id": 3, "status": "done", "artifacts": {"a": 1}}})

    def _html(self, body: dict[str, Any], context: str) -> Response:
        return Response("<html>hello</html>", media_type="text/html")

    def _deep(self, body: dict[str, Any], context: str) -> Response:
        nested = "[" * 5000 + "]" * 5000
        part = f'{{"data": {nested}}}'
        found = task(context, state=COMPLETED, artifacts=[{"artifactId": "a", "parts": ["@"]}])
        text = json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": {"task": found}})
        return Response(text.replace('"@"', part), media_type="application/json")

    def _redirect(self, body: dict[str, Any], context: str) -> Response:
        return RedirectResponse(f"{self.address}/honest/rpc", status_code=307)

    def _zipped(self, body: dict[str, Any], context: str) -> Response:
        return Response(BOMB, media_type="application/json", headers={"Content-Encoding": "gzip"})

    async def _slow(self, body: dict[str, Any], context: str) -> Response:
        await asyncio.sleep(60)  # nobody waits so long
        return self._done(body, context)

    def _busy(self, body: dict[str, Any], context: str) -> Response:
        return Response(status_code=503)

    def _refuses(self, body: dict[str, Any], context: str) -> Response:
        return self._error(body, -32602)

    def _broken(self, body: dict[str, Any], context: str) -> Response:
        return self._error(body, -32603)

    def _forgets(self, body: dict[str, Any], context: str) -> Response:
        if body["method"] == "SendMessage":
            return self._task(body, task(context))
        return self._error(body, -32001)

    def _endless(self, body: dict[str, Any], context: str) -> Response:
        return self._stream(body, context, "t1")

    def _foreign_news(self, body: dict[str, Any], context: str) -> Response:
        return self._stream(body, context, "t2")

    def _stream(self, body: dict[str, Any], context: str, about: str) -> Response:
        async def news() -> AsyncIterator[str]:
            yield self._line(body, {"task": task(context)})
            while True:
                status = {"taskId": about, "contextId": context, "status": {"state": WORKING}}
                yield self._line(body, {"statusUpdate": status})
                await asyncio.sleep(0)

        return StreamingResponse(news(), media_type="text/event-stream")

    def _one_line(self, body: dict[str, Any], context: str) -> Response:
        async def news() -> AsyncIterator[bytes]:
            yield b"data: "
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)

        return StreamingResponse(news(), media_type="text/event-stream")

    def _breaks(self, body: dict[str, Any], context: str) -> Response:
        """A stream that ends in the middle; the task is done when it is looked at."""
        if body["method"] == "GetTask":
            return self._result(body, task("", state=COMPLETED))

        async def news() -> AsyncIterator[str]:
            yield self._line(body, {"task": task(context)})

        return StreamingResponse(news(), media_type="text/event-stream")

    def _line(self, body: dict[str, Any], result: Any) -> str:
        answer = {"jsonrpc": "2.0", "id": body["id"], "result": result}
        return f"data: {json.dumps(answer)}\n\n"


@contextlib.contextmanager
def liar() -> Iterator[Liar]:
    """Lies until the body ends."""
    lies = Liar()
    listener = socket.create_server(("127.0.0.1", 0))
    lies.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = Starlette(
        routes=[
            Route("/{kind}/.well-known/agent-card.json", lies.card),
            Route("/{kind}/rpc", lies.rpc, methods=["POST"]),
        ]
    )
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield lies
    finally:
        server.should_exit = True
        thread.join(60)
