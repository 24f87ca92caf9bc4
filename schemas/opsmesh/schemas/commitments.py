"""What stands where a secret was: `[redacted:<rule>:<commitment>]`, and how it is opened.

The salt of a place is derived from the host's key and from where the place is, so that the same
event gives the same bytes each time it is redacted; the commitment is an HMAC of what was removed
under that salt. A salt opens its own place alone and says nothing of the key. Pure: the key is
handed in.
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import Any, Final, NamedTuple

import msgspec

#: Bytes of a commitment and of a salt: 128 bits, 22 characters.
SIZE: Final = 16
#: A mark, with a commitment or, made before there were any, without. `~n`: the (n+1)th of its text.
MARK: Final = re.compile(
    r"\[redacted:(?P<rule>[a-z0-9_.-]+)(?::(?P<commitment>[A-Za-z0-9_-]{22})(?:~(?P<n>\d{1,6}))?)?\]"
)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_encode = msgspec.json.Encoder().encode


class Place(NamedTuple):
    """Where something was removed: the event's id (or what stands for it), the JSON path of the
    text, and how many marks its text had before."""

    context: str
    path: str
    n: int = 0


def member(path: str, name: str) -> str:
    """The JSON path of an object's member: `$.a`, `$["a b"]`."""
    if _PLAIN_NAME.fullmatch(name):
        return f"{path}.{name}"
    return f"{path}[{_encode(name).decode()}]"


def mark(rule: str, removed: Any, place: Place, key: bytes | None) -> str:
    """What is put in place of `removed`."""
    if key is None:
        return f"[redacted:{rule}]"
    made = commitment(salt(key, place), removed)
    return f"[redacted:{rule}:{made}~{place.n}]" if place.n else f"[redacted:{rule}:{made}]"


def salt(key: bytes, place: Place) -> bytes:
    """The salt of one place, under the key of the host that redacted it."""
    parts = [place.context, place.path, place.n]
    return hmac.digest(key, _bytes(parts), "sha256")[:SIZE]


def commitment(salt: bytes, removed: Any) -> str:
    """HMAC-SHA256 under the salt, its first 16 bytes, as base64url without padding."""
    return text(hmac.digest(salt, _bytes(removed), "sha256")[:SIZE])


def opens(found: str, salt: bytes, original: Any) -> bool:
    """Whether `original` is what the commitment in a mark was made of."""
    return hmac.compare_digest(found, commitment(salt, original))


def text(data: bytes) -> str:
    """Bytes as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """The bytes again; ValueError when it is no base64url."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _bytes(value: Any) -> bytes:
    """A text as its UTF-8, anything else as compact JSON."""
    if not isinstance(value, str):
        return _encode(value)
    try:
        return value.encode(errors="surrogateescape")  # bytes that were no UTF-8 are themselves
    except UnicodeEncodeError:
        return value.encode(errors="surrogatepass")
