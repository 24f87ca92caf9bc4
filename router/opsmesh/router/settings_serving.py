"""Settings about agents that ask us over MCP: what they may do to the mesh (`mcp_serve`), and which
checks they may have run (`checks`).

The one rule: nothing is allowed that is not written here; a client names what is allowed, never a
path, program or option of its own.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from opsmesh.schemas import durations

#: What `mcp serve` does beyond reading, once it is allowed.
Allowance = Literal["trigger", "approve", "approve-alone"]

_COLLECTOR: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _absolute(value: str) -> str:
    if not value.startswith(("/", "~/")) and value != "~":
        raise ValueError(f"{value!r} is not an absolute path")
    return value


def _collector(value: str) -> str:
    if not _COLLECTOR.fullmatch(value):
        raise ValueError(f"{value!r} is no collector's word, like unit_status")
    return value


def _labels(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not _LABEL.fullmatch(name):
            raise ValueError(f"{name!r} is not 1 to 64 of [a-z0-9_.-] after a letter or digit")
    return value


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Collectors = list[Annotated[str, AfterValidator(_collector)]]
Length = Annotated[float, BeforeValidator(durations.read), Field(gt=0)]


class McpServe(_Section):
    """`opsmesh mcp serve`."""

    allow: list[Allowance] = Field(
        default=[],
        description="beside reading. trigger: run profiles; approve: answer what waits, where the "
        "client asks the person in front of it; approve-alone: also without asking",
    )
    profiles: list[str] = Field(
        default=[],
        description="the only profiles that may be triggered; * and ? are wild; empty: all",
    )
    collectors: Collectors = Field(
        default=[], description="collectors that collect_evidence may ask; empty: none"
    )
    port: int = Field(default=9471, ge=0, le=65535, description="of --http; 0: a free one")


class SchemaCheck(_Section):
    """Files that one JSON Schema is for."""

    schema_file: AbsolutePath = Field(description="the JSON Schema, a file")
    files: list[AbsolutePath] = Field(
        min_length=1, description="files that may be checked; *, ? and ** are wild"
    )


class Units(_Section):
    """Units that may be restarted, by exact name or with * and ? in it."""

    user: list[Annotated[str, Field(min_length=1)]] = []
    system: list[Annotated[str, Field(min_length=1)]] = []


class Checks(_Section):
    """`opsmesh checks serve`. What is empty is refused."""

    pytest: list[AbsolutePath] = Field(
        default=[], description="folders in which tests may be run: their code is run"
    )
    lint: list[AbsolutePath] = Field(default=[], description="folders that ruff may look at")
    schemas: Annotated[dict[str, SchemaCheck], AfterValidator(_labels)] = {}
    collectors: Collectors = Field(
        default=[], description="collectors that collect_evidence may ask; empty: none"
    )
    restart: Units = Units()
    config: Annotated[
        dict[str, Annotated[list[str], Field(min_length=1)]], AfterValidator(_labels)
    ] = Field(
        default={},
        description="commands, each a list of words, that apply_config runs behind dotfiles.checks",
    )
    sandbox: Literal["bwrap", "none"] = Field(
        default="bwrap", description="around pytest and ruff; bwrap: refused where there is none"
    )
    read: list[AbsolutePath] = Field(
        default=[], description="what the sandbox shows beside the folder and its interpreter"
    )
    network: bool = Field(default=False, description="whether the sandbox has a network")
    timeout: Length = Field(default=300.0, description="for one check")


def _collector_address(value: str) -> str:
    if value != "console" and not value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is neither an http(s) address nor the word console")
    return value


class Traces(_Section):
    """OpenTelemetry (docs/metrics.md)."""

    endpoint: Annotated[str, AfterValidator(_collector_address)] | None = Field(
        default=None,
        description="a collector that takes OTLP over HTTP, like http://127.0.0.1:4318, or "
        "`console` for the log; none unless set (or OTEL_EXPORTER_OTLP_ENDPOINT)",
    )


class Metrics(_Section):
    """The endpoint for Prometheus (docs/metrics.md)."""

    port: int | None = Field(
        default=None, ge=0, le=65535, description="serve it there; not at all unless set"
    )
    address: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="who can reach it reads profile names and topics",
    )
