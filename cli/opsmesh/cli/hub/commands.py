"""`opsmesh hub`: make this machine a hub, and say which hosts it has."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from opsmesh.cli import addresses, again, output
from opsmesh.cli.again import Restart
from opsmesh.cli.hub import cluster as hub_cluster
from opsmesh.cli.hub import knowing
from opsmesh.cli.session import with_client
from opsmesh.router import files, joined, paths, running, server
from opsmesh.router.auth.store import Store
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.hub import cluster, plan, sourcing, token, trust
from opsmesh.router.hub.plan import LEAF_PORT, PORT, Member, Plan
from opsmesh.router.joined import Kind
from opsmesh.router.roles import ROLES, Role
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token
from opsmesh.schemas.nearest import did_you_mean

app = typer.Typer(help="The hub of many hosts: make one, let hosts in.", no_args_is_help=True)
app.add_typer(hub_cluster.app, name="cluster")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]

#: An address of TEST-NET-1 (RFC 5737): asked for the way to it, nothing is sent.
_ELSEWHERE = ("192.0.2.1", 9)


@app.command("init")
def init(
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            metavar="NAME",
            help="Under what hosts reach this machine, a name or an address; repeatable.",
        ),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="What the server binds; all unless given."),
    ] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(min=1, max=65535, help="For clients.")] = PORT,
    leaf_port: Annotated[
        int, typer.Option(min=1, max=65535, help="For the servers of leaf hosts.")
    ] = LEAF_PORT,
    restart: Restart = True,
) -> None:
    """Make this machine a hub: other hosts can then join it. What is stored here stays.

    Again with other options it changes them; hosts must then join anew if an address is gone.

    Example: opsmesh hub init --address hub.example.org
    """
    addresses.require(
        address or (), hint="as hub.example.org or 192.0.2.7; ports by --port and --leaf-port"
    )
    settings = Settings()
    hub_cluster.own_broker(settings, "a hub", "make leaf nodes in that server's own configuration")
    if (node := cluster.read()) is not None:
        output.fail(
            f"this machine is a node of cluster {node.name} already, which is a hub of three",
            hint="opsmesh hub cluster ls",
        )
    known = plan.read()
    reached = address or (known.addresses if known else None) or _own_addresses(listen)
    made = Plan(
        host=settings.host,
        addresses=reached,
        listen=listen,
        port=port,
        leaf_port=leaf_port,
        hosts=known.hosts if known else {},
    )
    plan.write(made)
    trust.certify(_store(), settings.host, reached)
    print(f"{settings.host} is a hub, reached as {', '.join(reached)}")
    print(f"ports: {port} for hosts and clients, {leaf_port} for leaf hosts; open them to those")
    again.restart(restart)
    print("then, for each host: opsmesh hub token --host NAME")


def _own_addresses(listen: str) -> list[str]:
    if listen not in ("0.0.0.0", "::"):  # noqa: S104
        return [listen]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            return [str(probe.getsockname()[0])]
        except OSError:
            output.fail(
                "no address of this machine is known that others could reach",
                hint="opsmesh hub init --address NAME",
                code=output.USAGE,
            )


@app.command("token")
def token_(
    host: Annotated[str, typer.Option("--host", help="The name of the host that is to join.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="leaf: a broker of its own there, works on when cut off. "
            "thin: no broker there, events wait in its spool while the hub is away."
        ),
    ] = "leaf",
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE",
            help=f"What it may do here ({', '.join(ROLES)}); all that its kind needs unless given. "
            "Repeatable.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Into a file (0600), not on screen."),
    ] = None,
) -> None:
    """Let a host in: a token for `opsmesh join` there. It is a secret, for that one host.

    A second token for a host takes the place of the first.

    Examples: opsmesh hub token --host desk | ssh desk opsmesh join -
              opsmesh hub token --host build-1 --kind thin -o build-1.token
    """
    hub = _hub()
    if (clash := hub.clash(host)) is not None:
        output.fail(
            f"{host!r} is {clash!r} to NATS ({host_token(host)!r}); every host needs a name of "
            "its own",
            code=output.USAGE,
        )
    roles = [_role(one) for one in role or ()]
    known = host in hub.hosts
    hub = hub.with_host(host, Member(kind=kind, since=times.format_us(times.now_us())))
    plan.write(hub)
    made = _token(hub, host, kind, roles)
    # what it had before is void, and a thin host's producer has an account of its own
    _apply(hub, reload=known or kind == "thin")
    if to is None:
        sys.stdout.write(token.encode(made) + "\n")
    else:
        files.write_private(to, f"{token.encode(made)}\n".encode())
        output.note(f"wrote {to}; there: opsmesh join FILE, then remove it here and there")


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise typer.BadParameter(f"{text!r} is no role{did_you_mean(text, ROLES)}")


def _token(hub: Plan, host: str, kind: Kind, roles: Sequence[Role]) -> token.Token:
    store = _store()
    return token.Token(
        hub=joined.Hub(
            kind=kind,
            host=host,
            urls=[f"tls://{_literal(one)}:{hub.port}" for one in hub.addresses],
            leaf_urls=[f"tls://{_literal(one)}:{hub.leaf_port}" for one in hub.addresses],
            hub_host=hub.host,
        ),
        files=trust.issue(store, host, kind, roles),
    )


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """The hosts that were let in; how they are: opsmesh hosts.

    Example: opsmesh hub ls
    """
    hub = _hub()
    rows: list[dict[str, Any]] = [
        {"host": name, "kind": one.kind, "since": one.since}
        for name, one in sorted(hub.hosts.items())
    ]
    if as_json:
        output.as_json(rows)
        return
    shown = [{**row, "since": output.local(row["since"])} for row in rows]
    empty = "no host yet: opsmesh hub token --host NAME"
    output.table(shown, ("host", "kind", "since"), empty=empty)


@app.command("remove")
def remove(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its name, as in hub ls.")],
) -> None:
    """Let a host in no more. What it sent stays; what it has not sent stays there.

    Example: opsmesh hub remove build-1
    """
    hub = _hub()
    if host not in hub.hosts:
        output.fail(f"there is no host {host!r}", hint="opsmesh hub ls", code=output.NOT_FOUND)
    hub = hub.without(host)
    trust.revoke(_store(), host)  # first: a host that is not in the plan cannot be removed again
    plan.write(hub)
    _apply(hub, reload=True)
    print(f"{host} is let in no more; there: opsmesh leave")


def _hub() -> Plan:
    if (hub := plan.read()) is None:
        what, hint = "this machine is no hub", "opsmesh hub init"
        if (node := cluster.read()) is not None:
            what = f"the hosts of cluster {node.name} are kept on {node.keeper}, not on this node"
            hint = f"ssh {node.keeper} opsmesh hub …"
        output.fail(what, hint=hint, code=output.USAGE)
    return hub


def _store() -> Store:
    """The trust of this hub; after `hub init` it is there."""
    return Store(Path(paths.state_dir(), "auth"))


def _apply(hub: Plan, *, reload: bool) -> None:
    """Tell the server that runs; one that does not learns of it when it starts."""
    broker = server.known(Path(paths.state_dir()))
    if reload:
        # also one whose supervisor was killed
        knowing.tell(running=broker is not None and server.reload(broker))
    if broker is None or running.mesh() is None:
        return
    try:
        with_client(lambda client, _: sourcing.sources(client.jetstream(), hub))
    except (BrokerUnavailable, NatsError, APIError, TimeoutError) as error:
        output.note(f"the agent does the rest when the broker answers ({error})")
