"""Merkle trees over lines, as in RFC 9162, section 2.1: a root for all, a short path for each.

A leaf is SHA-256 over 0x00 and the entry, a node SHA-256 over 0x01 and its two children, so that
neither can be taken for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

#: Leaves that are folded at once: a run of a power of two is a subtree of its own.
RUN = 1024


def leaf(entry: bytes) -> bytes:
    """The hash of an entry."""
    return sha256(b"\0" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return sha256(b"\1" + left + right).digest()


class Tree:
    """The root of leaves that come one after another; its memory is a run and their logarithm."""

    __slots__ = ("_run", "_runs", "_tops")

    def __init__(self) -> None:
        self._run: list[bytes] = []
        self._runs = 0
        #: roots of full subtrees, the largest first
        self._tops: list[bytes] = []

    def add(self, leaves: Sequence[bytes]) -> None:
        """Some more leaves; fastest when there are RUN at a time."""
        run = self._run
        run += leaves
        while len(run) >= RUN:
            top, count = root(run[:RUN]), self._runs
            del run[:RUN]
            while count & 1:
                top = node(self._tops.pop(), top)
                count >>= 1
            self._tops.append(top)
            self._runs += 1

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._runs * RUN + len(self._run)

    def root(self) -> bytes:
        """The root of all so far."""
        tops = [*self._tops, root(self._run)] if self._run or not self._tops else [*self._tops]
        top = tops.pop()
        while tops:
            top = node(tops.pop(), top)
        return top


def root(leaves: Sequence[bytes]) -> bytes:
    """The root of a whole tree."""
    if not leaves:
        return sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        # a last one without a partner goes up as it is, which is the tree of the RFC
        paired = [
            sha256(b"\1" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """What must be known beside the leaf at `index` to find the root, from the bottom up."""
    found = []
    level = list(leaves)
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):
            found.append(level[beside])
        level = [root(level[at : at + 2]) for at in range(0, len(level), 2)]
        index //= 2
    return found


def root_from(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root of a tree of `size` leaves that has the leaf at `index`; None when the path does not
    fit such a tree (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return None
    top, last = leaf, size - 1
    for beside in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            top = node(beside, top)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            top = node(top, beside)
        index >>= 1
        last >>= 1
    return top if last == 0 else None
