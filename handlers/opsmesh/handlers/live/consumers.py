"""What a profile's reading is called at the broker, and what it asks for.

The names are those of the durable consumer, of the position and of the versions of a profile.
"""

from __future__ import annotations

from typing import Final

from opsmesh.handlers.live.scope import Scope, decides
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.schemas.envelope import host_token

#: A profile's own text, and a candidate that decides beside it in shadow.
ACTIVE: Final = "profile"
CANDIDATE: Final = "candidate"


def consumer_name(profile: Profile, host: str, *, kind: str = ACTIVE) -> str:
    """`profile-<name>`; one that runs where its event is from has a consumer on each host, and one
    that names its host has that host's, whoever asks."""
    name = f"{kind}-{profile.name}"
    if profile.run_on == "any":
        return name
    return f"{name}-on-{host_token(host if profile.run_on == 'origin' else profile.run_on)}"


def filter_subjects(profile: Profile, host: str) -> list[str]:
    """What the broker hands to this profile on this host: its topics, and those that its conditions
    ask for the newest event of."""
    rule = profile.rule
    everywhere = any(last.anywhere for last in rule.last)
    hosts = host_token(host) if profile.run_on == "origin" and not everywhere else "*"
    return [f"evt.{hosts}.{pattern}" for pattern in rule.listens]


def runs_here(profile: Profile, host: str, scope: Scope = "all") -> bool:
    """Whether handlers of this scope on this host may decide for it."""
    if not decides(scope, profile.run_on):
        return False
    return profile.run_on in ("any", "origin") or host_token(profile.run_on) == host_token(host)
