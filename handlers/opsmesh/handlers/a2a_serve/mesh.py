"""What the server has of the mesh: one connection, and what is reached over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nats.aio.client import Client

from opsmesh.handlers.a2a_serve.exposed import Exposed
from opsmesh.handlers.a2a_serve.push import Herald
from opsmesh.handlers.a2a_serve.records import Records
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.schemas.envelope import Event
from opsmesh.schemas.redact import Redactor


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """What is behind the requests. `hindrance` says why a profile cannot be run now, "" if it can;
    `publish` stores an event."""

    client: Client
    ledger: Ledger
    records: Records
    exposed: Exposed
    herald: Herald
    redactor: Redactor
    host: str
    publish: Callable[[Event], Awaitable[None]]
    hindrance: Callable[[str], Awaitable[str]]
