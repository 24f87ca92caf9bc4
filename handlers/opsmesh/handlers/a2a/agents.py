"""The agents of the settings: where each is, what it is sent with, which address of it we use.

The one rule: a credential goes to the host that a person wrote down, and nowhere that a card says.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from a2a.types import AgentCard, AgentInterface, SecurityScheme

from opsmesh.handlers.errors import AgentFault
from opsmesh.router.settings import Settings
from opsmesh.router.settings_a2a import A2aAgent
from opsmesh.schemas.nearest import did_you_mean

#: How A2A's requests are sent over HTTP; gRPC is not ours.
BINDINGS: Final = ("JSONRPC", "HTTP+JSON")
#: What may lead out of a folder: whoever reads the path later may take it so.
_WINDING: Final = re.compile(r"\.\.|\\|%(2e|2f|5c)", re.IGNORECASE)
#: What can stand in a header's value.
_VALUE: Final = re.compile(r"[\x20-\x7e\x80-\xff]*")


class Fills(Protocol):
    """Where secrets come from."""

    def fill(self, text: str) -> str:
        """The text, or the secret that it refers to."""


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent to ask: its name here, and what its settings say."""

    name: str
    about: A2aAgent

    @property
    def card_url(self) -> str:
        """Where its card is."""
        return self.about.url.rstrip("/") + self.about.card_path

    def may(self, address: str) -> bool:
        """Whether requests may go there: to the agent's own host, or what the settings allow."""
        if _origin(address) == _origin(self.about.url):
            return True
        return any(within(address, allowed) for allowed in self.about.interfaces)

    def interface(self, card: AgentCard) -> AgentInterface:
        """The address of the card that is used; AgentFault when none can be."""
        usable = [one for one in card.supported_interfaces if one.protocol_binding in BINDINGS]
        allowed = [one for one in usable if self.may(one.url)]
        if allowed:
            newest = (one for one in allowed if one.protocol_version.startswith("1."))
            chosen: AgentInterface = next(newest, allowed[0])
            return chosen
        if usable:
            raise AgentFault(
                self.name,
                f"its card sends us to {usable[0].url!r:.120}, which is not its own host",
                hint=f"if that is right, write it to a2a_agents.{self.name}.interfaces",
            )
        found = ", ".join(sorted({one.protocol_binding for one in card.supported_interfaces}))
        raise AgentFault(
            self.name, f"it speaks {found[:80] or 'nothing'}, and we {' and '.join(BINDINGS)}"
        )

    def headers(self, card: AgentCard | None, secrets: Fills) -> dict[str, str]:
        """What each request carries; AgentFault when the card asks for what the settings have
        not. Without a card: what can be sent to ask for it."""
        about = self.about
        found = {name: self._filled(name, text, secrets) for name, text in about.headers.items()}
        if about.bearer is not None:
            found["Authorization"] = f"Bearer {self._filled('bearer', about.bearer, secrets)}"
        elif about.basic is not None:
            pair = f"{about.basic.user}:{secrets.fill(about.basic.password)}"
            found["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        if card is None:
            return found
        wanted = [list(one.schemes) for one in card.security_requirements]
        satisfied = [
            names
            for names in wanted
            if all(self._has(card.security_schemes[name]) for name in names)
        ]
        if wanted and not satisfied:
            raise AgentFault(
                self.name,
                f"its card asks for {_schemes(card, wanted[0])}",
                hint=f"write it to a2a_agents.{self.name} in config.yaml",
            )
        if about.api_key is not None:
            found[self._key_header(card)] = self._filled("api_key", about.api_key, secrets)
        return found

    def _filled(self, what: str, text: str, secrets: Fills) -> str:
        value = secrets.fill(text)
        if not _VALUE.fullmatch(value):  # said here: HTTP's own error would show it
            raise AgentFault(self.name, f"what {what} refers to cannot stand in a header")
        return value

    def _has(self, scheme: SecurityScheme) -> bool:
        about = self.about
        if scheme.HasField("http_auth_security_scheme"):
            kind = scheme.http_auth_security_scheme.scheme.lower()
            given = {"bearer": about.bearer, "basic": about.basic}.get(kind)
            return given is not None or "Authorization" in about.headers
        if scheme.HasField("api_key_security_scheme"):
            key = scheme.api_key_security_scheme
            return key.location.lower() == "header" and (
                about.api_key is not None or key.name in about.headers
            )
        if scheme.HasField("oauth2_security_scheme") or scheme.HasField(
            "open_id_connect_security_scheme"
        ):  # a token that somebody got for us
            return about.bearer is not None or "Authorization" in about.headers
        return False

    def _key_header(self, card: AgentCard) -> str:
        for scheme in card.security_schemes.values():
            key = scheme.api_key_security_scheme
            if scheme.HasField("api_key_security_scheme") and key.location.lower() == "header":
                return _header(self.name, key.name)
        return "X-API-Key"


def find(settings: Settings, name: str) -> Agent:
    """The agent of this name; AgentFault when the settings have none."""
    about = settings.a2a_agents.get(name)
    if about is None:
        near = did_you_mean(name, settings.a2a_agents)
        raise AgentFault(name, f"there is none of this name in a2a_agents of config.yaml{near}")
    return Agent(name=name, about=about)


def within(address: str, allowed: str) -> bool:
    """Whether an address is the allowed one, or below it."""
    if _origin(address) != _origin(allowed) or _WINDING.search(address):
        return False
    path, base = urlsplit(address).path or "/", urlsplit(allowed).path or "/"
    return path == base or path.startswith(base if base.endswith("/") else base + "/")


def describe(scheme: SecurityScheme) -> str:
    """A way to prove who one is, for people."""
    if scheme.HasField("http_auth_security_scheme"):
        return f"HTTP {scheme.http_auth_security_scheme.scheme[:40]}"
    if scheme.HasField("api_key_security_scheme"):
        key = scheme.api_key_security_scheme
        return f"an API key in the {key.location[:20]} {key.name[:60]}"
    if scheme.HasField("mtls_security_scheme"):
        return "a TLS certificate, which we cannot show"
    return "an OAuth token (bearer)"


def _schemes(card: AgentCard, names: list[str]) -> str:
    known: Mapping[str, Any] = card.security_schemes
    return " and ".join(describe(known[name]) if name in known else name[:40] for name in names)


def _header(agent: str, name: str) -> str:
    allowed = name.replace("-", "").replace("_", "")
    if not allowed.isalnum() or not allowed.isascii() or name.lower() in ("host", "content-length"):
        raise AgentFault(agent, f"its card names the header {name!r:.60} for the key")
    return name


def _origin(address: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, port
