"""What users are given: from a role, or from a line of the manifest, to the subjects of a token."""

from __future__ import annotations

import bisect
from collections.abc import Callable

from opsmesh.router.auth.manifest import User
from opsmesh.router.auth.permissions import MAX_TOKEN, Permissions, permissions
from opsmesh.router.auth.reads import ReadsByConsumer
from opsmesh.router.errors import AuthError
from opsmesh.router.roles import ROLES


def of(
    role: str,
    *,
    user: str,
    host: str,
    topics: tuple[str, ...],
    reads: ReadsByConsumer | None = None,
    asks: bool = False,
) -> Permissions:
    """Those of a role by its name; AuthError when there is none of that name."""
    for known in ROLES:
        if role == known:
            return permissions(known, user=user, host=host, topics=topics, reads=reads, asks=asks)
    raise AuthError(f"{role!r} is no role", hint=f"one of {', '.join(ROLES)}")


def to(name: str, user: User) -> Permissions:
    """Those of a user, as its newest credentials have them."""
    if user.role not in ROLES:
        return Permissions(publish=tuple(user.publish), subscribe=tuple(user.subscribe))
    topics = tuple(user.topics)
    return of(user.role, user=name, host=user.host, topics=topics, reads=user.reads, asks=user.asks)


def lists(allow: tuple[str, ...], deny: tuple[str, ...]) -> dict[str, list[str]]:
    """As a token has them."""
    return {"allow": list(allow), **({"deny": list(deny)} if deny else {})}


def too_many(
    name: str, reads: ReadsByConsumer, size: Callable[[ReadsByConsumer], int]
) -> AuthError:
    """What to say of profiles that do not fit into one token; `size` is that of a token's text."""
    consumers = list(reads)
    fit = bisect.bisect(
        range(1, len(consumers)),
        MAX_TOKEN,
        key=lambda count: size({one: reads[one] for one in consumers[:count]}),
    )
    return AuthError(
        f"the credentials of {name} would hold {len(reads)} profiles, and {fit} fit "
        f"({MAX_TOKEN} bytes)",
        hint="give the host two handlers with their own files, or one without --profiles",
    )
