"""Credentials files (`.creds`): a user's token and its seed, as every NATS client reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opsmesh.router.auth import jwt
from opsmesh.router.auth.permissions import INBOX, Permissions
from opsmesh.router.auth.reads import ASK
from opsmesh.router.errors import BadFile

_BLOCK: Final = re.compile(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END \1-+")
_TOKEN, _SEED = "NATS USER JWT", "USER NKEY SEED"
_FORM: Final = """\
-----BEGIN NATS USER JWT-----
{token}
------END NATS USER JWT------

************************* IMPORTANT *************************
This file is a secret: whoever has it is {name}.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""


@dataclass(frozen=True, kw_only=True)
class Creds:
    """What a file says of its user."""

    name: str
    key: str
    permissions: Permissions

    @property
    def inbox(self) -> str | None:
        """The prefix of the inboxes it may listen to; None where it is nats' own."""
        for allowed in self.permissions.subscribe:
            if allowed.startswith(f"{INBOX}.") and allowed.endswith(".>"):
                return allowed.removesuffix(".>")
        return None

    @property
    def gate(self) -> str | None:
        """How what it asks of JetStream begins, where that goes through the agent; None where it
        goes to the broker."""
        for allowed in self.permissions.publish:
            if allowed.startswith(f"{ASK}.") and allowed.endswith(f".{self.name}.>"):
                return allowed.removesuffix(">")
        return None


def text(token: str, key: jwt.Key, *, name: str) -> str:
    """The file's content."""
    return _FORM.format(token=token, seed=key.seed, name=name)


def read(path: Path) -> Creds:
    """The user of a file; BadFile when it holds none, OSError when it cannot be read."""
    blocks = dict(_BLOCK.findall(path.read_text()))
    if _TOKEN not in blocks or _SEED not in blocks:
        raise BadFile(str(path), "no NATS credentials: a user's JWT and an NKey seed")
    try:
        claims = jwt.read(blocks[_TOKEN])
    except ValueError as error:
        raise BadFile(str(path), str(error)) from error
    nats: dict[str, Any] = claims.get("nats") or {}
    publish, subscribe = nats.get("pub") or {}, nats.get("sub") or {}
    return Creds(
        name=str(claims.get("name", "")),
        key=str(claims.get("sub", "")),
        permissions=Permissions(
            publish=tuple(publish.get("allow") or (">",)),
            subscribe=tuple(subscribe.get("allow") or (">",)),
            not_publish=tuple(publish.get("deny") or ()),
            not_subscribe=tuple(subscribe.get("deny") or ()),
        ),
    )
