"""What the nodes of a cluster share: which state is taken from another node, and which is not.

Folders of two nodes, without a server; what nodes say to each other is in `test_gossip.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from opsmesh.router.auth import creds
from opsmesh.router.auth.store import Store
from opsmesh.router.hub import gossip
from opsmesh.router.hub.replica import BadState, Replica, State, behind


class Two:
    """The keeper `a`, and the node `b`, which has joined with its file."""

    def __init__(self, folder: Path) -> None:
        self.a, self.b = Store(folder / "a"), Store(folder / "b")
        self.a.create()
        shutil.copytree(self.a.folder, self.b.folder)
        self.a.own("a")
        self.b.own("b")
        self.keeper = Replica(self.a, host="a", keeper=True)
        self.node = Replica(self.b, host="b", keeper=False)

    def told(self) -> State:
        """What the keeper has now."""
        self.keeper.facts()
        return self.keeper.state()

    def take(self, state: State) -> None:
        """The node takes it."""
        self.node.place(state)
        self.node.record(state.number)


@pytest.fixture
def two(tmp_path: Path) -> Two:
    """Both as they are at first."""
    return Two(tmp_path)


def users(store: Store) -> set[str]:
    """Who has credentials that are no node's own."""
    return {name for name in store.manifest().users if not name.startswith(("a-", "b-"))}


def test_a_node_takes_what_the_keeper_has(two: Two) -> None:
    """The users of the keeper are the node's too; the own ones of each are its own matter."""
    two.a.issue("desk-producer", role="producer", host="desk")
    own = two.b.manifest().users["b-admin"]
    two.take(two.told())
    assert two.b.manifest().users["desk-producer"] == two.a.manifest().users["desk-producer"]
    assert two.b.manifest().users["b-admin"] == own
    assert "a-admin" not in two.b.manifest().users
    assert two.node.facts().order == two.keeper.facts().order


def test_an_old_state_is_refused(two: Two) -> None:
    """Who has kept an old state cannot bring it back: what was revoked since stays so."""
    two.a.issue("desk-producer", role="producer", host="desk")
    old = two.told()
    two.a.revoke("desk-producer")
    two.take(two.told())
    with pytest.raises(BadState, match="no newer"):
        two.node.place(old)
    assert users(two.b) == set()


def test_another_clusters_state_is_refused(two: Two, tmp_path: Path) -> None:
    """A state with other keys than the cluster's changes nothing."""
    (tmp_path / "other").mkdir()
    strange = Two(tmp_path / "other")
    strange.a.issue("thief", role="admin", host="thief")
    before = (two.b.folder / "keys.json").read_bytes()
    for attempt in (two.node.place, two.node.revoke):
        with pytest.raises(BadState, match="another cluster"):
            attempt(strange.told())
    assert (two.b.folder / "keys.json").read_bytes() == before
    assert users(two.b) == set()


@pytest.mark.parametrize("bad", [b"", b"no zlib", "cut"])
def test_what_is_not_whole_is_refused(two: Two, bad: bytes | str) -> None:
    """A state that was cut on its way, or is something else, is none."""
    packed = gossip.pack(two.told())
    assert gossip.unpack(packed).number.number == 1
    with pytest.raises(BadState, match="not whole"):
        gossip.unpack(packed[:-3] if isinstance(bad, str) else bad)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "own/admin.creds", "number.json", "ca/.x"])
def test_a_state_that_writes_elsewhere_is_refused(two: Two, name: str) -> None:
    """Files that nodes do not share are not taken from one."""
    state = two.told()
    wider = msgspec.structs.replace(state, files={**state.files, name: b"x"})
    with pytest.raises(BadState, match="outside of what nodes share"):
        two.node.place(wider)


