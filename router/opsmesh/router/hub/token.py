"""A join token: everything that a host needs to join a hub, as one line of text.

It is a secret, made at the hub for one host. The one rule: `decode` tells a token that was cut,
mistyped or is something else from a good one, before anything is changed by it.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Final

import msgspec

from opsmesh.router.errors import RouterError
from opsmesh.router.joined import Hub

#: How a token begins; the number is that of its form.
PREFIX: Final = "opsmesh-join-1:"
#: Bytes of a token at most, and of what it unfolds to: it holds a few certificates and keys.
MAX_TOKEN: Final = 256 * 1024
MAX_CONTENT: Final = 1024 * 1024


class BadToken(RouterError):
    """A text that is no token, or not a whole one."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is no join token: {reason}", hint="at the hub: opsmesh hub token")


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`files` is what goes into `joined/` beside `hub.json`, by its name there."""

    hub: Hub
    files: dict[str, bytes] = {}


def encode(token: Token) -> str:
    """The token as one line."""
    content = msgspec.json.encode(token)
    packed = zlib.crc32(content).to_bytes(4, "big") + zlib.compress(content, 9)
    return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode(text: str) -> Token:
    """What `encode` was given; BadToken for any other text. Line breaks and spaces do not count."""
    text = "".join(text.split())
    if not text.startswith(PREFIX):
        raise BadToken(f"it does not begin with {PREFIX}")
    if len(text) > MAX_TOKEN:
        raise BadToken(f"it has {len(text)} characters, the limit is {MAX_TOKEN}")
    body = text.removeprefix(PREFIX)
    try:
        packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        unfolding = zlib.decompressobj()
        content = unfolding.decompress(packed[4:], MAX_CONTENT)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise BadToken("it is not whole") from error
    if not unfolding.eof or zlib.crc32(content) != int.from_bytes(packed[:4], "big"):
        raise BadToken("it is not whole")
    try:
        token = msgspec.json.decode(content, type=Token)
    except msgspec.DecodeError as error:  # of a later opsmesh
        raise BadToken(f"this opsmesh does not understand it: {error}") from error
    if bad := [name for name in token.files if "/" in name or name.startswith(".")]:
        raise BadToken(f"it would write outside its folder: {bad[0]}")
    return token
