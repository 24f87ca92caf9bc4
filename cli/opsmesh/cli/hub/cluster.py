"""`opsmesh hub cluster`: a hub of three machines, of which one may be lost."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from nats.errors import Error as NatsError

from opsmesh.cli import addresses, again, output
from opsmesh.cli.again import Restart
from opsmesh.cli.hub import knowing
from opsmesh.router import files, joined, paths, server, topology
from opsmesh.router.auth.ca import SOON, expires
from opsmesh.router.auth.store import Store
from opsmesh.router.hub import (
    adopting,
    cluster,
    node_certificates,
    node_file,
    nodes,
    plan,
    shared,
    trust,
)
from opsmesh.router.hub.cluster import LEAF_PORT, PORT, ROUTE_PORT, SIZE, Cluster, Node
from opsmesh.router.hub.node_file import NodeFile
from opsmesh.router.hub.server import STORE
from opsmesh.router.settings import Settings
from opsmesh.router.snapshot import SnapshotFailed
from opsmesh.schemas.envelope import host_token

app = typer.Typer(help="A hub of three machines: one may be lost.", no_args_is_help=True)

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
#: What `own_broker` says of nodes.
_NODE: Final = ("a node", "make a cluster of your own servers (docs/cluster.md)")


@dataclass(frozen=True)
class _Told:
    name: str
    address: str


@app.command("init")
def init(
    node: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=ADDRESS",
            help="A node: its host's name in the mesh, and where the others reach it. Three times.",
        ),
    ],
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "hub",
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="What this server binds; all unless given.")
    ] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="For hosts and clients.")] = PORT,
    leaf_port: Annotated[
        int, typer.Option(min=1, max=65535, help="For the servers of leaf hosts.")
    ] = LEAF_PORT,
    route_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Between the nodes.")
    ] = ROUTE_PORT,
    to: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")
    ] = Path(),
    restart: Restart = True,
) -> None:
    """Make this machine the first of three nodes, and a file for each of the other two.

    The files are secrets (0600): bring each to its machine, join there, and keep it safe, for a
    machine that is lost is replaced with it. What the broker here holds stays where it is, and is
    brought into the cluster once that runs: opsmesh hub cluster adopt.

    Example: opsmesh hub cluster init --node a=10.0.0.1 --node b=10.0.0.2 --node c=10.0.0.3
    """
    settings = Settings()
    told = _nodes(node, settings.host)
    own_broker(settings, *_NODE)
    if not to.is_dir():
        output.fail(f"{to} is no folder", code=output.USAGE)
    made = Cluster(
        name=name,
        own=settings.host,
        keeper=settings.host,
        nodes=[
            Node(
                name=one.name,
                address=one.address,
                port=port,
                leaf_port=leaf_port,
                route_port=route_port,
            )
            for one in told
        ],
        listen=listen,
    )
    ca, own = node_certificates.make(name, {one.name: one.address for one in told})
    held = _held(settings)
    others = {f"{other.name}.pem": own[other.name] for other in made.others}
    if held:  # the agents wait for it, in the place of making streams anew
        known = topology.known_file().read_bytes()
        files.write_private(Path(paths.state_dir(), cluster.KNOWN), known)
    cluster.write(made, {cluster.CA: ca, cluster.OWN: own[made.own], **others})
    _keep_hosts(made)
    _secure(made)
    server.prepare_own(settings)
    print(f"{settings.host} is a node of cluster {name}")
    _write_files(made, to)
    print(f"ports: {port} for hosts, {leaf_port} for leaf hosts, {route_port} between the nodes")
    _tell_held(held)
    again.restart(restart)
    print("streams are made once all three run; how it stands: opsmesh hub cluster ls")


@app.command("join")
def join(
    where: Annotated[str, typer.Argument(metavar="FILE|-", help="This node's file, or - for it.")],
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="What this server binds; all unless given.")
    ] = "",
    restart: Restart = True,
) -> None:
    """Make this machine the node that the file is for.

    A machine that takes the place of a lost one gets everything from the other two.

    Examples: opsmesh hub cluster join b.node
              ssh a cat b.node | opsmesh hub cluster join -
    """
    file = node_file.decode(_bytes(where))
    settings, made = Settings(), file.cluster
    if host_token(settings.host) != host_token(made.own):
        output.fail(
            f"the file is for the node {made.own!r}, and this host is called {settings.host!r}",
            hint=f"join there; or here, in config.yaml: host: {made.own}",
        )
    own_broker(settings, *_NODE)
    if plan.read() is not None:
        output.fail(
            "this machine is a hub of its own, with hosts that would lose it",
            hint=f"make the cluster here (opsmesh hub cluster init), or remove {plan.path()}",
        )
    held, before = _held(settings), cluster.read()
    shared.place(file.state, first=before is None, host=settings.host)
    listen = listen or (before.listen if before else "")
    cluster.write(msgspec.structs.replace(made, listen=listen), file.files)
    if before is not None:
        Store(Path(paths.state_dir(), shared.KEYS)).own(settings.host)
    if before is not None and before.nodes == made.nodes and _reload():
        print(f"{settings.host}: the server has read what was new, and goes on")
        return
    server.prepare_own(settings)
    print(f"{settings.host} is a node of cluster {made.name}")
    if held:
        print(f"what its own broker held stays in {paths.state_dir()}/jetstream")
    again.restart(restart)
    print("how it stands: opsmesh hub cluster ls")


@app.command("files")
def files_(
    to: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")
    ] = Path(),
) -> None:
    """Write the files of the other two nodes again, as they should be now.

    For a machine that takes the place of a lost one. Nodes that run tell each other by themselves
    whom they let in; joining there again starts nothing anew.

    Example: opsmesh hub cluster files -o ~/nodes
    """
    own = _own()
    if own.own != own.keeper:
        output.fail(f"cluster {own.name} is kept on {own.keeper}", hint="there", code=output.USAGE)
    if not to.is_dir():
        output.fail(f"{to} is no folder", code=output.USAGE)
    _write_files(own, to)


def _write_files(made: Cluster, to: Path) -> None:
    at = cluster.folder()
    for other in made.others:
        file = NodeFile(
            cluster=msgspec.structs.replace(made.of(other.name), listen=""),
            files={
                cluster.CA: (at / cluster.CA).read_bytes(),
                cluster.OWN: (at / f"{other.name}.pem").read_bytes(),
            },
            state=shared.collect(made),
        )
        path = to / f"{other.name}.node"
        files.write_private(path, node_file.encode(file))
        print(f"wrote {path}; on {other.name}: opsmesh hub cluster join {path.name}")


@app.command("ls")
def ls(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """The nodes as this one sees them. Exit code: 0 when all is well, else 1.

    LEADS is how many streams and buckets a node leads; while one of them has no leader nothing can
    be stored in it, and events wait in the spool. KNOWS is whether a node has the latest of whom
    the cluster lets in (hosts, credentials, keys), as its agent says.

    Example: opsmesh hub cluster ls
    """
    own = _own()
    broker = server.known(Path(paths.state_dir()))
    standing = nodes.look(own, broker.monitor_url if broker else "http://127.0.0.1:0")
    if not standing.error:
        standing = nodes.knowing(standing, knowing.facts(own))
    ends = expires(cluster.folder() / cluster.OWN)
    if as_json:
        more: dict[str, Any] = {"cluster": own.name, "certificate_ends": ends.isoformat()}
        output.as_json({**more, **msgspec.to_builtins(standing)})
    else:
        rows = [msgspec.to_builtins(one) for one in standing.nodes]
        output.table(rows, ("node", "address", "state", "leads", "knows"), empty="no node")
        for line in _said(standing):
            print(line)
        if (ends - datetime.now(UTC)).days < SOON:
            print(f"the nodes' certificates end on {ends:%Y-%m-%d}: opsmesh hub cluster init")
    raise typer.Exit(0 if standing.well else output.FAILED)


@app.command("adopt")
def adopt() -> None:
    """Bring in what this machine's broker held before it became a node, with every sequence.

    Once all three nodes run, and before anything new is stored: events wait for it in spools. The
    old store is not changed, and can be removed when all is well.

    Example: opsmesh hub cluster adopt
    """
    _own()
    if not Path(paths.state_dir(), STORE).is_dir():
        output.fail("this machine's broker held nothing before", code=output.NOT_FOUND)

    def say(stream: str, count: int) -> None:
        output.note(f"{stream}: {count} messages")

    try:
        total = asyncio.run(adopting.adopt(Settings(), say))
    except (SnapshotFailed, NatsError, TimeoutError) as error:
        hint = "opsmesh hub cluster ls; then the same again"
        output.fail(f"not brought in: {error or type(error).__name__}", hint=hint)
    print(f"brought in: {total} messages; opsmesh status")


@app.command("leave")
def leave(restart: Restart = True) -> None:
    """Be a node no more: this machine's own broker serves again, with what it held before.

    What the cluster holds stays with the other two, and in this machine's state folder.

    Example: opsmesh hub cluster leave
    """
    own = _own()
    shared.restore()  # first: until it is done the same command can be given again
    cluster.remove()
    Path(paths.state_dir(), cluster.KNOWN).unlink(missing_ok=True)
    print(f"{own.own} is no node of {own.name} any more; its copy stays in {cluster.STORE}")
    again.restart(restart)


def _reload() -> bool:
    """Have the server that runs read its files again; False when none runs."""
    broker = server.known(Path(paths.state_dir()))
    return broker is not None and server.reload(broker)


def _nodes(told: list[str], host: str) -> list[_Told]:
    found = []
    for one in told:
        name, equals, address = one.partition("=")
        if not equals or not _NAME.fullmatch(name) or not addresses.is_address(address):
            output.fail(f"--node {one}: write NAME=ADDRESS, as b=10.0.0.2", code=output.USAGE)
        found.append(_Told(name, address))
    if len(found) != SIZE or len({host_token(one.name) for one in found}) != SIZE:
        output.fail(
            f"{len(found)} nodes: a cluster has {SIZE}, each with a name of its own",
            hint="one machine may be lost of three; of two none may",
            code=output.USAGE,
        )
    if host not in [one.name for one in found]:
        names = ", ".join(one.name for one in found)
        output.fail(
            f"this host is called {host!r}, and is none of {names}",
            hint="run it on one of them; or name this one, in config.yaml: host: NAME",
            code=output.USAGE,
        )
    return found


def own_broker(settings: Settings, what: str, otherwise: str) -> None:
    """Fails unless this machine runs a broker of its own, which alone can become `what`."""
    if settings.nats.url:
        output.fail(
            f"nats.url names a server of your own; {what} is the server that opsmesh runs itself",
            hint=f"remove nats.url, or {otherwise}",
        )
    if (member := joined.read()) is not None:
        output.fail(
            f"this machine has joined {member.hub.hub_host} as a {member.hub.kind} host",
            hint="opsmesh leave",
        )


def _keep_hosts(made: Cluster) -> None:
    """The hosts that the hub has let in until now, or none; they reach every node from now on."""
    own, known = made.node, plan.read()
    plan.write(
        plan.Plan(
            host=made.own,
            addresses=[node.address for node in [own, *made.others]],
            listen=made.binds,
            port=own.port,
            leaf_port=own.leaf_port,
            hosts=known.hosts if known else {},
        )
    )


def _secure(made: Cluster) -> None:
    """TLS towards hosts and clients: one certificate that is good for every node."""
    store = Store(Path(paths.state_dir(), shared.KEYS))
    reached = [*(node.address for node in made.nodes), *(node.name for node in made.nodes)]
    trust.certify(store, made.own, [*reached, *([made.listen] if made.listen else ())])


def _held(settings: Settings) -> int:
    """How many events this machine's own broker has ever stored; 0 for one that is a node."""
    if cluster.read() is not None:
        return 0
    return topology.Known(topology.known_file()).last_seq(topology.EVENTS)


