"""A node's copy of what the nodes of a cluster share: keys, certificates, and whom they let in.

    auth/number.json   which state it is: the keeper counts on when it has changed something

The one rule: a copy gives way to a newer one alone, and what is revoked on any node is revoked on
all for ever. So nobody brings an old state back.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from opsmesh.router import files, paths
from opsmesh.router.auth import manifest
from opsmesh.router.auth.manifest import Void
from opsmesh.router.auth.store import Keys, Store
from opsmesh.router.errors import RouterError
from opsmesh.router.roles import own_names
from opsmesh.schemas import times

#: In the `auth` folder: which state it holds, and what of it is this node's alone.
NUMBER, KEYS, MANIFEST, OWN = "number.json", "keys.json", "manifest.yaml", "own"


class BadState(RouterError):
    """What another node has sent, and cannot be taken: nothing was changed."""


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """A state of the keeper's: how many there were before, since when, and what it holds."""

    number: int = 0
    at_us: int = 0
    digest: str = ""

    @property
    def order(self) -> tuple[int, int]:
        """Which of two is newer. A keeper that was put back to an old state may count anew."""
        return self.number, self.at_us


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, by the paths in the `auth` folder."""

    number: Number
    files: dict[str, bytes]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has: the number of its state, how many keys are void there, their digest, and
    when the last of all this came to be (microseconds)."""

    node: str
    number: Number
    voids: int
    revoked: str
    at_us: int

    @property
    def order(self) -> tuple[int, int, int]:
        """Which of two nodes knows more."""
        return *self.number.order, self.voids


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What the folder holds beside its number."""

    digest: str = ""
    voids: int = 0
    revoked: str = ""
    revoked_us: int = 0


def behind(found: Sequence[Facts]) -> list[str]:
    """The nodes that have not all that another one has."""
    newest = max(found, key=lambda one: one.order)
    ahead = {one.revoked for one in found if one.order == newest.order}
    # each of two nodes has revoked another key: neither has all
    return [one.node for one in found if one.order < newest.order or len(ahead) > 1]


class Replica:
    """The `auth` folder of `host` as one node's; the keeper's alone counts."""

    def __init__(self, store: Store, *, host: str, keeper: bool) -> None:
        self._store, self._host, self._keeper = store, host, keeper
        self._own = own_names(host)
        self._seen: object = None
        self._held = _Held()

    def facts(self) -> Facts:
        """What this node has now; cheap while nothing has changed."""
        with self._store.locked():
            if (seen := self._stat()) != self._seen:
                self._held, self._seen = self._look(), seen
            number = self._number()
            if self._keeper and number.digest != self._held.digest:
                now = times.now_us()
                number = Number(number=number.number + 1, at_us=now, digest=self._held.digest)
                self.record(number)
        return Facts(
            node=self._host,
            number=number,
            voids=self._held.voids,
            revoked=self._held.revoked,
            at_us=max(number.at_us, self._held.revoked_us),
        )

    def state(self) -> State:
        """All that this node has."""
        with self._store.locked():
            told = manifest.encode(manifest.told(self._store.manifest(), self._own))
            return State(number=self._number(), files={**self._others(), MANIFEST: told})

    def place(self, state: State) -> None:
        """Put a newer state on the disk, beside what is this node's alone. BadState for any other.

        It counts as taken when its number was written (`record`), once the server has read it.
        """
        if state.number.order <= self._number().order:
            raise BadState(f"state {state.number.number} is no newer than what is here")
        theirs = self._checked(state)
        with self._store.locked():
            merged = manifest.merged(self._store.manifest(), theirs, self._own)
            wanted = {**state.files, MANIFEST: manifest.encode(merged)}
            for name in self._names() - wanted.keys():
                (self._store.folder / name).unlink(missing_ok=True)
            for name, data in wanted.items():
                path = self._store.folder / name
                if not path.exists() or path.read_bytes() != data:
                    paths.private_dir(str(path.parent))
                    files.write_private(path, data)
        self._store.own(self._host)  # signed with the keys that are there now

    def record(self, number: Number) -> None:
        """This is what the node has."""
        files.write_private(self._store.folder / NUMBER, msgspec.json.encode(number))

    def revoke(self, state: State) -> bool:
        """Make void what is void in another node's state, whichever is newer; whether there was
        anything."""
        theirs = self._checked(state).revoked
        with self._store.locked():
            mine = self._store.manifest()
            if theirs.keys() <= mine.revoked.keys():
                return False
            void = manifest.without_void(mine, theirs)
            files.write_private(self._store.folder / MANIFEST, manifest.encode(void))
            return True

    def _look(self) -> _Held:
        told = manifest.told(self._store.manifest(), self._own)
        return _Held(
            digest=_digest([sorted(self._others().items()), told]),
            voids=len(told.revoked),
            revoked=_digest(list(told.revoked)),
            revoked_us=max((_at(one) for one in told.revoked.values()), default=0),
        )

    def _number(self) -> Number:
        try:
            return msgspec.json.decode((self._store.folder / NUMBER).read_bytes(), type=Number)
        except (FileNotFoundError, msgspec.DecodeError):
            return Number()

    def _checked(self, state: State) -> manifest.Manifest:
        """The manifest of a state that is whole, and of this cluster."""
        if bad := [name for name in state.files if _foreign(name)]:
            raise BadState(f"it would write outside of what nodes share: {bad[0]}")
        try:
            keys = msgspec.json.decode(state.files[KEYS], type=Keys)
            theirs = manifest.decode(state.files[MANIFEST])
        except (KeyError, ValueError) as error:
            raise BadState(f"it is not whole: {error}") from error
        if keys.operator != self._store.keys().operator:
            raise BadState("it is another cluster's")
        return theirs

    def _others(self) -> dict[str, bytes]:
        """The files beside the manifest."""
        names = self._names() - {MANIFEST}
        return {name: (self._store.folder / name).read_bytes() for name in names}

    def _names(self) -> set[str]:
        folder = self._store.folder
        names = (str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
        return {name for name in names if not _foreign(name)}

    def _stat(self) -> list[tuple[str, int, int, int]]:
        found = []
        for name in sorted(self._names()):
            with contextlib.suppress(FileNotFoundError):
                stat = (self._store.folder / name).stat()
                found.append((name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return found


def _foreign(name: str) -> bool:
    """Whether a path is none of a file that nodes share: a node's own, or one being written."""
    parts = name.split("/")
    return parts[0] in (OWN, NUMBER) or any(not part or part.startswith(".") for part in parts)


def _digest(what: object) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(what)).hexdigest()


def _at(void: Void) -> int:
    try:
        return times.parse_us(void.at)
    except ValueError:
        return 0
