"""Ed25519 signatures (RFC 8032), and how a public key is named.

The one rule: `cryptography` is imported inside the functions alone, so that the sink, which imports
modules beside this one, never carries it.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Bytes of a public key and of a signature.
PUBLIC_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
#: What stands before the 32 bytes in a key's DER (RFC 8410).
_DER: Final = bytes.fromhex("302a300506032b6570032100")


class KeyFileError(ValueError):
    """A file is no Ed25519 key in PEM."""


def generate() -> bytes:
    """A new private key, as PEM (PKCS 8, not encrypted)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def private(pem: bytes) -> Ed25519PrivateKey:
    """The private key in a PEM; KeyFileError when there is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        found = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"no private key in PEM: {error}") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise KeyFileError("a private key, but not of Ed25519")
    return found


def public_of(pem: bytes) -> bytes:
    """The public key, 32 bytes, in a PEM of a public or private key; or KeyFileError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if b"PRIVATE KEY" in pem:
        return private(pem).public_key().public_bytes_raw()
    try:
        found = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"no public key in PEM: {error}") from error
    if not isinstance(found, Ed25519PublicKey):
        raise KeyFileError("a public key, but not of Ed25519")
    return found.public_bytes_raw()


def sign(key: Ed25519PrivateKey, data: bytes) -> bytes:
    """The signature, 64 bytes; the same key and data always give the same."""
    return key.sign(data)


def fits(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the signature is the key's over the data."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """SHA-256 over the key's DER, as `openssl pkey -pubin -outform der | sha256sum` has it."""
    return hashlib.sha256(_DER + public).hexdigest()


def text(public: bytes) -> str:
    """The 32 bytes as base64, as a statement holds them."""
    return base64.b64encode(public).decode()


def pem(public: bytes) -> str:
    """The public key as PEM."""
    text = base64.b64encode(_DER + public).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