def _tell_held(held: int) -> None:
    if held:
        print(
            f"the broker that was here has stored {held} events. They stay in "
            f"{paths.state_dir()}/jetstream, and are brought in once all three run: opsmesh hub "
            "cluster adopt. Until then nothing new is stored, and events wait in spools"
        )


def _bytes(where: str) -> bytes:
    if where == "-":
        return sys.stdin.buffer.read(node_file.MAX + 1)
    try:
        return Path(where).read_bytes()
    except OSError as error:
        output.fail(f"{where} cannot be read: {error.strerror}", code=output.NOT_FOUND)


def _own() -> Cluster:
    if (own := cluster.read()) is None:
        output.fail(
            "this machine is no node of a cluster",
            hint="opsmesh hub cluster init, on the first of three",
            code=output.NOT_FOUND,
        )
    return own


def _said(standing: nodes.Standing) -> list[str]:
    if standing.error:
        return [f"the server of this node does not answer: {standing.error}; opsmesh up --detach"]
    away = [one.node for one in standing.nodes if one.state == "away"]
    lines = [f"{name} is away: what is stored now has fewer copies" for name in away]
    lines += [
        f"{one.node} does not know the latest of whom the cluster lets in; {knowing.FIX}"
        for one in standing.nodes
        if one.knows == "behind"
    ]
    if not standing.leader:
        lines.append("no node leads: nothing can be stored until two of three are connected")
    elif standing.leaderless:
        lines.append(f"without a leader just now: {', '.join(standing.leaderless)}")
    return lines
