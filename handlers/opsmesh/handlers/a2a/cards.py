"""Agent cards: fetched, kept for a while, compared with the pin.

A card's hash is over its content in canonical form, without signatures: the same card in another
layout, or signed again, has the same hash. The one rule: with a pin, no other card is ever used.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from a2a.client.card_resolver import parse_agent_card
from a2a.types import AgentCard
from google.protobuf.json_format import ParseError

from opsmesh.handlers.errors import AgentFault
from opsmesh.router import paths

#: Bytes of a card.
MAX_CARD: Final = 256 * 1024
#: Seconds for which a card is used without asking for a newer one.
FRESH_S: Final = 300.0


class _Kept(msgspec.Struct, kw_only=True):
    url: str
    etag: str
    fetched_s: float
    card: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card as it was given, and its hash."""

    url: str
    content: dict[str, Any]
    sha256: str

    def parsed(self) -> AgentCard:
        """Its fields; ParseError when it is none."""
        return parse_agent_card(json.loads(json.dumps(self.content)))


def digest(content: dict[str, Any]) -> str:
    """The hash of a card's content."""
    unsigned = {key: value for key, value in content.items() if key != "signatures"}
    canonical = json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()


async def get(
    http: httpx.AsyncClient, agent: str, url: str, *, pin: str | None, fresh: bool = False
) -> Card:
    """The card at `url`; AgentFault when there is none, or when it is not the pinned one. `fresh`
    asks for it also when a young one is kept."""
    kept = _read(url)
    now = time.time()
    if kept is None or fresh or not 0 <= now - kept.fetched_s < FRESH_S:
        kept = await _fetch(http, agent, url, kept, now)
    card = Card(url=url, content=kept.card, sha256=digest(kept.card))
    if pin is not None and card.sha256 != pin:
        raise AgentFault(
            agent,
            f"its card has changed: {card.sha256[:16]}…, and {pin[:16]}… is pinned",
            hint=f"see what changed, then pin it: opsmesh a2a card {agent} --pin",
        )
    try:
        card.parsed()
    except (ParseError, TypeError, ValueError, AttributeError) as error:
        raise AgentFault(agent, f"{url} is no agent card: {error!s:.200}") from error
    return card


async def _fetch(
    http: httpx.AsyncClient, agent: str, url: str, kept: _Kept | None, now: float
) -> _Kept:
    headers = {"If-None-Match": kept.etag} if kept is not None and kept.etag else {}
    try:
        async with http.stream("GET", url, headers=headers) as answer:
            if answer.status_code == 304 and kept is not None:
                kept.fetched_s = now
                _write(kept)
                return kept
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_CARD:
                    raise AgentFault(agent, f"its card is over {MAX_CARD} bytes")
    except httpx.TimeoutException as error:
        raise AgentFault(agent, f"{url} did not answer in time", retryable=True) from error
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise AgentFault(agent, f"{url} cannot be reached: {why:.200}", retryable=True) from error
    if answer.status_code != 200:
        raise AgentFault(
            agent,
            f"{url} answered HTTP {answer.status_code}",
            retryable=answer.status_code >= 500 or answer.status_code == 429,
        )
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AgentFault(agent, f"{url} is no agent card: not JSON") from error
    if not isinstance(content, dict):
        raise AgentFault(agent, f"{url} is no agent card: no JSON object")
    found = _Kept(url=url, etag=answer.headers.get("ETag", "")[:200], fetched_s=now, card=content)
    _write(found)
    return found


def _path(url: str) -> Path:
    name = hashlib.sha256(url.encode()).hexdigest()[:32]
    return Path(paths.state_dir(), "a2a", "cards", f"{name}.json")


def _read(url: str) -> _Kept | None:
    try:
        kept = msgspec.json.decode(_path(url).read_bytes(), type=_Kept)
    except (OSError, msgspec.DecodeError):
        return None
    return kept if kept.url == url else None


def _write(kept: _Kept) -> None:
    path = _path(kept.url)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(msgspec.json.encode(kept))
    new.replace(path)
