"""`lint`: everything that is found wrong with a set of profiles, as one list.

The files' own errors come first; a profile that has one is not looked at any further.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from opsmesh.handlers.lint import agents as agents_
from opsmesh.handlers.lint import (
    approve,
    commands,
    confined,
    expressions,
    loops,
    reach,
    topics,
    triggers,
    unknown,
)
from opsmesh.handlers.lint import servers as servers_
from opsmesh.handlers.lint.finding import SEVERITIES, Finding
from opsmesh.handlers.lint.places import Places, Source
from opsmesh.handlers.profiles.profile import ProfileSet
from opsmesh.router.mcp_servers import McpServer
from opsmesh.schemas.registry import Registry


def lint(
    found: ProfileSet,
    registry: Registry,
    *,
    folder: Path,
    host: str,
    path: str | None = None,
    strict: bool = False,
    strict_topics: bool = False,
    servers: Mapping[str, McpServer] | None = None,
    agents: Collection[str] | None = None,
) -> list[Finding]:
    """Errors, then warnings, then notes, each in the order of files and lines.

    `folder` is the one that the profiles' files are named from. `path` is where programs are looked
    for, the PATH of actions unless given. With `strict` a program that is not here is an error,
    with `strict_topics` a topic that is not registered. `servers` are the MCP servers of the
    settings, `agents` the names of its agents; without them nothing is said of either.
    """
    profiles = list(found.profiles.values())
    sources = {
        file: Source(folder / file, file=file) for file in {profile.file for profile in profiles}
    }
    places = {
        profile.name: Places(sources[profile.file], profile=profile.name, line=profile.line)
        for profile in profiles
    }
    result = [Finding.of(error) for error in found.errors]
    emitted = topics.emitted(profiles)
    for profile in profiles:
        place = places[profile.name]
        result += expressions.lint(profile, place, registry)
        result += topics.lint(profile, place, registry, emitted=emitted, strict=strict_topics)
        result += reach.lint(profile, place, registry, host=host)
        result += commands.lint(profile, place, path=path, strict=strict)
        result += confined.lint(profile, place, strict=strict)
        result += triggers.lint(profile, place, list(places))
        result += unknown.lint(profile, place)
        result += approve.lint(profile, place)
        if servers is not None:
            result += servers_.lint(profile, place, servers, strict=strict)
        result += agents_.lint(profile, place, agents, strict=strict)
    result += loops.lint(profiles, places, registry)
    unique = dict.fromkeys(result)  # profiles may share a text by a YAML anchor
    return sorted(unique, key=_order)


def _order(finding: Finding) -> tuple[int, str, int, int]:
    rank = SEVERITIES.index(finding.severity)
    return rank, finding.file, finding.line, finding.column
