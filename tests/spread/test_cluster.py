"""A hub of three machines in network namespaces, with all that `opsmesh up` starts on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.router.agent_process import until
from tests.spread.machines import Machine, Machines, arrived, machines

pytestmark = pytest.mark.slow

NODES = ("a", "b", "c")
THIN = ("--kind", "thin")
EACH = 1500
FIRES_EVERY = 20

PROFILE = """\
version: 1
profiles:
  effect:
    on: [load.test]
    where: event.payload.n % {every} == 0
    run_on: any
    concurrency: {{mode: parallel, limit: 4}}
    retry: {{attempts: 5, initial: 100ms, max: 1s}}
    actions:
      - id: append
        command: [sh, -c, 'echo "$0" >> {path}', "${{{{ event.id }}}}"]
"""


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machines]:
    """Three machines that a person has made a cluster: one command on each side, and `up`. More of
    them are on the network where a test asks for them, and nothing runs there."""
    more: tuple[str, ...] = getattr(request, "param", ())
    with machines(tmp_path, *NODES, *more) as mesh:
        become_nodes(mesh, tmp_path)
        for name in NODES:
            until(lambda one=mesh[name]: well(one), timeout=60)  # type: ignore[misc]
        yield mesh


def become_nodes(mesh: Machines, folder: Path) -> None:
    """One command on each side, and `up`."""
    first, *others = (mesh[name] for name in NODES)
    told = [f"{one.name}={one.address}" for one in (first, *others)]
    options = [word for one in told for word in ("--node", one)]
    first.opsmesh("hub", "cluster", "init", *options, "-o", str(folder))
    for one in others:
        one.opsmesh("hub", "cluster", "join", str(folder / f"{one.name}.node"))
    for one in (first, *others):
        one.profiles(PROFILE.format(every=FIRES_EVERY, path=folder / "effects"))
    with ThreadPoolExecutor() as at_once:  # the first of them waits for the second
        list(at_once.map(lambda one: one.opsmesh("up", "--detach", codes=(0, 1)), (first, *others)))
    for one in (first, *others):
        until(lambda one=one: together(one), timeout=60)  # type: ignore[misc]


def together(one: Machine) -> bool:
    """Whether this node is connected with the two others, and somebody leads."""
    found = one.json("hub", "cluster", "ls", codes=(0, 1))
    return bool(found["leader"]) and states(found) == {"here": 1, "connected": 2}


def well(one: Machine) -> bool:
    """Whether this node finds all of them there, each thing with a leader, and streams made."""
    found = one.json("hub", "cluster", "ls", codes=(0, 1))
    leads = sum(node["leads"] for node in found["nodes"])
    return bool(leads and found["leader"] and not found["leaderless"]) and states(found) == {
        "here": 1,
        "connected": 2,
    }


def states(found: dict[str, list[dict[str, str]]]) -> dict[str, int]:
    """How many nodes are in each state."""
    return dict(Counter(node["state"] for node in found["nodes"]))


def leader(mesh: Machines, stream: str) -> Machine:
    """The node that leads a stream."""
    found = mesh["a"].ask(f"STREAM.INFO.{stream}")
    assert found["config"]["num_replicas"] == 3
    return mesh[found["cluster"]["leader"]]


def test_a_node_is_cut_off_under_load(nodes: Machines, tmp_path: Path) -> None:
    """The cable of the node that leads EVENTS is pulled while every node emits: the two others go
    on, what the lone one takes waits there, and when it is back every event is stored once and each
    firing was acted on as often as the ledger says, which is once unless a step was cut off."""
    lone = leader(nodes, "EVENTS")
    others = [one for one in nodes.values() if one is not lone]
    loads = [one.emit(0, EACH) for one in nodes.values()]
    arrived(others[0], "evt.*.load.test", EACH // 2)
    nodes.net.cut(lone.name)
    loads.append(lone.emit(EACH, 2 * EACH))  # however fast the first were
    found = others[0].json("hub", "cluster", "ls", codes=(0, 1))
    assert [load.wait(180) for load in loads] == [0, 0, 0, 0]
    for one in others:
        arrived(others[0], f"evt.{one.name}.load.test", EACH)
    until(lambda: states(others[1].json("hub", "cluster", "ls", codes=(0, 1))).get("away") == 1)
    assert others[0].count(f"evt.{lone.name}.load.test") < 2 * EACH
    nodes.net.heal(lone.name)
    arrived(others[0], f"evt.{lone.name}.load.test", 2 * EACH)
    until(lambda: well(lone), timeout=60)
    stored = [event for _, event in lone.events("evt.*.load.test")]
    assert len(stored) == 4 * EACH == len({event["id"] for event in stored})
    fired = {event["id"] for event in stored if event["payload"]["n"] % FIRES_EVERY == 0}
    until(lambda: ended(others[0]).keys() == fired, timeout=120)
    attempts = ended(others[0])
    effects = Counter((tmp_path / "effects").read_text().split())
    assert effects.keys() == fired
    assert all(count <= attempts[event] for event, count in effects.items())
    assert found["cluster"] == "hub"


@pytest.mark.parametrize("nodes", [("thin", "leaf")], indirect=True)
def test_hosts_go_on_at_another_node(nodes: Machines) -> None:
    """A thin host and a leaf that have joined the cluster are heard while each of its nodes is away
    in turn: every event is there once, in its host's order."""
    hosts = (nodes["thin"], nodes["leaf"])
    for host in hosts:
        made = nodes["a"].opsmesh("hub", "token", "--host", host.name, "--kind", host.name)
        host.opsmesh("join", "-", given=made)
        host.up()
    for n, name in enumerate(NODES):
        away = nodes[name]
        away.opsmesh("down")
        loads = [host.emit(n * 200, (n + 1) * 200) for host in hosts]
        assert [load.wait(120) for load in loads] == [0, 0]
        left = next(nodes[other] for other in NODES if other != name)
        for host in hosts:
            arrived(left, f"evt.{host.name}.load.test", (n + 1) * 200)
        away.up()
        until(lambda away=away: well(away), timeout=60)  # type: ignore[misc]
    for host in hosts:
        stored = nodes["b"].events(f"evt.{host.name}.load.test")
        assert [event["payload"]["n"] for _, event in stored] == list(range(3 * 200))


