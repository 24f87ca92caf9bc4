"""Which sessions live. One is a socket where somebody listens; a crash leaves a socket behind.

A session is known by its socket's inode and time of binding, which survive its being renamed. Who
listens is asked once in the life of a socket; from then on the server's end shows by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from opsmesh.producers.peer import Peer, identity
from opsmesh.producers.zellij import metadata
from opsmesh.producers.zellij.metadata import Layout
from opsmesh.producers.zellij.places import Places

Identity = tuple[int, int]


@dataclass(frozen=True)
class Session:
    """A session that lives. `layout` is None as long as Zellij has not written it."""

    contract: str
    name: str
    layout: Layout | None = None


@dataclass(frozen=True)
class Seen:
    """One look: the sessions that live, and the sockets where nobody listens any more."""

    alive: Mapping[Identity, Session] = field(default_factory=dict)
    dead: frozenset[Identity] = frozenset()


class Sessions:
    """Looks, and holds on to the server of each session until it ends."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._peers: dict[Identity, Peer] = {}

    def look(self) -> Seen:
        """What is there now."""
        alive: dict[Identity, Session] = {}
        dead = set()
        for contract in self._places.contracts():
            for name in self._places.names(contract):
                socket = self._places.socket(contract, name)
                known = identity(socket)
                if known is None:
                    continue
                if self._lives(known, socket):
                    alive[known] = Session(contract, name, self._read(contract, name))
                elif identity(socket) == known:  # else it went properly, just now
                    dead.add(known)
        for gone in self._peers.keys() - alive.keys():
            self._peers.pop(gone).close()
        return Seen(alive, frozenset(dead))

    def servers(self) -> list[Peer]:
        """For select: each becomes readable when its session's server has ended."""
        return list(self._peers.values())

    def close(self) -> None:
        """Let go of them."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()

    def _lives(self, known: Identity, socket: Path) -> bool:
        peer = self._peers.get(known)
        if peer is None:
            try:
                peer = Peer.at(socket)
            except OSError:
                return True  # it may only be slow; it is asked again at the next look
            if peer is None:
                return False
            self._peers[known] = peer
        return not peer.gone()

    def _read(self, contract: str, name: str) -> Layout | None:
        try:
            with self._places.metadata(contract, name).open("rb") as file:
                data = file.read(metadata.LONGEST + 1)
        except OSError:
            return None
        return metadata.parse(data) if len(data) <= metadata.LONGEST else None
