"""What agents may ask for: the enabled profiles that say `expose`, and the card that names them.

The files are looked at with every question: what a person just took back is not offered any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentExtension,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)

from opsmesh.handlers.a2a.messages import EXTENSION
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile, load_profiles, profile_files
from opsmesh.router.settings_a2a import A2aServe

#: What we take and give.
MODES: Final = ("text/plain", "application/json")
#: The version of our card's form.
VERSION: Final = "1.0"
#: The paths of the two bindings.
RPC, REST = "/a2a/v1/rpc", "/a2a/v1"

_Stamp = tuple[tuple[str, int, int], ...]

log = structlog.get_logger()


class Exposed:
    """The exposed profiles of a configuration folder."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._stamp: _Stamp | None = None
        self._profiles: Mapping[str, Profile] = {}

    def profiles(self) -> Mapping[str, Profile]:
        """By name; those of before while a file is broken."""
        stamp = self._now()
        if stamp == self._stamp:
            return self._profiles
        found = load_profiles(self._config)
        if found.errors:
            log.warning("profiles.rejected", error=str(found.errors[0]))
            self._stamp = stamp
            return self._profiles
        chosen = overrides.read()
        self._profiles = {
            name: profile
            for name, profile in sorted(found.profiles.items())
            if profile.expose is not None and chosen.get(name, profile.state) == "enabled"
        }
        self._stamp = stamp
        return self._profiles

    def _now(self) -> _Stamp:
        found = []
        for path in (*(path for path, _ in profile_files(self._config)), overrides.path()):
            try:
                stat = path.stat()
            except OSError:
                continue
            found.append((str(path), stat.st_mtime_ns, stat.st_size))
        return tuple(found)


def skill(profile: Profile) -> AgentSkill:
    """A profile as agents read of it."""
    about = profile.expose
    return AgentSkill(
        id=profile.name,
        name=profile.name,
        description=(about and about.description) or profile.description or profile.name,
        tags=list(about.tags if about and about.tags else ("opsmesh",)),
        examples=list(about.examples if about else ()),
        input_modes=list(MODES),
        output_modes=list(MODES),
    )


def card(
    profiles: Mapping[str, Profile], settings: A2aServe, *, address: str, token: bool
) -> AgentCard:
    """Who we are, and what may be asked of us."""
    bindings = [("JSONRPC", RPC, "1.0"), ("HTTP+JSON", REST, "1.0")]
    if settings.v0_3:
        bindings += [("JSONRPC", RPC, "0.3"), ("HTTP+JSON", REST, "0.3")]
    found = AgentCard(
        name=settings.name,
        description="An event mesh: each skill is a profile, and a task is a run of it.",
        version=VERSION,
        supported_interfaces=[
            AgentInterface(url=address + path, protocol_binding=binding, protocol_version=version)
            for binding, path, version in bindings
        ],
        capabilities=AgentCapabilities(
            streaming=True,
            push_notifications=bool(settings.push_urls),
            extensions=[
                AgentExtension(
                    uri=EXTENSION,
                    description="a data part may be an opsmesh event, whose story is gone on with",
                    required=False,
                )
            ],
        ),
        default_input_modes=list(MODES),
        default_output_modes=list(MODES),
        skills=[skill(profile) for profile in profiles.values()],
    )
    if token:
        scheme = SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="bearer"))
        found.security_schemes["bearer"].CopyFrom(scheme)
        found.security_requirements.append(SecurityRequirement(schemes={"bearer": StringList()}))
    return found