@pytest.mark.parametrize("nodes", [("thin",)], indirect=True)
def test_a_host_is_let_in_by_a_keeper_that_dies(nodes: Machines) -> None:
    """A thin host whose token the keeper made is heard at the two other nodes when the keeper is
    killed, with no further command on any of them."""
    thin = nodes["thin"]
    thin.opsmesh("join", "-", given=nodes["a"].opsmesh("hub", "token", "--host", "thin", *THIN))
    nodes["a"].crash()
    thin.up()
    assert thin.emit(0, 200).wait(120) == 0
    arrived(nodes["b"], "evt.thin.load.test", 200)


def test_what_is_revoked_on_one_node_is_void_on_all(nodes: Machines, tmp_path: Path) -> None:
    """Credentials that the keeper has issued are taken by all nodes, and by none once one node has
    revoked them: the keeper, or another one while the keeper is dead."""
    issued = {name: issue(nodes, name, tmp_path) for name in ("one", "two")}
    for name in NODES:
        for file in issued.values():
            until(lambda name=name, file=file: nodes[name].lets_in(file))  # type: ignore[misc]
    nodes["a"].opsmesh("auth", "revoke", "one")
    assert [nodes[name].lets_in(issued["one"]) for name in NODES] == [False] * 3
    nodes["a"].crash()
    nodes["b"].opsmesh("auth", "revoke", "two")
    assert [nodes[name].lets_in(issued["two"]) for name in ("b", "c")] == [False] * 2
    nodes["a"].up()
    until(lambda: not nodes["a"].lets_in(issued["two"]))


def test_a_node_that_was_down_hears_of_it(nodes: Machines, tmp_path: Path) -> None:
    """What was revoked while a node was down is void there after its start, though the keeper is
    dead by then."""
    file = issue(nodes, "one", tmp_path)
    until(lambda: nodes["c"].lets_in(file))
    nodes["c"].opsmesh("down")
    nodes["a"].opsmesh("auth", "revoke", "one")
    nodes["a"].crash()
    nodes["c"].up()
    until(lambda: not nodes["c"].lets_in(file))
    found = nodes["c"].json("hub", "cluster", "ls", codes=(1,))
    assert [one["knows"] for one in found["nodes"]] == ["unknown", "latest", "latest"]


