"""Settings: defaults, then `config.yaml`, then `OPSMESH_*` variables; the last one wins.

Nested settings are reached with two underscores: `OPSMESH_EVENTS__MAX_AGE=7d`. Unknown keys are
errors, so that a misspelt setting is never silently without effect.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from opsmesh.router import mcp_servers, paths, spool_room
from opsmesh.router.auth.tls import Tls
from opsmesh.router.mcp_servers import McpServers
from opsmesh.router.settings_a2a import A2aAgent, A2aServe, AgentName
from opsmesh.router.settings_notify import Notify
from opsmesh.router.settings_serving import Checks, McpServe, Metrics, Traces
from opsmesh.schemas import durations

#: A length of time in seconds, written as `90s`, `10m`, `2h`, `7d`.
Seconds = Annotated[float, BeforeValidator(durations.read)]


def _size(value: Any) -> Any:
    """Bytes, from a number or text such as `512MiB`."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    for unit, factor in (("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30), ("TiB", 2**40)):
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * factor)
    return text


Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NatsTls(_Section):
    """Files in PEM."""

    ca: Path | None = Field(default=None, description="whom to trust; else whom the system trusts")
    certificate: Path | None = Field(default=None, description="who we are, and its key")
    key: Path | None = Field(default=None, description="the key, where it lies in its own file")

    def files(self) -> Tls:
        """For a connection."""
        return Tls(ca=self.ca, certificate=self.certificate, key=self.key)


class Nats(_Section):
    """The broker: our own on loopback, or another one by `url`."""

    url: str | None = Field(default=None, description="use this server instead of the embedded one")
    user: str | None = None
    password: str | None = None
    credentials: Path | None = Field(default=None, description="a NATS .creds file")
    tls: NatsTls | None = Field(default=None, description="for a server whose CA is its own")
    server: Path | None = Field(default=None, description="the nats-server binary to run")
    port: int | None = Field(default=None, ge=1, le=65535, description="a free one unless set")
    max_file_store: Bytes = 20 * 2**30


class Events(_Section):
    """The EVENTS stream."""

    max_age: Seconds = 30 * 86400.0
    max_bytes: Bytes = 8 * 2**30
    duplicate_window: Seconds = 900.0
    replicas: int = Field(default=1, ge=1, le=5)


class Spool(_Section):
    """Events that the broker has not stored yet."""

    max_bytes: Bytes = Field(
        default=spool_room.MAX_BYTES, description="what the spool may take on disk"
    )
    when_full: Literal["refuse", "drop_oldest", "drop_newest"] = Field(
        default="refuse",
        description="refuse: the caller gets an error and keeps its event; drop_*: one is dropped, "
        "counted and reported",
    )


class Evidence(_Section):
    """The archive."""

    folder: Path | None = Field(default=None, description="default: evidence in the state folder")
    segment_bytes: Bytes = 64 * 2**20
    gap_grace: Seconds = Field(
        default=60.0, description="so long a missing event may still come before it counts as lost"
    )


class Bundles(_Section):
    """Evidence bundles, which `collect` makes."""

    keep: Seconds = Field(default=90 * 86400.0, description="a bundle stays on this host so long")
    max_bytes: Bytes = Field(
        default=4 * 2**30, description="what all of them may take here; the oldest go first"
    )
    share: bool = Field(default=True, description="give them to the other hosts of the mesh")
    shared_age: Seconds = Field(default=30 * 86400.0, description="and so long there")
    shared_bytes: Bytes = Field(default=2**30, description="what those of all hosts may take")


def _pattern(value: str) -> str:
    try:
        found = re.compile(value)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    if found.search("") is not None:
        raise ValueError("matches the empty text, so it would match everywhere")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
RuleName = Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,40}$")]
FieldName = Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")]


class RedactValue(_Section):
    """A rule for texts."""

    pattern: Pattern = Field(description="a group named `secret` is what is taken out, or all")
    hints: list[Annotated[str, Field(min_length=2)]] = Field(
        default=[],
        description="texts of which one is in every match; without, each event is walked",
    )


def _value(value: Any) -> Any:
    return {"pattern": value} if isinstance(value, str) else value


class Redact(_Section):
    """What is taken out of events beside what the built-in rules see (docs/redaction.md)."""

    emails: bool = Field(default=False, description="e-mail addresses too")
    cards: bool = Field(default=True, description="numbers of payment cards")
    fields: list[FieldName] = Field(
        default=[], description="names, in snake_case, under which everything is a secret"
    )
    values: dict[RuleName, Annotated[RedactValue, BeforeValidator(_value)]] = Field(
        default={}, description="regular expressions by the name that stands in the mark"
    )
    allow: list[Pattern] = Field(
        default=[], description="regular expressions of whole texts that are no secrets"
    )


