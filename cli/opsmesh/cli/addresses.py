"""Where a machine is reached, as options name it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from opsmesh.cli import output

#: A host's name or address, as it stands in a URL and in a certificate.
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def is_address(text: str) -> bool:
    """A host's name, or an IP address; no port, no scheme, not nothing."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _NAME.fullmatch(text) is not None
    return True


def require(given: Iterable[str], *, hint: str) -> None:
    """Fails for an `--address` that is none: a certificate for it would be good for nothing."""
    for one in given:
        if not is_address(one):
            output.fail(
                f"--address {one!r} is neither a name nor an address", hint=hint, code=output.USAGE
            )
