"""Merkle trees, against the definition of RFC 9162 written out."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest

from opsmesh.handlers.evidence import merkle


def defined(entries: Sequence[bytes]) -> bytes:
    """Section 2.1.1, word for word."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return merkle.leaf(entries[0])
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return merkle.node(defined(entries[:split]), defined(entries[split:]))


ENTRIES = [bytes([n]) * (n % 3) for n in range(40)]


@pytest.mark.parametrize("size", range(40))
def test_roots_and_paths_are_those_of_the_rfc(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every size the root is the RFC's, given at once or in pieces, and each leaf's path leads
    to it, from that place alone."""
    monkeypatch.setattr(merkle, "RUN", 4)
    leaves = [merkle.leaf(entry) for entry in ENTRIES[:size]]
    root = defined(ENTRIES[:size])
    assert merkle.root(leaves) == root
    tree = merkle.Tree()
    for at in range(0, size, 3):
        tree.add(leaves[at : at + 3])
    assert (tree.root(), tree.size) == (root, size)
    for index, leaf in enumerate(leaves):
        path = merkle.path(leaves, index)
        for place in range(size):
            found = merkle.root_from(leaf, place, size, path)
            assert (found == root) == (place == index)


def test_path_of_another_length_leads_nowhere() -> None:
    """A path that is cut, or longer than the tree is high, gives no root."""
    leaves = [merkle.leaf(entry) for entry in ENTRIES]
    path = merkle.path(leaves, 7)
    root = merkle.root(leaves)
    assert merkle.root_from(leaves[7], 7, 40, path) == root
    assert merkle.root_from(leaves[7], 7, 40, path[:-1]) != root
    assert merkle.root_from(leaves[7], 7, 40, [*path, root]) is None
    assert merkle.root_from(leaves[7], 40, 40, path) is None


def test_a_node_cannot_be_taken_for_a_leaf() -> None:
    """The two children of a node, given as an entry, have another hash than the node."""
    left, right = merkle.leaf(b"a"), merkle.leaf(b"b")
    assert merkle.leaf(left + right) != merkle.node(left, right)