class Producers(_Section):
    """Which producers `up` starts."""

    enabled: list[str] | None = Field(
        default=None, description="all whose tool is present unless set"
    )
    disabled: list[str] = []
    options: dict[str, dict[str, str | int | float | bool]] = Field(
        default={}, description="options of a producer by its name, as `producer run -o` takes them"
    )


class Dotfiles(_Section):
    """`opsmesh dotfiles apply`."""

    checks: list[Annotated[list[str], Field(min_length=1)]] = Field(
        default=[], description="commands, each a list of words, that must pass before an apply"
    )


def _words(value: Any) -> Any:
    """A command, from a list of words or a line."""
    return shlex.split(value) if isinstance(value, str) else value


class Panes(_Section):
    """`opsmesh panes`."""

    dashboard: Annotated[list[str] | None, BeforeValidator(_words)] = Field(
        default=None,
        description="the command of an ops dashboard of yours; what ~/src/opsctrl holds unless "
        "set, [] for none",
    )


class Runs(_Section):
    """Runs of profiles."""

    lease: Seconds = Field(
        default=30.0,
        ge=1,
        description="a step is its handler's for so long: one that cannot reach the broker "
        "meanwhile ends it, and one that wants to take it over from elsewhere waits",
    )
    places: int | None = Field(
        default=None,
        ge=1,
        description="a run of `run_on: any` goes to a host that is free while so many are under "
        "way here; the number of processors unless set",
    )


SecretSource = Literal["credentials", "file", "keyring"]


class Secrets(_Section):
    """Where `${{ secret("name") }}` is looked for (docs/secrets.md)."""

    order: list[SecretSource] = Field(
        default=["credentials", "file", "keyring"],
        min_length=1,
        description="the first that has the name gives it; what is not named is not asked",
    )


class Settings(BaseSettings):
    """Everything a person can set."""

    model_config = SettingsConfigDict(
        env_prefix="OPSMESH_", env_nested_delimiter="__", extra="forbid"
    )

    host: str = Field(default_factory=socket.gethostname, min_length=1)
    nats: Nats = Nats()
    events: Events = Events()
    spool: Spool = Spool()
    evidence: Evidence = Evidence()
    bundles: Bundles = Bundles()
    producers: Producers = Producers()
    dotfiles: Dotfiles = Dotfiles()
    panes: Panes = Panes()
    a2a_agents: dict[AgentName, A2aAgent] = Field(
        default={}, description="agents that the action `a2a` sends to, by name"
    )
    a2a_serve: A2aServe = A2aServe()
    notify: Notify = Notify()
    redact: Redact = Redact()
    runs: Runs = Runs()
    secrets: Secrets = Secrets()
    mcp_servers: McpServers = Field(
        default={}, description="MCP servers by name, for the action mcp"
    )
    mcp_serve: McpServe = McpServe()
    checks: Checks = Checks()
    metrics: Metrics = Metrics()
    traces: Traces = Traces()
    strict_topics: bool = Field(default=False, description="refuse events of unregistered topics")
    log: Literal["auto", "json", "pretty"] = Field(
        default="auto",
        description="how a component's log looks; auto: pretty on a terminal, else JSON",
    )
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            _ShortNames(settings_cls),
            env_settings,
            YamlConfigSettingsSource(settings_cls, config_file()),
            _Imported(settings_cls),
        )

    @property
    def evidence_dir(self) -> Path:
        """Where the archive lies."""
        return self.evidence.folder or Path(paths.evidence_dir())


class _ShortNames(PydanticBaseSettingsSource):
    """`OPSMESH_NATS_URL` and `OPSMESH_NATS_SERVER`, as everybody expects to write them."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        nats = {
            key: os.environ[variable]
            for key, variable in SHORT_NAMES.items()
            if os.environ.get(variable)
        }
        return {"nats": nats} if nats else {}


class _Imported(PydanticBaseSettingsSource):
    """The MCP servers that were imported, without those that stand elsewhere under their names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        known = self.current_state.get("mcp_servers")
        taken = known if isinstance(known, dict) else {}
        found = {name: one for name, one in mcp_servers.imported().items() if name not in taken}
        return {"mcp_servers": found} if found else {}


SHORT_NAMES = {"url": "OPSMESH_NATS_URL", "server": "OPSMESH_NATS_SERVER"}


def config_file() -> Path:
    """`$XDG_CONFIG_HOME/opsmesh/config.yaml`, whether it exists or not."""
    return Path(paths.config_dir(), "config.yaml")
