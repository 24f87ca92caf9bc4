"""Messages that a hub has from a leaf: whose they are, and their sequence there.

The server notes it in a header. The one rule: what a leaf has recorded names sequences of its own
stream, never the hub's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

#: `<stream>:<hash of the source> <sequence there> <filter> <transform> <subject there>`
#: (nats-server, stream.go: `genSourceHeader`).
SOURCE: Final = "Nats-Stream-Source"


class Origin(msgspec.Struct, frozen=True):
    """The leaf, by the server's hash of where it is sourced from, and the sequence there."""

    leaf: str
    seq: int


def origin(headers: Mapping[str, str] | None) -> Origin | None:
    """Where a message was stored first; None for one that was stored here."""
    name, _, rest = (headers or {}).get(SOURCE, "").partition(" ")
    _, _, leaf = name.partition(":")
    seq = rest.partition(" ")[0]
    return Origin(leaf, int(seq)) if leaf and seq.isdigit() else None
