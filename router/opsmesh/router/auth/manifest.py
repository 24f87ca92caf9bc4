"""Who was given what: `manifest.yaml` as data. `store` reads and writes it."""

from __future__ import annotations

import msgspec

from opsmesh.router.auth.reads import Reads


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
