"""`opsmesh hub cluster`: what a person types, and what is refused."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from opsmesh.cli.auth import commands as auth
from opsmesh.cli.hub import knowing
from opsmesh.cli.hub.cluster import app
from opsmesh.router import files, paths
from opsmesh.router.auth import manifest
from opsmesh.router.auth.ca import names
from opsmesh.router.auth.store import Store
from opsmesh.router.hub import cluster, node_file, nodes, plan, shared
from opsmesh.router.hub.cluster import Cluster, Node
from opsmesh.router.hub.nodes import Standing, Stands
from opsmesh.router.hub.replica import Facts, Number

NODES = ("--node", "a=127.0.0.1", "--node", "b=127.0.0.2", "--node", "c=127.0.0.3")
PLAN = Cluster(
    name="hub",
    own="a",
    keeper="a",
    nodes=[Node(name=name, address="127.0.0.1") for name in ("a", "b", "c")],
)
STANDING = Standing(
    nodes=[Stands(node=name, address="127.0.0.1", state="connected") for name in ("a", "b", "c")],
    leader="a",
)


@pytest.fixture(autouse=True)
def _host(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSMESH_HOST", "a")


def told(*argv: str, code: int = 0) -> str:
    """What the command says, on either side."""
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == code, done.output
    return done.output


def state() -> Path:
    """This machine's state folder."""
    return Path(paths.state_dir())


def test_the_first_node_has_a_file_for_each_other(tmp_path: Path) -> None:
    """After `init` this machine is a node and a hub whose hosts reach all three, and the others'
    files are theirs alone."""
    said = told("init", *NODES, "-o", str(tmp_path))
    own = cluster.read()
    assert own is not None
    assert own.own == own.keeper == "a"
    hub = plan.read()
    assert hub is not None
    assert hub.addresses == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert {"127.0.0.1", "127.0.0.2", "127.0.0.3"} <= set(names(state() / "auth/ca/server.pem"))
    for name in ("b", "c"):
        path = tmp_path / f"{name}.node"
        assert path.stat().st_mode & 0o777 == 0o600
        assert f"on {name}: opsmesh hub cluster join {name}.node" in said
        file = node_file.decode(path.read_bytes())
        assert file.cluster.own == name
        assert "auth/keys.json" in file.state
        assert not [one for one in file.state if one.startswith("auth/own")]


def test_a_node_never_uses_the_store_of_a_server_that_was_alone(tmp_path: Path) -> None:
    """nats-server removes streams that its cluster does not know: a node's are in another
    folder."""
    told("init", *NODES, "-o", str(tmp_path))
    config = json.loads((state() / "nats.conf").read_text().partition("\n")[2])
    assert config["jetstream"]["store_dir"] == str(state() / "jetstream-cluster")
    assert config["cluster"]["tls"]["verify"] is True
    assert config["tls"]["verify"] is True


