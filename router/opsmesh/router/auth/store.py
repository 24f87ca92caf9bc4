"""The trust of one broker: its keys, who was given what, and what its server has to be told.

    auth/keys.json       operator, accounts, signing keys: whoever has it is everybody (0600)
    auth/manifest.yaml   who has which role, for which host and topics, since when; what is void
    auth/own/ROLE.creds  those of this machine's own processes (0600)
    auth/own/host.pem    and their certificate, where the server speaks TLS (`ca`)

The one rule: what is issued stands in the manifest before anybody can use it. The server hears by a
reload (`access`) of a producer that was issued, and of whoever was revoked; of nobody else.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from opsmesh.router import files
from opsmesh.router.auth import creds, grants, jwt
from opsmesh.router.auth import manifest as manifests
from opsmesh.router.auth.manifest import Manifest, User, Void
from opsmesh.router.auth.permissions import MAX_TOKEN, Permissions
from opsmesh.router.auth.reads import ReadsByConsumer
from opsmesh.router.auth.tls import Tls
from opsmesh.router.errors import AuthError, BadFile
from opsmesh.router.roles import ROLES, Role, own_name
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token

if TYPE_CHECKING:
    from opsmesh.router.auth.ca import Authority

#: Names of users: one token of a subject, and of a file.
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,95}")
#: Signing keys that are still trusted: a new one, and the one before until all have moved.
SIGNING: Final = 2
#: Until when the tokens of a revoked key are void, in seconds since the epoch: no key is issued
#: twice. The server compares with the time in the token, which a clock that was ahead may have
#: written.
NEVER: Final = 2**53
#: Roles whose credentials, given to somebody else, lead to JetStream by way of the agent alone.
ASKING: Final = ("viewer", "sink")
#: What the mesh's account takes from the accounts of producers.
OFFERED: Final = ("evt.>", "dlq.ingest.>", "ingest.>")


class Keys(msgspec.Struct, kw_only=True):
    """`keys.json`: seeds, and the tokens that must stay as they are, byte for byte (the server
    refuses to reload an operator that is written anew)."""

    operator: str
    operator_token: str
    system: str
    system_token: str
    account: str
    signing: list[str]


class Store:
    """The `auth` folder of a state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def ca(self) -> Authority:
        """The certificates of TLS, where there are any."""
        from opsmesh.router.auth.ca import Authority  # 0.1 s that no process without TLS pays

        return Authority(self.folder / "ca")

    @property
    def server_certificate(self) -> Path:
        """There when the server speaks TLS."""
        return self.folder / "ca" / "server.pem"

    @property
    def own_certificate(self) -> Path:
        """The certificate that this machine's own processes show."""
        return self.folder / "own" / "host.pem"

    @property
    def own_tls(self) -> Tls | None:
        """How this machine's own processes connect; None to a server that speaks no TLS."""
        if not self.server_certificate.exists():
            return None
        return Tls(ca=self.folder / "ca" / "ca.pem", certificate=self.own_certificate)

    @property
    def exists(self) -> bool:
        """Whether there are keys."""
        return (self.folder / "keys.json").exists()

    def create(self) -> bool:
        """Make the keys, unless they are there; whether it did."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.locked():
            if self.exists:
                return False
            operator, system = jwt.new_key("operator"), jwt.new_key("account")
            token = jwt.operator(operator, name="opsmesh", system_account=system.public)
            self._write_keys(
                Keys(
                    operator=operator.seed,
                    operator_token=token,
                    system=system.seed,
                    system_token=jwt.account(operator, system.public, name="SYS", jetstream=False),
                    account=jwt.new_key("account").seed,
                    signing=[jwt.new_key("account").seed],
                )
            )
            return True

    @property
    def account(self) -> str:
        """The public key of the account of the mesh: its streams lie under this name."""
        return jwt.key_of(self.keys().account).public

    def keys(self) -> Keys:
        """AuthError when there are none."""
        path = self.folder / "keys.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Keys)
        except FileNotFoundError:
            raise self._keyless() from None
        except msgspec.DecodeError as error:
            raise BadFile(str(path), str(error)) from error

    def manifest(self) -> Manifest:
        """Who has what; an empty one before the first. BadFile when it cannot be read."""
        path = self.folder / "manifest.yaml"
        try:
            return manifests.decode(path.read_bytes())
        except FileNotFoundError:
            return Manifest()
        except ValueError as error:
            raise BadFile(str(path), str(error)) from error

    def own_file(self, role: Role) -> Path:
        """The credentials with which this machine's own processes of that role connect."""
        return self.folder / "own" / f"{role}.creds"

    def issue(
        self,
        name: str,
        *,
        role: str,
        host: str,
        topics: tuple[str, ...] = (),
        allowed: Permissions | None = None,
        expires_s: float | None = None,
        reads: ReadsByConsumer | None = None,
    ) -> str:
        """Credentials for a new user, or new ones for this user: what was issued before goes on to
        be valid until it is revoked. The file's text; it is not written here.

        `allowed` is for a role that is none of ROLES, `reads` for a handler that reads no more.
        """
        with self.locked():
            return self._issue(name, role, host, topics, allowed, expires_s, reads)

    def reissue(self, name: str, *, reads: ReadsByConsumer | None = None) -> str:
        """New credentials for a user, as it was issued (for as long, too), or with other `reads`;
        what it had stays valid (`finish`)."""
        with self.locked():
            user = _named(self.manifest(), name)
            allowed = None
            if user.publish or user.subscribe:
                allowed = Permissions(publish=tuple(user.publish), subscribe=tuple(user.subscribe))
            topics = tuple(user.topics)
            lasts = _lasts(user)
            return self._issue(
                name, user.role, user.host, topics, allowed, lasts, reads or user.reads
            )

    def signed_before(self) -> list[str]:
        """Users whose newest credentials are signed with another key than the newest."""
        newest = jwt.key_of(self.keys().signing[0]).public
        return [name for name, user in self.manifest().users.items() if user.signer != newest]

    def _issue(
        self,
        name: str,
        role: str,
        host: str,
        topics: tuple[str, ...],
        allowed: Permissions | None,
        expires_s: float | None,
        reads: ReadsByConsumer | None = None,
        *,
        own: bool = False,
    ) -> str:
        if not NAME.fullmatch(name):
            raise AuthError(
                f"{name!r} is no name of a user", hint="letters, digits, - and _; 96 at most"
            )
        keys, key = self.keys(), jwt.new_key("user")
        signer, account = jwt.key_of(keys.signing[0]), jwt.key_of(keys.account).public
        manifest = self.manifest()
        known = manifest.users.get(name)
        # the own ones stay on this machine, where they work without an agent
        asks = role in ASKING and not own
        apart = role == "producer"
        if apart:  # nobody needs its seed: the operator vouches for it, the signing key for users
            account = (known.account if known else "") or jwt.new_key("account").public
        expires = None if expires_s is None else int(time.time() + expires_s)

        def token_of(given: Permissions) -> str:
            return jwt.user(
                signer,
                key.public,
                name=name,
                account=account,
                publish=grants.lists(given.publish, given.not_publish),
                subscribe=grants.lists(given.subscribe, given.not_subscribe),
                expires=expires,
            )

        def with_reads(some: ReadsByConsumer | None) -> Permissions:
            return grants.of(role, user=name, host=host, topics=topics, reads=some, asks=asks)

        given = allowed or with_reads(reads)
        token = token_of(given)
        if len(token) > MAX_TOKEN and reads:
            raise grants.too_many(name, reads, lambda some: len(token_of(with_reads(some))))
        if len(token) > MAX_TOKEN:
            raise AuthError(
                f"the credentials of {name} would hold {len(topics)} topics, more than fit "
                f"({len(token)} bytes, the server takes {MAX_TOKEN})",
                hint="name fewer, with wildcards: shell.>",
            )
        manifest.users[name] = User(
            role=role,
            host=host_token(host),
            key=key.public,
            issued=times.format_us(times.now_us()),
            signer=signer.public,
            topics=list(topics),
            expires=None if expires is None else times.format_us(expires * 1_000_000),
            before=[known.key, *known.before] if known is not None else [],
            publish=list(given.publish) if allowed else [],
            subscribe=list(given.subscribe) if allowed else [],
            reads=dict(reads or {}),
            account=account if apart else "",
            asks=asks,
        )
        self._write_manifest(manifest)
        return creds.text(token, key, name=name)

    def own(self, host: str, *, anew: bool = False) -> None:
        """The credentials of this machine's own processes, one file for each role; those that are
        there, are this host's, and signed as they would be now, are left as they are unless all are
        wanted `anew`."""
        with self.locked():
            (self.folder / "own").mkdir(mode=0o700, exist_ok=True)
            known, signer = self.manifest().users, jwt.key_of(self.keys().signing[0]).public
            for role in ROLES:
                name, file = own_name(role, host), self.own_file(role)
                user = None if anew else known.get(name)
                if user is not None and user.signer == signer and _key_in(file) == user.key:
                    continue
                text = self._issue(name, role, host, (), None, None, own=True)
                files.write_private(file, text.encode())
        if self.server_certificate.exists() and (anew or not self.ca.signed(self.own_certificate)):
            files.write_private(self.own_certificate, self.ca.certificate(host))

    def revoke(self, name: str) -> User:
        """Make what this user was given void; the server has to be told (`access`, and a reload).
        AuthError when there is none of that name."""
        with self.locked():
            manifest = self.manifest()
            user = _named(manifest, name)
            del manifest.users[name]
            _void(manifest, name, user.key, *user.before)
            self._write_manifest(manifest)
            return user

    def finish(self, name: str) -> int:
        """Make every credential but the newest of this user void; how many that were. The server
        has to be told."""
        with self.locked():
            manifest = self.manifest()
            user = _named(manifest, name)
            if user.before:
                _void(manifest, name, *user.before)
                manifest.users[name] = msgspec.structs.replace(user, before=[])
                self._write_manifest(manifest)
            return len(user.before)

    def rotate_signing(self) -> None:
        """Sign with a new key from now on; the one before stays trusted, older ones do not."""
        with self.locked():
            keys = self.keys()
            keys.signing = [jwt.new_key("account").seed, *keys.signing][:SIGNING]
            self._write_keys(keys)

    def retire_signing(self) -> None:
        """Trust the newest signing key alone."""
        with self.locked():
            keys = self.keys()
            keys.signing = keys.signing[:1]
            self._write_keys(keys)

    def access(self) -> dict[str, Any]:
        """What the server's file says of who may connect."""
        keys = self.keys()
        operator, system = jwt.key_of(keys.operator), jwt.key_of(keys.system)
        revoked = dict.fromkeys(self.manifest().revoked, NEVER)
        ours, signing = self.account, tuple(jwt.key_of(seed).public for seed in keys.signing)
        account = jwt.account(
            operator, ours, name="MESH", signing_keys=signing, revoked=revoked, offers=OFFERED
        )
        apart = {
            user.account: jwt.account(
                operator,
                user.account,
                name=name,
                signing_keys=signing,
                revoked=revoked,
                jetstream=False,
                uses=dict.fromkeys(grants.to(name, user).publish, ours),
            )
            for name, user in self.manifest().users.items()
            if user.account
        }
        return {
            "operator": keys.operator_token,
            "system_account": system.public,
            "resolver": "MEMORY",
            "resolver_preload": {system.public: keys.system_token, ours: account, **apart},
        }

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time changes keys and manifest. AuthError where `create` never was."""
        try:
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise self._keyless() from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _keyless(self) -> AuthError:
        return AuthError(
            f"no keys in {self.folder}: this machine runs no broker of its own",
            hint="opsmesh auth init; or use the machine whose broker it is",
        )

    def _write_keys(self, keys: Keys) -> None:
        files.write_private(
            self.folder / "keys.json", json.dumps(msgspec.to_builtins(keys), indent=1).encode()
        )

    def _write_manifest(self, manifest: Manifest) -> None:
        files.write_private(self.folder / "manifest.yaml", manifests.encode(manifest))


def _named(manifest: Manifest, name: str) -> User:
    if name not in manifest.users:
        raise AuthError(f"no user {name!r}", hint="opsmesh auth ls")
    return manifest.users[name]


def _lasts(user: User) -> int | None:
    """For how many seconds its newest credentials were issued; None: until they are revoked."""
    if user.expires is None:
        return None
    # a token's end is cut to the second: without rounding up each rotation would take one away
    return math.ceil((times.parse_us(user.expires) - times.parse_us(user.issued)) / 1_000_000)


def _void(manifest: Manifest, name: str, *keys: str) -> None:
    now = times.format_us(times.now_us())
    manifest.revoked |= {key: Void(name=name, at=now) for key in keys}


def _key_in(file: Path) -> str:
    """Whose credentials the file holds; empty when there are none."""
    try:
        return creds.read(file).key
    except (OSError, BadFile):
        return ""
