"""What a host's sink is called at the broker.

Each host's sink has a consumer of its own, so that on a broker of many hosts each archive is whole.
"""

from __future__ import annotations

from typing import Final

from opsmesh.schemas.envelope import host_token

#: The name that all sinks had before; it goes once nobody reads it.
FORMER: Final = "evidence-sink"


def name(host: str) -> str:
    """The consumer of this host's sink; it says how far the archive is behind."""
    return f"{FORMER}-on-{host_token(host)}"
