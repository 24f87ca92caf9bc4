"""Where secrets lie: systemd's credentials, private files, the desktop's keyring.

Each says None for a name that it does not have. What it has and must not use (a file that others
can read) is SecretMissing, with what to do: no other source is asked then, since a person meant it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from opsmesh.handlers.errors import ExtraMissing, SecretMissing
from opsmesh.handlers.secrets.reference import NAME
from opsmesh.router import paths

#: Bytes of a secret: a private key, and not a file that was named by mistake.
MAX_SIZE: Final = 64 * 1024
#: Seconds that a keyring has to answer: a locked one asks its user, who may be away.
KEYRING_S: Final = 5.0
#: The service that secrets have in a keyring.
SERVICE: Final = "opsmesh"


class Source(Protocol):
    """One place."""

    kind: str

    def find(self, name: str) -> str | None:
        """The secret, or None."""

    def names(self) -> list[str]:
        """Those that it has, as far as it tells."""

    def where(self, name: str) -> str:
        """What a person has to look at."""


class Files:
    """A file for each, in `<config>/secrets`, for its owner alone (0600).

    A symbolic link is refused: whoever may write where it points to would choose the secret, and
    its mode is not that of what is read.
    """

    kind = "file"

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(paths.config_dir(), "secrets")

    def find(self, name: str) -> str | None:
        with self._opened() as folder:
            return None if folder is None else _read(folder, name, self.where(name), own=True)

    def names(self) -> list[str]:
        with self._opened() as folder:
            return _listed(folder)

    def where(self, name: str) -> str:
        return str(self.folder / name)

    def write(self, name: str, value: str) -> None:
        """Keep a secret, in place of the one of before; durable when this returns."""
        paths.private_dir(str(self.folder))
        with self._opened() as folder:
            assert folder is not None  # noqa: S101 (made above)
            temporary = f".{name}.{os.getpid()}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(value.encode())
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def remove(self, name: str) -> bool:
        """Whether there was one."""
        with self._opened() as folder:
            if folder is None:
                return False
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                return False
            return True

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        """The folder, once it is known that nobody else can put files into it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.folder, flags)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            reason = f"{self.folder} is no folder of its own ({error.strerror})"
            raise SecretMissing("", reason) from error
        try:
            facts = os.fstat(descriptor)
            if facts.st_uid not in (os.geteuid(), 0):
                raise SecretMissing("", f"{self.folder} belongs to another user")
            if facts.st_mode & 0o022:
                raise SecretMissing("", f"others may write to {self.folder}: chmod 700 it")
            yield descriptor
        finally:
            os.close(descriptor)


class Credentials:
    """What systemd handed to the service (`LoadCredential=`, `SetCredentialEncrypted=`)."""

    kind = "credentials"

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._env = env

    def find(self, name: str) -> str | None:
        with self._opened() as folder:
            return None if folder is None else _read(folder, name, self.where(name), own=False)

    def names(self) -> list[str]:
        with self._opened() as folder:
            return _listed(folder)

    def where(self, name: str) -> str:
        folder = self._env.get("CREDENTIALS_DIRECTORY", "")
        return f"{folder}/{name}" if folder else "no $CREDENTIALS_DIRECTORY"

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        folder = self._env.get("CREDENTIALS_DIRECTORY", "")
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class Keyring:
    """The desktop's keyring, by the `keyring` package: service `opsmesh`, the name as user."""

    kind = "keyring"

    def __init__(self, load: Callable[[], Any] | None = None) -> None:
        self._load = load or (lambda: _keyring())

    def find(self, name: str) -> str | None:
        try:
            found = _in_time(lambda: self._load().get_password(SERVICE, name))
        except ExtraMissing:
            return None
        except TimeoutError:
            raise SecretMissing(name, f"the keyring gave no answer in {KEYRING_S:g} s") from None
        except Exception as error:  # noqa: BLE001, RUF100 (each backend has errors of its own)
            if type(error).__name__ == "NoKeyringError":
                return None
            raise SecretMissing(name, f"the keyring: {type(error).__name__}") from None
        return None if found is None else str(found)

    def names(self) -> list[str]:
        """None: keyrings do not list."""
        return []

    def where(self, name: str) -> str:
        try:
            backend = type(self._load().get_keyring()).__module__
        except ExtraMissing:
            return "the extra keyring is not installed"
        return "no keyring is here" if backend.endswith(".fail") else f"keyring {SERVICE} {name}"

    def write(self, name: str, value: str) -> None:
        """Keep a secret, in place of the one of before."""
        _in_time(lambda: self._load().set_password(SERVICE, name, value))

    def remove(self, name: str) -> bool:
        """Whether there was one."""
        if self.find(name) is None:
            return False
        _in_time(lambda: self._load().delete_password(SERVICE, name))
        return True


def _keyring() -> Any:
    try:
        import keyring
    except ImportError as error:
        raise ExtraMissing("keyring", str(error)) from error
    return keyring


def _in_time(call: Callable[[], Any]) -> Any:
    """What a call gives that may wait for a person; TimeoutError when it waits too long."""
    answer: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            answer.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_S)
    if failed:
        raise failed[0]
    if not answer:
        raise TimeoutError
    return answer[0]


def _listed(folder: int | None) -> list[str]:
    if folder is None:
        return []
    return sorted(name for name in os.listdir(folder) if NAME.fullmatch(name))  # noqa: PTH208


def _read(folder: int, name: str, where: str, *, own: bool) -> str | None:
    # O_NONBLOCK: opening a named pipe would wait for its other end
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise SecretMissing(name, f"{where} {why}; put the secret itself there") from error
    try:
        if wrong := _unfit(os.fstat(descriptor), own=own):
            raise SecretMissing(name, f"{where} {wrong}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_SIZE + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_SIZE:
        raise SecretMissing(name, f"{where} has more than {MAX_SIZE} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SecretMissing(name, f"{where} is not UTF-8") from None


def _unfit(facts: os.stat_result, *, own: bool) -> str:
    """Why a file cannot hold a secret; "" when it can. systemd's own are root's, and read by an
    ACL, which shows in the group's bits: it vouches for them, and only the rest of the world is
    looked at."""
    mode = stat.S_IMODE(facts.st_mode)
    if not stat.S_ISREG(facts.st_mode):
        return "is no regular file"
    if not own:
        return f"can be read by everybody ({mode:04o})" if mode & 0o007 else ""
    if facts.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    return f"can be read by others ({mode:04o}): chmod 600 it" if mode & 0o077 else ""
