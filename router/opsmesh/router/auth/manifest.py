"""Who was given what: `manifest.yaml` as data, and what a cluster's nodes tell each other of it.

`store` reads and writes the file. The one rule of what is told: a key that is void for one node is
void for all, whoever knows more users.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
import yaml

from opsmesh.router.auth.reads import Reads

# In C where PyYAML was built with it, as its wheels are: the manifest is read and written for each
# user that is issued, and in Python that was half of a broker's preparation.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Final[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_HEAD: Final = """\
# Who may do what at this broker. Written by opsmesh auth; to change something: opsmesh auth --help
"""


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the manifest."""

    role: str
    host: str
    key: str
    issued: str
    signer: str
    topics: list[str] = []
    expires: str | None = None
    #: Earlier keys of this user that are valid yet.
    before: list[str] = []
    #: A producer's own account, in which nothing is stored or heard but its own answers: where the
    #: broker is told to answer, nobody checks (ADR 0034).
    account: str = ""
    #: Of a role that is none of ROLES: what it may (a leaf's connection).
    publish: list[str] = []
    subscribe: list[str] = []
    #: Of a handler of its profiles: what each consumer is shown. Without any it reads everything.
    reads: dict[str, Reads] = {}
    #: What it asks of JetStream goes through the agent, which sends the answers to nobody else.
    asks: bool = False


class Void(msgspec.Struct, frozen=True, kw_only=True):
    """What was revoked: every token of this key that was issued until `at`."""

    name: str
    at: str


class Manifest(msgspec.Struct, kw_only=True):
    """`manifest.yaml`."""

    version: int = 1
    users: dict[str, User] = {}
    revoked: dict[str, Void] = {}


def encode(manifest: Manifest) -> bytes:
    """The file's content."""
    text = yaml.dump(msgspec.to_builtins(manifest), Dumper=_DUMPER, sort_keys=False)
    return (_HEAD + text).encode()


def decode(data: bytes) -> Manifest:
    """What `encode` was given; ValueError for what is no manifest."""
    try:
        found = yaml.load(data, Loader=_LOADER)  # noqa: S506 (a safe one)
        return msgspec.convert(found, Manifest)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from error


def told(manifest: Manifest, own: Collection[str]) -> Manifest:
    """What other nodes are told: all but this node's `own` users, in an order that says nothing."""
    users = {name: user for name, user in sorted(manifest.users.items()) if name not in own}
    return Manifest(users=users, revoked=dict(sorted(manifest.revoked.items())))


def merged(mine: Manifest, theirs: Manifest, own: Collection[str]) -> Manifest:
    """What this node has when it was told `theirs`: its `own` users stay its matter."""
    users = {name: user for name, user in theirs.users.items() if name not in own}
    users |= {name: user for name, user in mine.users.items() if name in own}
    return without_void(Manifest(users=users), mine.revoked | theirs.revoked)


def without_void(manifest: Manifest, revoked: Mapping[str, Void]) -> Manifest:
    """The manifest when these are void, too: nobody has what no server takes."""
    voids = {**manifest.revoked, **revoked}
    users = {
        name: msgspec.structs.replace(user, before=[key for key in user.before if key not in voids])
        for name, user in manifest.users.items()
        if user.key not in voids
    }
    return Manifest(users=users, revoked=voids)
