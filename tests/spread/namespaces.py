"""Network namespaces as hosts: each has a loopback of its own and an address on a switch, whose
cables can be pulled.

The switch is a bridge in a namespace of its own, because a firewall of this machine (Docker's) eats
bridged frames in ours. A process dials in the namespace it was started in, so everything that
belongs to a host is started by `Host.argv`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

_NETWORKS = itertools.count()


def missing() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if shutil.which("ip") is None:
        return "needs ip (iproute2), to make network namespaces"
    asked = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    return f"no network namespaces here: {asked.stderr.strip()}" if asked.returncode else ""


@dataclass(frozen=True)
class Host:
    """One of them: its name, its namespace, its address on the switch."""

    name: str
    namespace: str
    address: str

    def argv(self, *argv: str) -> list[str]:
        """The command, in this host's network."""
        return ["ip", "netns", "exec", self.namespace, *argv]


@dataclass
class Network:
    """A switch and its hosts, the first of which has the address 10.77.0.1."""

    switch: str
    hosts: dict[str, Host] = field(default_factory=dict)

    def cut(self, name: str) -> None:
        """Pull the cable: nothing arrives, and nobody is told."""
        _ip("-n", self.switch, "link", "set", f"to-{name}", "down")

    def heal(self, name: str) -> None:
        """Plug it in again."""
        _ip("-n", self.switch, "link", "set", f"to-{name}", "up")


@contextlib.contextmanager
def network(names: Sequence[str]) -> Iterator[Network]:
    """Hosts of these names (of nine characters at most); gone after the body."""
    if why := missing():
        pytest.skip(why)
    prefix = f"opsmesh-{os.getpid()}-{next(_NETWORKS)}"
    made = Network(f"{prefix}-switch")
    try:
        _ip("netns", "add", made.switch)
        _ip("-n", made.switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", made.switch, "link", "set", "br0", "up")
        for n, name in enumerate(names, 1):
            host = Host(name, f"{prefix}-{name}", f"10.77.0.{n}")
            _ip("netns", "add", host.namespace)
            made.hosts[name] = host
            end = ("type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _ip("-n", made.switch, "link", "add", f"to-{name}", *end)
            _ip("-n", made.switch, "link", "set", f"to-{name}", "master", "br0", "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", host.namespace, "link", "set", device, "up")
        yield made
    finally:
        for namespace in (*(host.namespace for host in made.hosts.values()), made.switch):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True, text=True)
