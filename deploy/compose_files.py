"""What the containers are told: `compose.env` and `nats.conf`.

The one rule: what containers need beyond what `opsmesh up` writes lies in the folder `compose` of
the state, and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from opsmesh.handlers.profiles import starter
from opsmesh.router import files, joined, paths, ports, server
from opsmesh.router.containers import look
from opsmesh.router.settings import Settings

#: The broker's service: compose calls it so, and its containers' network.
BROKER: Final = "nats"
#: Settings of compose.yaml that are the caller's to choose.
CHOICES: Final = (
    *("OPSMESH_IMAGE", "OPSMESH_NATS_IMAGE", "OPSMESH_RESTART", "OPSMESH_TZ"),
    *("OPSMESH_PROMETHEUS_IMAGE", "OPSMESH_PROMETHEUS_PORT", "OPSMESH_PROMETHEUS_KEEP"),
    *("OPSMESH_GRAFANA_IMAGE", "OPSMESH_GRAFANA_PORT", "OPSMESH_GRAFANA_ANONYMOUS"),
)
#: Who serves pages, the variable with its port on this machine, and the port unless it is told.
SERVED: Final = {
    "web": ("OPSMESH_WEB_PORT", 9475),
    "prometheus": ("OPSMESH_PROMETHEUS_PORT", 9090),
    "grafana": ("OPSMESH_GRAFANA_PORT", 3000),
}
#: Variables that hold folders which are mounted, or their parents.
FOLDERS: Final = ("OPSMESH_CONFIG_HOME", "OPSMESH_STATE_HOME", "OPSMESH_RUN")
#: Where the broker keeps its store: in the state folder, as `opsmesh up` does, or in a volume.
STORES: Final = ("folder", "volume")
#: Sections of the broker's file for other machines, with files that no container has.
OTHERS: Final = frozenset({"tls", "leafnodes", "cluster"})


def fail(message: str, hint: str = "") -> NoReturn:
    """End with an error, and the next step."""
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(hint, file=sys.stderr)
    raise SystemExit(1)


def user() -> tuple[int, int]:
    """Whose mesh it is: the uid and gid that the containers run as."""
    uid, gid = os.getuid(), os.getgid()
    if "OPSMESH_UID" in os.environ:
        uid = int(os.environ["OPSMESH_UID"])
        gid = int(os.environ.get("OPSMESH_GID", uid))
    elif uid == 0:
        fail(
            "containers of root's would run as root",
            "call make as the user whose mesh it is; or name one: OPSMESH_UID=1000 make compose-up "
            "(OPSMESH_UID=0 is right for Docker without root)",
        )
    return uid, gid


def give(uid: int, gid: int) -> None:
    """Make that user's what root has written in the mesh's folders."""
    if os.geteuid() != 0 or uid == 0:
        return
    for top in (paths.config_dir(), paths.state_dir(), paths.runtime_dir()):
        for _, folders, others, here in os.fwalk(top):  # never through a link
            for name in (".", *folders, *others):
                if os.stat(name, dir_fd=here, follow_symlinks=False).st_uid == 0:
                    os.chown(name, uid, gid, dir_fd=here, follow_symlinks=False)


def own_broker(settings: Settings) -> bool:
    """Whether this machine's mesh has a broker of its own."""
    member = joined.read()
    return not settings.nats.url and (member is None or member.hub.kind != "thin")


def prepare(settings: Settings, *, uid: int, gid: int, store: str | None) -> dict[str, str]:
    """Write what the containers need, and say what compose.yaml is to be filled with."""
    state = Path(paths.state_dir())
    for folder in (Path(paths.config_dir()), state, look.folder(), state / "jetstream"):
        paths.private_dir(str(folder))
    run = paths.private_dir(paths.runtime_dir())
    if written := starter.write(Path(paths.config_dir())):
        print(f"wrote {written}: what runs when something happens; it is yours to change")
    before = kept(look.folder() / "compose.env")
    chosen = store or before.get("STORE") or STORES[0]
    values = {
        "OPSMESH_UID": str(uid),
        "OPSMESH_GID": str(gid),
        "OPSMESH_HOST": settings.host,
        "OPSMESH_CONFIG_HOME": str(Path(paths.config_dir()).parent),
        "OPSMESH_STATE_HOME": str(state.parent),
        "OPSMESH_RUN": run,
        # without a runtime directory the folder of the socket lies in the state
        "OPSMESH_RUNTIME_DIR": "" if run.startswith(f"{state}/") else str(Path(run).parent),
        "OPSMESH_BROKER_ADDRESS": BROKER if own_broker(settings) else "",
        # in their own network, of which this machine's loopback is given a port
        "OPSMESH_PROMETHEUS_ADDRESS": "0.0.0.0",
        "OPSMESH_GRAFANA_ADDRESS": "0.0.0.0",
        "OPSMESH_WEB_PORT": _page_port(before),
        "STORE": chosen,
    }
    values |= {name: os.environ[name] for name in CHOICES if os.environ.get(name)}
    if own_broker(settings):
        if chosen == "folder":
            values["OPSMESH_JETSTREAM"] = str(state / "jetstream")
        values |= _broker(settings, state)
    for name in FOLDERS:
        if ":" in values[name]:
            fail(f"the folder {values[name]} has a colon in its name, which compose cannot mount")
    text = "# Written by make compose-up at every call; changes are lost.\n"
    text += "".join(f"{name}={value}\n" for name, value in values.items())
    files.write_private(look.folder() / "compose.env", text.encode())
    return values


def _page_port(before: Mapping[str, str]) -> str:
    """The port of last time, or the usual one; a free one where another program has it."""
    variable, usual = SERVED["web"]
    port = os.environ.get(variable) or before.get(variable) or str(usual)
    if variable in os.environ or look.components() is not None:  # the page may run, and has it
        return port
    return str(ports.usable(int(port)) or ports.free())


def _broker(settings: Settings, state: Path) -> dict[str, str]:
    """The broker's file, as `opsmesh up` would write it, for a container; and its ports."""
    broker = server.known(state)
    if broker is None or look.components() is None:  # a running one keeps its ports
        broker = server.prepare_own(settings)
    port, monitor = (url.rpartition(":")[2] for url in (broker.url, broker.monitor_url))
    told: dict[str, Any] = json.loads(broker.config.read_text().partition("\n")[2])
    if others := told.keys() & OTHERS:
        fail(
            f"this machine's broker serves others, or follows a hub ({', '.join(sorted(others))})",
            "a broker in a container is that of one machine alone: opsmesh up runs this one",
        )
    del told["pid_file"]
    told |= {"listen": f"0.0.0.0:{port}", "http": f"0.0.0.0:{monitor}"}  # compose.yaml says to whom
    told["jetstream"]["store_dir"] = "/data"
    text = "# Written by make compose-up at every call; changes are lost.\n"
    text += json.dumps(told, indent=2) + "\n"
    files.write_private(look.folder() / "nats.conf", text.encode())
    return {"OPSMESH_NATS_PORT": port, "OPSMESH_MONITOR_PORT": monitor}


def kept(path: Path) -> dict[str, str]:
    """What was written the last time."""
    with contextlib.suppress(OSError):
        pairs = (line.partition("=") for line in path.read_text().splitlines())
        return {name: value for name, _, value in pairs if not name.startswith("#")}
    return {}
