"""A model server on loopback that says what a test tells it to: for real coding agents.

It speaks as much of three services as Codex (OpenAI's Responses), Claude Code (Anthropic's
Messages) and Gemini CLI (generateContent) need: one tool call after the other, then "done". Nothing
leaves the machine. `fails`: it answers with an error instead.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: A call of a tool: its name, and its arguments.
Call = tuple[str, dict[str, Any]]


def _sse(*events: dict[str, Any]) -> bytes:
    lines = (f"event: {one.get('type', '')}\ndata: {json.dumps(one)}\n\n" for one in events)
    return "".join(lines).encode()


def openai(asked: dict[str, Any], calls: Sequence[Call]) -> bytes:
    """The next item of a response."""
    done = sum(item.get("type") == "function_call_output" for item in asked["input"])
    if done < len(calls) and asked.get("tools"):
        name, arguments = calls[done]
        item = {
            **{"type": "function_call", "id": f"fc_{done}", "call_id": f"call_{done}"},
            **{"name": name, "arguments": json.dumps(arguments)},
        }
    else:
        content = [{"type": "output_text", "text": "done"}]
        item = {"type": "message", "role": "assistant", "id": "msg_1", "content": content}
    usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
    return _sse(
        {"type": "response.created", "response": {"id": f"resp_{done}"}},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {"id": f"resp_{done}", "usage": usage}},
    )


def anthropic(asked: dict[str, Any], calls: Sequence[Call]) -> bytes:
    """The next block of a message."""
    blocks = [
        block
        for message in asked["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
    ]
    done = sum(block.get("type") == "tool_result" for block in blocks)
    usage = {"input_tokens": 11, "output_tokens": 7}
    block: dict[str, Any] = {"type": "text", "text": ""}
    delta: dict[str, Any] = {"type": "text_delta", "text": "done"}
    reason = "end_turn"
    if done < len(calls) and asked.get("tools"):
        name, arguments = calls[done]
        block = {"type": "tool_use", "id": f"toolu_{done}", "name": name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
        reason = "tool_use"
    message = {
        **{"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"]},
        **{"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage},
    }
    return _sse(
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            **{"type": "message_delta", "usage": usage},
            "delta": {"stop_reason": reason, "stop_sequence": None},
        },
        {"type": "message_stop"},
    )


def gemini(asked: dict[str, Any], calls: Sequence[Call]) -> bytes:
    """The next part of a candidate."""
    parts = [part for content in asked["contents"] for part in content.get("parts", ())]
    done = sum("functionResponse" in part for part in parts)
    part: dict[str, Any] = {"text": "done"}
    if done < len(calls) and asked.get("tools"):
        name, arguments = calls[done]
        part = {"functionCall": {"name": name, "args": arguments}}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    counts = {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18}
    return (
        f"data: {json.dumps({'candidates': [candidate], 'usageMetadata': counts})}\r\n\r\n".encode()
    )


_ANSWERS = {"/responses": openai, "/messages": anthropic, ":streamGenerateContent": gemini}


@contextmanager
def serving(*calls: Call, fails: int = 0) -> Iterator[str]:
    """The server's address, while it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.partition("?")[0]
            answer = next((one for end, one in _ANSWERS.items() if path.endswith(end)), None)
            if fails or answer is None:
                self._say(fails or 404, b"{}")
                return
            self._say(200, answer(json.loads(body), calls), "text/event-stream")

        def do_GET(self) -> None:
            self._say(404, b"{}")

        do_HEAD = do_GET

        def _say(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
