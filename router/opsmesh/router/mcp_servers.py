"""The section `mcp_servers` of the settings: MCP servers by the names that profiles use.

A server is a program that is started (stdio) or an address (streamable HTTP), in the keys that
desktop MCP clients have. `mcp_servers.json` beside config.yaml is what `opsmesh mcp import` writes;
a name that config.yaml has too is config.yaml's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from opsmesh.router import paths
from opsmesh.router.errors import BadFile
from opsmesh.schemas import durations

#: The file of imported servers, in the configuration folder.
IMPORTED: Final = "mcp_servers.json"
#: Seconds that a server has to be ready, and that a call may take, unless something says otherwise.
TIMEOUT_S: Final = 30.0

#: A name stands in profiles, events and the names of files.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_REFERENCE = re.compile(r"""\$\{\{\s*secret\(\s*("[^"]*"|'[^']*')\s*\)\s*\}\}""")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: RFC 9110: a field's name is a token.
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _whole(name: str, text: str) -> None:
    if "${{" in text and not _REFERENCE.fullmatch(text):
        raise ValueError(f'{name!r}: a secret is the whole value, as ${{{{ secret("name") }}}}')


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        _whole(name, text)
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an HTTP header")
        if any(ord(character) < 32 for character in text):
            raise ValueError(f"the header {name!r} holds a control character")
        _whole(name, text)
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or a password; use headers, with a secret")
    return value


class McpServer(BaseModel):
    """One server. In `env` and `headers` a whole value may be `${{ secret("name") }}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["stdio", "http", "streamable-http"] | None = Field(
        default=None, description="what command and url say already; kept from other clients"
    )
    command: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="the program; no shell reads it"
    )
    args: list[str] = []
    env: Annotated[dict[str, str], AfterValidator(_variables)] = Field(
        default={}, description="beside a minimal environment"
    )
    cwd: Path | None = Field(default=None, description="where it is started; home unless set")
    url: Annotated[str, AfterValidator(_url)] | None = Field(
        default=None, description="the address of a streamable HTTP server"
    )
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}
    timeout: Annotated[float, BeforeValidator(durations.read), Field(gt=0)] = Field(
        default=TIMEOUT_S,
        description="for its start, and for a call whose step has no timeout of its own",
    )
    tools: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None, description="the only tools that any profile may call; * and ? are wild"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("needs either command (a program) or url (an address)")
        wrong = ("args", "env", "cwd") if self.command is None else ("headers",)
        kind = "http" if self.command is None else "stdio"
        for key in wrong:
            if getattr(self, key):
                raise ValueError(f"{key} does not go with {'url' if kind == 'http' else 'command'}")
        if self.type is not None and (self.type == "stdio") != (kind == "stdio"):
            raise ValueError(f"type {self.type} does not go with what is written: it is {kind}")
        return self

    @property
    def place(self) -> str:
        """What it is, without anything that may be a secret."""
        return self.url.split("?")[0] if self.url else " ".join((self.command or "", *self.args))


def _named(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not 1 to 64 of [A-Za-z0-9_.-] after a letter or digit")
    return value


McpServers = Annotated[dict[str, McpServer], AfterValidator(_named)]


def imported_file() -> Path:
    """`mcp_servers.json` in the configuration folder, whether it exists or not."""
    return Path(paths.config_dir(), IMPORTED)


def imported() -> dict[str, Any]:
    """The imported servers as they are written; BadFile when the file is no such thing."""
    path = imported_file()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadFile(str(path), f"is no JSON: {error}") from error
    servers = found.get("mcpServers") if isinstance(found, dict) else None
    if not isinstance(servers, dict):
        raise BadFile(str(path), "has no mapping 'mcpServers'")
    return servers
