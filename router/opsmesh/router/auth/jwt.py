"""Keys and JSON Web Tokens of NATS' decentralised authentication (ADR-14, jwt v2).

An operator signs accounts, an account (or a signing key of it) signs users; the server knows the
operator and is given the accounts, so that a user that was issued is known without a word to it.
Tokens are `base64url(header).base64url(claims).base64url(Ed25519 signature)`, without padding; keys
are NKeys: a letter for what they are, base32, and a checksum.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import nkeys

Kind = Literal["operator", "account", "user"]

_PREFIX: Final = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
#: Limits of an account: none. What a stream may take is the stream's own setting.
_NO_LIMITS: Final = {
    "subs": -1,
    "data": -1,
    "payload": -1,
    "imports": -1,
    "exports": -1,
    "wildcards": True,
    "conn": -1,
    "leaf": -1,
}
_JETSTREAM: Final = {
    "mem_storage": -1,
    "disk_storage": -1,
    "streams": -1,
    "consumer": -1,
    "max_ack_pending": -1,
}


@dataclass(frozen=True)
class Key:
    """A key pair: its public name (`UABC…`) and its seed (`SUABC…`), which is the secret."""

    public: str
    seed: str

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature."""
        signature: bytes = nkeys.from_seed(self.seed.encode()).sign(data)
        return signature


def new_key(kind: Kind) -> Key:
    """A pair that nobody else has."""
    return key_of(nkeys.encode_seed(os.urandom(32), _PREFIX[kind]).decode())


def key_of(seed: str) -> Key:
    """The pair of a seed; ValueError when it is none."""
    try:
        return Key(nkeys.from_seed(seed.strip().encode()).public_key.decode(), seed.strip())
    except (nkeys.NkeysError, ValueError, IndexError) as error:
        raise ValueError("not the seed of an NKey") from error


def operator(key: Key, *, name: str, system_account: str) -> str:
    """The operator's token, signed by itself."""
    return _token(key, key.public, name, {"type": "operator", "system_account": system_account})


def account(
    signer: Key,
    public: str,
    *,
    name: str,
    signing_keys: tuple[str, ...] = (),
    revoked: dict[str, int] | None = None,
    jetstream: bool = True,
    offers: Iterable[str] = (),
    uses: Mapping[str, str] | None = None,
) -> str:
    """An account's token. Users that one of `signing_keys` signed belong to it; `revoked` names
    public keys of users, and until when what was issued to them is void (in seconds since the
    epoch). It `offers` subjects as services to every account, and `uses` those of others: account
    by subject."""
    limits: dict[str, Any] = {**_NO_LIMITS, **(_JETSTREAM if jetstream else {})}
    claims: dict[str, Any] = {"type": "account", "limits": limits}
    if signing_keys:
        claims["signing_keys"] = list(signing_keys)
    if revoked:
        claims["revocations"] = revoked
    if offers:
        claims["exports"] = [
            {"name": subject, "subject": subject, "type": "service"} for subject in offers
        ]
    if uses:
        claims["imports"] = [
            {"name": subject, "subject": subject, "account": whose, "type": "service"}
            for subject, whose in uses.items()
        ]
    return _token(signer, public, name, claims)


def user(
    signer: Key,
    public: str,
    *,
    name: str,
    account: str,
    publish: dict[str, list[str]],
    subscribe: dict[str, list[str]],
    expires: int | None = None,
) -> str:
    """A user's token: what it may publish and subscribe to (`allow`, `deny`)."""
    claims = {
        "type": "user",
        "issuer_account": account,
        "pub": publish,
        "sub": subscribe,
        "subs": -1,
        "data": -1,
        "payload": -1,
    }
    return _token(signer, public, name, claims, expires=expires)


def read(token: str) -> dict[str, Any]:
    """The claims of a token, unchecked: the server is who checks. ValueError when it is none."""
    try:
        body = token.strip().split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError) as error:
        raise ValueError("not a JSON Web Token") from error
    return claims


def _token(
    signer: Key, subject: str, name: str, nats: dict[str, Any], *, expires: int | None = None
) -> str:
    claims: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": signer.public,
        "name": name,
        "nats": {**nats, "version": 2},
        "sub": subject,
    }
    if expires is not None:
        claims["exp"] = expires
    digest = hashlib.new("sha512_256", _compact(claims)).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_encoded(_compact(_HEADER))}.{_encoded(_compact(claims))}"
    return f"{signed}.{_encoded(signer.sign(signed.encode()))}"


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
