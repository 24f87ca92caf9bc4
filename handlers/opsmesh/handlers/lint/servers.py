"""MCP servers that steps name and the settings do not have. As with programs, the file may be
written for another host: a warning, and with `strict` an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from opsmesh.handlers.lint.finding import Finding, Severity
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.yamlfile import Where
from opsmesh.router.mcp_servers import McpServer
from opsmesh.schemas.nearest import nearest


def lint(
    profile: Profile,
    places: Places,
    servers: Mapping[str, McpServer],
    *,
    strict: bool = False,
) -> Iterator[Finding]:
    """Steps that call a server that is not there, or a tool that it does not let be called."""
    severity: Severity = "error" if strict else "warning"
    for number, step in enumerate(profile.steps):
        if step.action.key != "mcp":
            continue
        spec = step.action.describe()
        name, tool = spec["server"], spec["tool"]
        where: Where = ("actions", number, "mcp", "server")
        if name not in servers:
            near = nearest(name, servers)
            add = "add it to mcp_servers in config.yaml, or opsmesh mcp import FILE.json"
            hint = f"did you mean {near!r}?" if near else add
            yield places.finding(
                severity, where, f"server {name!r} is not in mcp_servers", hint=hint
            )
            continue
        allowed = servers[name].tools
        if allowed is not None and not any(fnmatchcase(tool, one) for one in allowed):
            yield places.finding(
                "error",
                ("actions", number, "mcp", "tool"),
                f"tool {tool!r} is not among the tools that mcp_servers.{name}.tools allows",
                hint=f"it allows {', '.join(allowed) or 'none'}",
            )
