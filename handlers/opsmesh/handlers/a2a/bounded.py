"""HTTP to an agent that may be anything: no redirects, no proxies or passwords from the
environment, and an answer that ends.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx

from opsmesh.handlers.errors import AgentFault

#: Bytes of one answer, a stream of news included.
MAX_ANSWER: Final = 16 * 1024 * 1024
#: Seconds to reach an agent.
CONNECT_S: Final = 10.0


@functools.lru_cache(1)
def _trusted() -> ssl.SSLContext:
    """Reading the authorities takes longer than most requests: once is enough."""
    return httpx.create_ssl_context(trust_env=False)


class _Counted(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, agent: str, limit: int) -> None:
        self._inner = inner
        self._agent = agent
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        async for chunk in self._inner:
            left -= len(chunk)
            if left < 0:
                raise AgentFault(self._agent, f"its answer is over {self._limit} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class Bounded(httpx.AsyncBaseTransport):
    """Counts what comes in, and takes it only as it is: what is compressed has no size yet."""

    def __init__(self, agent: str, *, limit: int | None = None) -> None:
        self._agent = agent
        self._limit = limit or MAX_ANSWER
        self._inner = httpx.AsyncHTTPTransport(verify=_trusted(), trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Accept-Encoding"] = "identity"
        answer = await self._inner.handle_async_request(request)
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            await answer.aclose()
            raise AgentFault(self._agent, f"its answer is encoded as {encoding!r:.40}")
        stream = answer.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError("an asynchronous answer has an asynchronous stream")
        return httpx.Response(
            answer.status_code,
            headers=answer.headers,
            stream=_Counted(stream, self._agent, self._limit),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


def client(
    agent: str, *, headers: Mapping[str, str], timeout_s: float, limit: int | None = None
) -> httpx.AsyncClient:
    """A client for this agent alone."""
    return httpx.AsyncClient(
        transport=Bounded(agent, limit=limit),
        headers=dict(headers),
        timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
        follow_redirects=False,
        trust_env=False,
    )