def test_a_node_has_the_keys_of_the_first(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who joins has the keys of the one that made the cluster, keeps its own aside, and has them
    back when it leaves."""
    told("init", *NODES, "-o", str(tmp_path))
    keys = (state() / "auth/keys.json").read_bytes()
    monkeypatch.setenv("OPSMESH_HOST", "b")
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        (home / f"b-{variable}").mkdir()
        monkeypatch.setenv(variable, str(home / f"b-{variable}"))
    (state() / "auth").mkdir(parents=True)
    (state() / "auth/keys.json").write_bytes(b"its own")
    told("join", str(tmp_path / "b.node"))
    assert (state() / "auth/keys.json").read_bytes() == keys
    assert (state() / "auth/own/admin.creds").exists()
    told("leave")
    assert cluster.read() is None
    assert (state() / "auth/keys.json").read_bytes() == b"its own"


def test_joining_that_was_broken_off_costs_no_keys(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in its middle: done again, the machine's own keys still lie aside."""
    (state() / "auth").mkdir(parents=True)
    (state() / "auth/keys.json").write_bytes(b"its own")
    theirs = {"auth/keys.json": b"theirs", "auth/manifest.yaml": b"more"}

    write = files.write_private

    def full(path: Path, data: bytes) -> None:
        if path.name == "manifest.yaml":
            raise OSError(errno.ENOSPC, "of a test")
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_private", full)
        with pytest.raises(OSError, match="of a test"):
            shared.place(theirs, first=True, host="b")
    shared.place(theirs, first=True, host="b")
    assert (state() / "auth/keys.json").read_bytes() == b"theirs"
    shared.restore()
    assert (state() / "auth/keys.json").read_bytes() == b"its own"


def test_another_nodes_file_is_refused(tmp_path: Path) -> None:
    """A file that is another machine's changes nothing here."""
    told("init", *NODES, "-o", str(tmp_path))
    before = cluster.read()
    assert "the file is for the node 'b'" in told("join", str(tmp_path / "b.node"), code=1)
    assert cluster.read() == before


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (NODES[:4], "2 nodes: a cluster has 3"),
        ((*NODES[:4], "--node", "b=127.0.0.3"), "each with a name of its own"),
        ((*NODES[:4], "--node", "c"), "write NAME=ADDRESS"),
        ((*NODES[:4], "--node", "c=not an address"), "write NAME=ADDRESS"),
        (("--node", "d=127.0.0.4", *NODES[2:]), "is none of d, b, c"),
    ],
)
def test_what_is_no_cluster_is_refused(argv: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """A call that would make no cluster of three says why, and makes nothing."""
    assert says in told("init", *argv, "-o", str(tmp_path), code=2)
    assert cluster.read() is None


def test_ls_of_a_machine_that_is_none() -> None:
    """A machine that is no node says so, with exit code 3."""
    assert "no node of a cluster" in told("ls", code=3)


def test_ls_tells_that_the_own_server_is_down(tmp_path: Path) -> None:
    """A node whose server does not run says that, and nothing of the others."""
    told("init", *NODES, "-o", str(tmp_path))
    assert "does not answer" in told("ls", code=1)
    assert {one["state"] for one in json.loads(told("ls", "--json", code=1))["nodes"]} == {
        "unknown"
    }


def test_files_are_written_again_as_they_should_be_now(tmp_path: Path) -> None:
    """`files` gives the other nodes what is in force now, with the certificates that they have, and
    none of this node's own users."""
    told("init", *NODES, "-o", str(tmp_path))
    before = node_file.decode((tmp_path / "c.node").read_bytes())
    Store(state() / "auth").issue("desk-sink", role="sink", host="desk")
    told("files", "-o", str(tmp_path))
    after = node_file.decode((tmp_path / "c.node").read_bytes())
    assert after.files == before.files
    assert manifest.decode(after.state["auth/manifest.yaml"]).users.keys() == {"desk-sink"}


def test_credentials_are_issued_on_the_keeper_alone() -> None:
    """What another node would issue the keeper's next word would undo: it is refused there; what is
    revoked there counts, and it is said who has not heard of it."""
    cluster.write(msgspec.structs.replace(PLAN, own="a", keeper="b"), {})
    store = Store(state() / "auth")
    store.create()
    store.issue("desk-sink", role="sink", host="desk")
    for argv in (
        ("issue", "--role", "sink", "--host", "lab"),
        ("rotate", "desk-sink"),
        ("rotate", "--signing"),
        ("ca", "--renew"),
    ):
        done = CliRunner().invoke(auth.app, argv)
        assert done.exit_code == 2
        assert "credentials of cluster hub are issued on b" in done.output
    done = CliRunner().invoke(auth.app, ("revoke", "desk-sink"))
    assert done.exit_code == 0
    assert "b and c hear of it once the broker and the agent run here" in done.output
    assert store.manifest().users == {}


@pytest.mark.parametrize(("ago", "late"), [(10, []), (100, ["c"])])
def test_a_node_may_be_behind_for_a_minute(ago: float, late: list[str]) -> None:
    """A node that has not the latest is a problem for `status` when it had a minute for it."""
    now = round(time.time() * 1e6)

    def facts(node: str, number: int, at_us: int) -> Facts:
        counted = Number(number=number, at_us=at_us, digest="")
        return Facts(node=node, number=counted, voids=0, revoked="", at_us=at_us)

    new = round(now - ago * 1e6)
    found = [facts("a", 2, new), facts("b", 2, new), facts("c", 1, now - 10**10)]
    assert knowing.late(found) == late
    assert not nodes.knowing(STANDING, found).well
    assert nodes.knowing(STANDING, found[:2]).well


def test_a_node_refuses_a_restore(tmp_path: Path) -> None:
    """What three nodes hold together is not put back on one of them; it is told how it is done."""
    told("init", *NODES, "-o", str(tmp_path))
    argv = [sys.executable, "-m", "opsmesh.cli.entry", "restore", "--dry-run", str(tmp_path / "x")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 1
    assert "a node of cluster hub" in done.stderr
    assert "hub cluster adopt" in done.stderr
