"""The streamable HTTP transport: the SDK's own, over a client that bounds what it takes.

No proxy and no netrc of the environment: a server is asked at its address, with its own headers,
and nothing else is sent to it. The SDK follows redirects within the server's origin alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
from mcp.client.streamable_http import streamable_http_client

from opsmesh.handlers.mcp.stdio import MAX_MESSAGE

#: Seconds to connect, and to wait for the next byte of an answer: a call has its own limit.
CONNECT_S: Final = 15.0
READ_S: Final = 3600.0
#: Bytes a second of a stream of events, beyond what one answer may have.
FLOOD: Final = 512 * 1024


class TooLarge(httpx2.TransportError):
    """A body that nobody could take."""


class _Stream(httpx2.AsyncByteStream):
    """A body as it comes."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Counted(_Stream):
    """A body with an end."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for chunk in self._inner:
            total += len(chunk)
            if total > MAX_MESSAGE:
                raise TooLarge(f"sent a message of over {MAX_MESSAGE} bytes")
            yield chunk


class _Paced(_Stream):
    """A stream of events: an answer comes at once, and a flood is read slowly."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room, seen = float(MAX_MESSAGE), time.monotonic()
        async for chunk in self._inner:
            now = time.monotonic()
            room = min(MAX_MESSAGE, room + (now - seen) * FLOOD) - len(chunk)
            seen = now
            if room < 0:
                await asyncio.sleep(-room / FLOOD)
            yield chunk


class _Bounded(httpx2.AsyncBaseTransport):
    """Counts what is no event stream, and paces what is one: an event has the SDK's own limit."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # A body that is unpacked could become any size.
        request.headers["accept-encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.RemoteProtocolError("the server packs its answers unasked")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Counted(response.stream)
        else:
            response.stream = _Paced(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def http_transport(url: str, headers: Mapping[str, str]) -> AsyncIterator[tuple[Any, Any]]:
    """What `mcp.Client` takes as a transport."""
    async with (
        httpx2.AsyncClient(
            headers=dict(headers),
            timeout=httpx2.Timeout(CONNECT_S, read=READ_S),
            transport=_Bounded(),
            trust_env=False,
        ) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE) as streams,
    ):
        yield streams
