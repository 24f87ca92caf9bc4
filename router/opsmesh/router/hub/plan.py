"""What a hub knows of itself and of its hosts: `hub.yaml` in the configuration folder.

`opsmesh hub` writes it, a person may read it; it holds no secret. A machine with this file is a
hub, a machine without it is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from opsmesh.router import files, paths
from opsmesh.router.errors import BadFile
from opsmesh.router.joined import Kind
from opsmesh.schemas.envelope import host_token

#: The JetStream domain of a hub; no host may have a name that becomes it.
DOMAIN: Final = "hub"
#: Where clients connect to a hub, and where the servers of leaf hosts do: NATS's own numbers.
PORT: Final = 4222
LEAF_PORT: Final = 7422

_HEAD: Final = (
    "# Written by `opsmesh hub`. Change it with: opsmesh hub init, hub token, hub remove\n"
)


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host that was given a token, and when."""

    kind: Kind
    since: str


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `addresses` are names and addresses under which hosts reach this machine; `listen`
    is the address that the server binds."""

    host: str
    addresses: list[str]
    listen: str = "0.0.0.0"  # noqa: S104 (a hub is there to be reached; TLS and credentials guard it)
    port: int = PORT
    leaf_port: int = LEAF_PORT
    hosts: dict[str, Member] = {}

    @property
    def leaves(self) -> list[str]:
        """The hosts with a broker of their own, sorted."""
        return sorted(name for name, one in self.hosts.items() if one.kind == "leaf")

    def with_host(self, host: str, member: Member) -> Plan:
        """The plan with one host more, or with another kind of it."""
        return msgspec.structs.replace(self, hosts={**self.hosts, host: member})

    def without(self, host: str) -> Plan:
        """The plan without this host."""
        hosts = {name: one for name, one in self.hosts.items() if name != host}
        return msgspec.structs.replace(self, hosts=hosts)

    def clash(self, host: str) -> str | None:
        """A name, this hub's or of another of its hosts, that is the same to NATS as `host`."""
        taken = {host_token(DOMAIN): DOMAIN, host_token(self.host): self.host}
        taken |= {host_token(name): name for name in self.hosts if name != host}
        return taken.get(host_token(host))


def path() -> Path:
    """`hub.yaml` in the configuration folder."""
    return Path(paths.config_dir(), "hub.yaml")


def read() -> Plan | None:
    """The plan; None on a machine that is no hub. BadFile when the file is broken."""
    file = path()
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=Plan)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadFile(str(file), str(error)) from error


def write(plan: Plan) -> None:
    """Put the plan on disk, whole or not at all."""
    paths.private_dir(paths.config_dir())
    files.write_private(path(), _HEAD.encode() + msgspec.yaml.encode(plan))


def remove() -> None:
    """This machine is a hub no more."""
    path().unlink(missing_ok=True)