def test_what_is_revoked_on_a_node_is_revoked_for_all(two: Two) -> None:
    """A key that is void on one node stays void there when it takes a state that knows nothing of
    it, and is void for the keeper once that has heard of it."""
    two.a.issue("desk-producer", role="producer", host="desk")
    two.take(two.told())
    two.b.revoke("desk-producer")
    two.a.issue("lab-producer", role="producer", host="lab")
    two.take(two.told())
    assert users(two.b) == {"lab-producer"}
    assert two.keeper.revoke(two.node.state())
    assert users(two.a) == {"lab-producer"}
    assert two.a.manifest().revoked.keys() == two.b.manifest().revoked.keys()
    assert not two.keeper.revoke(two.node.state())


def test_who_has_not_all_is_behind(two: Two) -> None:
    """A node is behind while another one has a newer state, or has revoked what it has not; both
    are, when each has revoked another key."""
    for host in ("desk", "lab"):
        two.a.issue(f"{host}-sink", role="sink", host=host)
    two.keeper.facts()
    assert behind([two.keeper.facts(), two.node.facts()]) == ["b"]
    two.take(two.told())
    assert behind([two.keeper.facts(), two.node.facts()]) == []
    two.b.revoke("desk-sink")
    assert behind([two.keeper.facts(), two.node.facts()]) == ["a"]
    other = msgspec.structs.replace(two.node.facts(), node="c", revoked="of another key")
    assert behind([two.node.facts(), other]) == ["b", "c"]


def test_only_what_is_shared_is_counted(two: Two) -> None:
    """The keeper's number grows with each change of what nodes share, and by nothing else."""
    assert two.keeper.facts().number.number == 1
    two.a.own("a", anew=True)
    assert two.keeper.facts().number.number == 1
    two.a.issue("desk-sink", role="sink", host="desk")
    assert two.keeper.facts().number.number == 2
    assert Replica(two.a, host="a", keeper=True).facts() == two.keeper.facts()


def test_another_process_sees_what_was_taken(two: Two) -> None:
    """A state that changes nothing but its number, as the node knew all of it, is seen by whoever
    looks at the folder from outside."""
    two.a.issue("desk-sink", role="sink", host="desk")
    two.take(two.told())
    two.b.revoke("desk-sink")
    looking = Replica(two.b, host="b", keeper=False)
    before = looking.facts().number.number
    two.keeper.revoke(two.node.state())
    two.take(two.told())
    assert looking.facts().number.number == before + 1


def test_a_nodes_processes_are_signed_for_anew(two: Two) -> None:
    """When the keeper signs with another key, the node's own credentials are signed with it, so
    that nothing is cut off once the one before is not trusted any more."""
    before = creds.read(two.b.own_file("admin")).key
    two.a.rotate_signing()
    two.take(two.told())
    assert creds.read(two.b.own_file("admin")).key != before
    assert two.b.signed_before() == []


def test_a_nodes_certificate_is_of_the_newest_authority(two: Two) -> None:
    """When the keeper has made another authority, the node's own processes show a certificate of
    that one, so that they are let in once the one before is not trusted any more."""
    two.a.ca.create("a")
    two.a.ca.issue_server("hub", ["127.0.0.1"])
    two.take(two.told())
    assert two.b.ca.signed(two.b.own_certificate)
    before = two.b.own_certificate.read_bytes()
    two.a.ca.create("a")
    two.take(two.told())
    assert two.b.own_certificate.read_bytes() != before
    assert two.b.ca.signed(two.b.own_certificate)


def test_a_file_that_is_gone_at_the_keeper_goes(two: Two) -> None:
    """What the keeper does not have any more is removed on the node."""
    (two.a.folder / "ca").mkdir()
    (two.a.folder / "ca" / "ca.pem").write_bytes(b"an authority")
    two.take(two.told())
    assert (two.b.folder / "ca" / "ca.pem").read_bytes() == b"an authority"
    (two.a.folder / "ca" / "ca.pem").unlink()
    two.take(two.told())
    assert not (two.b.folder / "ca" / "ca.pem").exists()
