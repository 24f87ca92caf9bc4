"""Settings about agents beyond the mesh: whom we ask (`a2a_agents`), who may ask us (`a2a_serve`).

The one rule: a secret is referred to, never written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from opsmesh.schemas import durations

_REFERENCE: Final = re.compile(r'\$\{\{\s*secret\(\s*(?:"[^"]+"|\'[^\']+\')\s*\)\s*\}\}')
_ADDRESS: Final = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value.strip()):
        raise ValueError('a secret is referred to, not written: ${{ secret("name") }}')
    return value


#: Where a secret is kept, never the secret itself.
SecretReference = Annotated[str, AfterValidator(_reference)]


def _web(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError(f"{value!r} is no address like https://agent.example/path")
    return value


WebAddress = Annotated[str, AfterValidator(_web)]


class A2aBasic(_Section):
    """A user and a password."""

    user: str
    password: SecretReference


class A2aAgent(_Section):
    """An agent that the action `a2a` may send to."""

    url: WebAddress = Field(description="where its card is, without /.well-known")
    card_path: str = Field(default="/.well-known/agent-card.json", pattern="^/")
    card_sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="the card that was agreed to: opsmesh a2a card NAME --pin",
    )
    interfaces: list[WebAddress] = Field(
        default=[], description="addresses beyond `url`'s own host that its card may name"
    )
    bearer: SecretReference | None = None
    api_key: SecretReference | None = Field(
        default=None, description="sent in the header that the card names"
    )
    basic: A2aBasic | None = None
    headers: dict[str, str] = Field(default={}, description="further headers of each request")
    timeout: Annotated[float, BeforeValidator(durations.read)] = Field(
        default=30.0, gt=0, description="for the answer to one request"
    )


class A2aServe(_Section):
    """`opsmesh a2a serve`."""

    enabled: bool = Field(default=False, description="whether `opsmesh up` starts it too")
    host: str = "127.0.0.1"
    port: int = Field(default=9470, ge=0, le=65535, description="0: a free one")
    url: WebAddress | None = Field(
        default=None, description="the address in the card, where it is not host and port"
    )
    name: str = Field(default="opsmesh", min_length=1, max_length=80)
    tokens: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")], SecretReference] = Field(
        default={}, description="who may ask, by the bearer token that proves it"
    )
    per_minute: int = Field(
        default=60, ge=1, le=100_000, description="messages that one caller may send"
    )
    push_urls: list[WebAddress] = Field(
        default=[], description="addresses, or their beginnings, that news may be sent to"
    )
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    v0_3: bool = Field(default=False, description="also answer clients of protocol 0.3")


AgentName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
