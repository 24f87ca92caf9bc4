"""What every profile of a handlers process shares, and one run under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nats.aio.client import Client

from opsmesh.handlers.actions.contract import NoSecrets, Recent, Secrets
from opsmesh.handlers.actions.shared import Shared
from opsmesh.handlers.live.firing import Stored
from opsmesh.handlers.live.mesh import LiveMesh
from opsmesh.handlers.live.recent import reader
from opsmesh.handlers.live.vigil import Vigil
from opsmesh.handlers.runs import asking
from opsmesh.handlers.runs.ledger import Held, Ledger
from opsmesh.handlers.runs.places import Places
from opsmesh.handlers.runs.waiting import Index
from opsmesh.router import paths
from opsmesh.schemas.envelope import Event
from opsmesh.schemas.redact import Redactor, built_in
from opsmesh.schemas.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Services:
    """What every profile of a handler process shares."""

    client: Client
    ledger: Ledger
    registry: Registry
    host: str
    bundles: Path
    workdirs: Path
    publish: Callable[[Event], Awaitable[None]]
    redactor: Redactor = field(default_factory=built_in)
    secrets: Secrets = field(default_factory=NoSecrets)
    shared: Shared = field(default_factory=Shared)
    strict_topics: bool = False
    places: Places = field(default_factory=Places)

    #: Set when there is a new bundle.
    bundled: asyncio.Event = field(default_factory=asyncio.Event)

    @cached_property
    def recent(self) -> Recent:
        """Reads what the stream holds."""
        return reader(self.client)

    @cached_property
    def mesh(self) -> LiveMesh:
        """What steps may do in the mesh."""
        return LiveMesh(self.client, self.registry, strict=self.strict_topics)

    @cached_property
    def vigil(self) -> Vigil:
        """Whether this process has been away."""
        return Vigil(self.client)

    @cached_property
    def index(self) -> Index:
        """Which runs wait for a person."""
        return Index(self.client)

    @cached_property
    def question_key(self) -> bytes:
        """What the tokens of this host's questions are made with."""
        return asking.load_key(Path(paths.state_dir()))


@dataclass(eq=False)
class Job:
    """One run under way. `events` are those of the firing, the run's own event the last; none: they
    are read when it begins."""

    held: Held
    events: Sequence[Stored] = ()
    task: asyncio.Task[None] | None = None
    #: Its first step is on record as started, by us, and has not been.
    fresh: bool = False
    #: It has been given its turn.
    turn: bool = False
    #: The question that was surely told, by its id.
    told: str = ""
    #: Why it has to end, once it has; and whether it has heard.
    cancelled: str = ""
    heard: bool = False
