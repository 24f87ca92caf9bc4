"""The one place where rules, settings and the host's key become a Redactor.

Agent, handlers and sink make theirs here, so that what one of them takes out the others leave, and
all commitments of a host open under its one key.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from opsmesh.router import paths
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Redact, Settings
from opsmesh.schemas.exact import Known
from opsmesh.schemas.redact import FieldRule, Redactor, ValueRule

#: Bytes of the key, from which every salt is derived.
KEY_SIZE: Final = 32


def load(settings: Settings, *, known: Known | None = None) -> Redactor:
    """The rules of this installation with this host's key, made when it is missing."""
    return redactor(settings.redact, key=key(key_file()), known=known)


def of_logs(settings: Settings, *, known: Known | None = None) -> Redactor:
    """The same rules without the key: a log line is no evidence, and opens nothing."""
    return redactor(settings.redact, known=known)


def redactor(section: Redact, *, key: bytes | None = None, known: Known | None = None) -> Redactor:
    """The built-in rules and those of the section."""
    fields = [_field_rule(name) for name in section.fields]
    values = [
        ValueRule(name, re.compile(value.pattern), tuple(h.lower() for h in value.hints))
        for name, value in section.values.items()
    ]
    return Redactor(
        [*fields, *values],
        key=key,
        allow=[re.compile(pattern) for pattern in section.allow],
        cards=section.cards,
        emails=section.emails,
        known=known,
    )


def key_file() -> Path:
    """Where the key lies: whoever reads it can try what a removed text may have been."""
    return Path(paths.state_dir(), "redaction.key")


def key(file: Path) -> bytes:
    """The key in a file, made (0600) when there is none. RouterError when it is no key: a new one
    would not open what is in the archive, so none is made in silence."""
    try:
        found = file.read_bytes()
    except FileNotFoundError:
        _make(file)
        found = file.read_bytes()
    with contextlib.suppress(ValueError):
        if len(made := bytes.fromhex(found.decode())) == KEY_SIZE:
            return made
    raise RouterError(
        f"{file} holds no key of {KEY_SIZE} bytes in hexadecimal digits",
        hint="restore it from a backup, or move it away: commitments made with it then stay closed",
    )


def existing_key() -> bytes:
    """This host's key; RouterError when nothing was ever redacted here: a new one opens nothing."""
    if not key_file().exists():
        raise RouterError(
            f"there is no key at {key_file()}", hint="run it on the host that redacted the event"
        )
    return key(key_file())


def _make(file: Path) -> None:
    """Whole or not there, and the first one wins: agent, handlers and sink start together."""
    paths.private_dir(str(file.parent))
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_hex(KEY_SIZE) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink()
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _field_rule(name: str) -> FieldRule:
    words = name.split("_")
    hints = tuple({separator.join(words) for separator in ("_", "-", " ", "")})
    return FieldRule(name, re.compile(rf"(?:^|_){'_?'.join(words)}$"), hints, numbers=True)