def test_keys_are_exchanged_on_the_keeper_alone(nodes: Machines) -> None:
    """Another signing key and another authority, until the ones before are trusted by nobody: the
    processes of all three nodes go on, with no command on the other two."""
    first = nodes["a"]
    for argv in (
        ("rotate", "--signing"),
        ("rotate", "--signing", "--finish"),
        ("ca", "--new"),
        ("ca", "--renew"),
        ("ca", "--retire"),
    ):
        first.opsmesh("auth", *argv)
        until(lambda: knows(first) == ["latest"] * 3)
    for n, one in enumerate(nodes.values()):
        one.kill("agent")  # connects anew, with what there is now
        assert one.emit(n * 20, (n + 1) * 20).wait(60) == 0
        arrived(first, f"evt.{one.name}.load.test", 20)
        until(lambda one=one: one.json("status", codes=(0, 1))["verdict"] == "ok")  # type: ignore[misc]


def knows(one: Machine) -> list[str]:
    """Which nodes have the latest, as this one hears it."""
    found = one.json("hub", "cluster", "ls", codes=(0, 1))
    return [node["knows"] for node in found["nodes"]]


def issue(nodes: Machines, name: str, folder: Path) -> Path:
    """A producer's credentials, as the keeper issues them."""
    file = folder / f"{name}.creds"
    options = ("--role", "producer", "--host", "desk", "--name", name, "-o", str(file))
    nodes["a"].opsmesh("auth", "issue", *options)
    return file


def test_what_a_hub_of_one_held_is_brought_in(tmp_path: Path) -> None:
    """A machine with a past becomes a node: nothing is stored until its past is brought in, and
    then every event is there under its own number, and the next one follows."""
    with machines(tmp_path, *NODES) as mesh:
        first = mesh["a"]
        first.profiles(PROFILE.format(every=FIRES_EVERY, path=tmp_path / "effects"))
        first.up()
        first.emit(0, 200).wait(60)
        before = first.ask("STREAM.INFO.EVENTS")["state"]
        first.opsmesh("down")
        become_nodes(mesh, tmp_path)
        until(lambda: "stream.vanished" in mesh["b"].log("agent"), timeout=30)
        assert mesh["c"].count() == -1
        first.opsmesh("hub", "cluster", "adopt")
        first.emit(200, 220).wait(60)
        arrived(mesh["b"], "evt.a.load.test", 220)
        after = mesh["c"].ask("STREAM.INFO.EVENTS")
        assert after["config"]["num_replicas"] == 3
        assert after["state"]["first_ts"] == before["first_ts"]
        stored = [event["payload"]["n"] for _, event in mesh["b"].events("evt.a.load.test")]
        assert stored == list(range(220))
        first.opsmesh("hub", "cluster", "adopt", codes=(1,))


def ended(one: Machine) -> dict[str, int]:
    """How many attempts each run took that has succeeded, by its event."""
    runs = one.json("run", "ls", "--limit", "1000")
    return {run["event_id"]: run["attempt"] for run in runs if run["state"] == "succeeded"}


def test_a_machine_that_is_lost_is_replaced(nodes: Machines) -> None:
    """A node whose disk is gone gets everything from the two others, and tells so."""
    nodes["a"].emit(0, 200).wait(60)
    arrived(nodes["a"], "evt.a.load.test", 200)
    lost = nodes["c"]
    lost.opsmesh("down")
    store = lost.folder / "state/opsmesh/jetstream-cluster"
    store.rename(store.with_name("gone"))
    assert states(nodes["a"].json("hub", "cluster", "ls", codes=(1,))).get("away") == 1
    lost.up()
    until(lambda: well(lost), timeout=60)

    def current() -> bool:
        cluster = nodes["a"].ask("STREAM.INFO.EVENTS")["cluster"]
        return all(one.get("current") for one in cluster["replicas"])

    until(current, timeout=60)
    assert lost.count("evt.a.load.test") == 200
