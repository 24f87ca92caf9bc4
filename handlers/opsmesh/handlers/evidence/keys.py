"""The signing key of this machine's archives, outside of them, and what was last sealed with it.

    <state>/keys/evidence.key   the private key (0600)
    <state>/keys/evidence.pub   the public key, to give away
    <state>/keys/pins.json      for each archive: its id and its newest seal

The one rule: a key is made for an archive that has none, or by `rotate`; never because it is gone.
Everything that writes here holds the archive's seal lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from opsmesh.handlers.errors import SealError
from opsmesh.handlers.evidence import disk, ed25519, keychain, seals, segments
from opsmesh.handlers.evidence.keychain import Entry, Statement
from opsmesh.schemas import ids, times

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE: Final = "evidence.key"
PUBLIC: Final = "evidence.pub"
#: A new key until the archive names it: a rotation that a crash interrupted is finished or undone.
NEXT: Final = "evidence.key.next"
PINS: Final = "pins.json"
#: Held by whoever seals or changes keys.
LOCK: Final = ".seal.lock"
#: What a person types who knows that the key, or the archive, is gone for good.
ACCEPT: Final = "opsmesh evidence key rotate --accept-loss"


class Signer(msgspec.Struct, frozen=True):
    """The key to sign with now, and the statements about it and those before."""

    entries: tuple[Entry, ...]
    private: Ed25519PrivateKey

    @property
    def archive(self) -> str:
        """The archive's id."""
        return self.entries[-1].statement.archive

    @property
    def key(self) -> str:
        """The key's fingerprint."""
        return self.entries[-1].statement.key


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine remembers of an archive: it must never have less, or another."""

    archive: str
    segment: int = 0
    seal: str = ""


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the seal lock of an archive; gives False at once when another has it and `wait` is
    off."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "rb+", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def public(keys: Path) -> bytes | None:
    """The public key of this machine, 32 bytes; None before there is one."""
    for name in (PRIVATE, PUBLIC):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return _read(keys / name)
    return None


def signer(folder: Path, keys: Path) -> Signer:
    """The key to seal this archive with, made if the archive is new; SealError when it is gone."""
    entries = _chain(folder)
    _finish_rotation(keys, entries)
    pem = _private(keys)
    if not entries:
        if segments.sealed(folder):
            raise SealError(
                f"{folder / keychain.NAME} is gone, and the seals beside it name its keys: "
                "restore it from a copy"
            )
        known = pinned(folder, keys)
        if known is not None and known.segment:
            raise SealError(
                f"{folder} held archive {known.archive} with sealed segments up to number "
                f"{known.segment}, and none of it is there; restore it from a copy, or begin a "
                f"new one: {ACCEPT}"
            )
        if pem is None:
            pem = _make(keys)
        entries = _begin(folder, pem)
    last = entries[-1].statement
    if pem is None or _fingerprint(pem) != last.key:
        found = "is gone" if pem is None else f"is another one ({_fingerprint(pem)[:16]}…)"
        raise SealError(
            f"the key {last.key[:16]}… that seals {folder} {found}; restore {keys / PRIVATE}, or "
            f"begin with a new one that the old one does not vouch for: {ACCEPT}"
        )
    if not (keys / PUBLIC).exists() or _fingerprint((keys / PUBLIC).read_bytes()) != last.key:
        _export(keys, pem)
    return Signer(tuple(entries), ed25519.private(pem))


def rotate(folder: Path, keys: Path, *, lost: bool = False) -> Entry:
    """A new key, which the old one vouches for unless that is `lost`; the new statement. A folder
    whose archive is lost altogether begins a new one.

    Interrupted at any moment, it has happened or not by the next call of `signer` or `rotate`.
    """
    old: Ed25519PrivateKey | None = None
    entries: Sequence[Entry] = _chain(folder)
    _finish_rotation(keys, entries)
    if lost and not entries and not segments.sealed(folder):
        _forget(folder, keys)
        return signer(folder, keys).entries[-1]
    if lost:
        pem = _private(keys)
        if pem is not None and entries and _fingerprint(pem) == entries[-1].statement.key:
            raise SealError("nothing is lost: the key is there; leave --accept-loss away")
        if not entries:
            raise SealError(f"{folder / keychain.NAME} is gone: restore it from a copy")
    else:
        current = signer(folder, keys)
        entries, old = current.entries, current.private
    last = entries[-1].statement
    sealed = segments.sealed(folder)
    newest = seals.newest(folder)
    private = ed25519.generate()
    disk.replace(keys / NEXT, private)
    public_key = ed25519.public_of(private)
    statement = Statement(
        format=keychain.FORMAT,
        archive=last.archive,
        number=last.number + 1,
        key=ed25519.fingerprint(public_key),
        public=ed25519.text(public_key),
        from_segment=max(last.from_segment, sealed[-1].number + 1 if sealed else 1),
        after=newest.hash if newest is not None else keychain.NONE,
        previous=entries[-1].hash,
        made_at=times.format_us(times.now_us()),
    )
    made = _write(folder, entries, statement, private, old)
    _finish_rotation(keys, made)
    return made[-1]


def pinned(folder: Path, keys: Path) -> Pin | None:
    """What is remembered of the archive in this folder."""
    return _pins(keys).get(str(folder.resolve()))


def pin(folder: Path, keys: Path, what: Pin) -> None:
    """Remember it from now on."""
    pins = _pins(keys)
    pins[str(folder.resolve())] = what
    _write_pins(keys, pins)


def _forget(folder: Path, keys: Path) -> None:
    pins = _pins(keys)
    if pins.pop(str(folder.resolve()), None) is not None:
        _write_pins(keys, pins)


def _write_pins(keys: Path, pins: dict[str, Pin]) -> None:
    disk.replace(keys / PINS, msgspec.json.format(msgspec.json.encode(pins)) + b"\n")


def _pins(keys: Path) -> dict[str, Pin]:
    try:
        return msgspec.json.decode((keys / PINS).read_bytes(), type=dict[str, Pin])
    except FileNotFoundError:
        return {}
    except (ValueError, msgspec.DecodeError) as error:
        raise SealError(f"{keys / PINS} cannot be read: {error}; restore it from a copy") from error


def _chain(folder: Path) -> list[Entry]:
    try:
        return keychain.read(folder)
    except keychain.BrokenChain as error:
        raise SealError(
            f"{folder / keychain.NAME}:{error.line}: {error.reason}; restore it from a copy"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return ed25519.public_of(path.read_bytes())
    except ed25519.KeyFileError as error:
        raise SealError(f"{path}: {error}; restore it from a copy") from error


def _private(keys: Path) -> bytes | None:
    """The PEM of the private key; None when there is none."""
    path = keys / PRIVATE
    try:
        pem = path.read_bytes()
        ed25519.private(pem)
    except FileNotFoundError:
        return None
    except ed25519.KeyFileError as error:
        raise SealError(f"{path}: {error}; restore it from a copy") from error
    return pem


def _fingerprint(pem: bytes) -> str:
    return ed25519.fingerprint(ed25519.public_of(pem))


def _make(keys: Path) -> bytes:
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = ed25519.generate()
    disk.replace(keys / PRIVATE, pem)
    _export(keys, pem)
    return pem


def _export(keys: Path, pem: bytes) -> None:
    disk.replace(keys / PUBLIC, ed25519.pem(ed25519.public_of(pem)).encode(), mode=0o644)


def _begin(folder: Path, pem: bytes) -> list[Entry]:
    """The first statement of an archive, with its id."""
    public_key = ed25519.public_of(pem)
    statement = Statement(
        format=keychain.FORMAT,
        archive=ids.uuid7(),
        number=1,
        key=ed25519.fingerprint(public_key),
        public=ed25519.text(public_key),
        from_segment=1,
        after=keychain.NONE,
        previous=keychain.NONE,
        made_at=times.format_us(times.now_us()),
    )
    return _write(folder, (), statement, pem, None)


def _write(
    folder: Path,
    entries: Sequence[Entry],
    statement: Statement,
    own: bytes,
    old: Ed25519PrivateKey | None,
) -> list[Entry]:
    """Add a statement to the archive's chain; the whole chain."""
    signed = keychain.to_sign(statement)
    raw = keychain.line(
        statement,
        ed25519.sign(ed25519.private(own), signed),
        b"" if old is None else ed25519.sign(old, signed),
    )
    raws = [*(entry.raw for entry in entries), raw]
    made = keychain.check(raws)
    disk.replace(folder / keychain.NAME, b"".join(raws))
    return made


def _finish_rotation(keys: Path, entries: Sequence[Entry]) -> None:
    """Put the new key into its place if the archive names it already, or forget it."""
    new = keys / NEXT
    try:
        pem = new.read_bytes()
    except FileNotFoundError:
        return
    if entries and _fingerprint(pem) == entries[-1].statement.key:
        new.replace(keys / PRIVATE)
        disk.sync_folder(keys)
        _export(keys, pem)
    else:
        disk.remove(new)
