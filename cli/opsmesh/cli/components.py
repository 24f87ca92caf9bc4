"""Which components the mesh has on this machine, from the settings and the tools that are here.

A producer whose tool is not here is one too: it waits, for the tool may come.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from opsmesh.cli.config_file import mask_url
from opsmesh.producers import registry
from opsmesh.router import joined, paths, probes, server
from opsmesh.router.component import Component
from opsmesh.router.hub import cluster
from opsmesh.router.settings import Settings

#: How a reason begins that no tool's coming changes.
DISABLED: Final = "disabled in config.yaml"
UNNAMED: Final = "not among producers.enabled in config.yaml"
BROKEN: Final = "broken: "
NEVER: Final = (DISABLED, UNNAMED, BROKEN)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the supervisor is to run; `nats_url` is for people and holds no password."""

    nats_url: str
    components: list[Component]


def plan(settings: Settings) -> Plan:
    """Every component, the embedded broker prepared; BrokerMisconfigured without nats-server."""
    found: list[Component] = []
    member = joined.read()
    url = settings.nats.url
    if url is None and member is not None and member.hub.kind == "thin":
        url = ",".join(member.hub.urls)
    elif url is None:
        binary = server.find_binary(settings.nats.server)
        broker = server.prepare_own(settings)
        url = broker.url
        found.append(
            Component(
                name="broker",
                kind="broker",
                argv=broker.argv(binary),
                ready=probes.broker(broker.monitor_url, node=cluster.read() is not None),
            )
        )
    found.append(
        Component(
            name="agent",
            kind="agent",
            argv=_module("opsmesh.router.agent"),
            ready=probes.unix_socket(paths.ingest_socket()),
        )
    )
    found += [
        Component(name=name, kind=name, argv=_module(module), notifies=True)
        for name, module in (
            ("handlers", "opsmesh.handlers.serve"),
            ("sink", "opsmesh.handlers.evidence.sink"),
        )
    ]
    member = joined.read()
    if member is not None and member.hub.kind == "leaf" and not settings.nats.url:
        # what needs everybody's events is decided at the hub; what does not goes on without it
        argv = [*_module("opsmesh.handlers.serve"), "--scope", "mesh"]
        found.append(Component(name="handlers:hub", kind="handlers", argv=argv, notifies=True))
    if settings.a2a_serve.enabled:
        argv = _module("opsmesh.handlers.a2a_serve.main")
        found.append(Component(name="a2a", kind="handlers", argv=argv, notifies=True))
    if settings.metrics.port is not None:
        argv = _module("opsmesh.handlers.metrics.main")
        found.append(Component(name="metrics", kind="handlers", argv=argv, notifies=True))
    found += [
        Component(
            name=f"producer:{name}",
            argv=[
                *_module("opsmesh.producers.host"),
                name,
                *(w for k, v in _options(settings, name).items() for w in ("-o", f"{k}={v}")),
            ],
            waits_for=why or "",
        )
        for name, why in producers(settings).items()
        if why is None or not why.startswith(NEVER)
    ]
    return Plan(nats_url=mask_url(url), components=found)


def producers(settings: Settings) -> dict[str, str | None]:
    """Each producer's name, and why it does not run here (None when it does)."""
    found = registry.discover()
    names = dict.fromkeys(sorted([*found.producers, *found.problems]))
    return {name: _why_not(name, found, settings) for name in names}


def _why_not(name: str, found: registry.Found, settings: Settings) -> str | None:
    enabled = settings.producers.enabled
    if name in settings.producers.disabled:
        return DISABLED
    if enabled is not None and name not in enabled:
        return UNNAMED
    if name in found.problems:
        return f"{BROKEN}{found.problems[name]}"
    try:
        return registry.load(name, _options(settings, name)).available()
    except Exception as error:
        return f"{BROKEN}{type(error).__name__}: {error}"


def _options(settings: Settings, name: str) -> dict[str, str]:
    return {key: str(value) for key, value in settings.producers.options.get(name, {}).items()}


def _module(name: str) -> list[str]:
    # the module by itself: the command line around it would cost each process 8 MB and more
    return [sys.executable, "-m", name]
