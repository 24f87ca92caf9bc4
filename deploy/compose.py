"""`make compose-up`, `compose-down` and `compose-logs`: the mesh of this user, in containers.

The one rule: it is the mesh that `opsmesh up` runs, with the same folders, socket, ports and
credentials. What containers need beyond those is written here, into the folder `compose` of the
state, and nowhere else; one of the two ways to run it has to end before the other begins.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError
from pydantic_settings import SettingsError

from opsmesh.cli import config_file, health
from opsmesh.cli.config_file import mask_url
from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import starter
from opsmesh.router import connection, joined, paths, server, spool_state, supervisor_state
from opsmesh.router.containers import begin, look
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Settings

HERE: Final = Path(__file__).resolve().parent
#: The services in the order in which they are shown; the broker is left out where another is used.
BROKER: Final = "nats"
SERVICES: Final = ("agent", "handlers", "sink")
#: What the images are called, and which of the Dockerfile's each is.
IMAGES: Final = {
    "nats": ("OPSMESH_NATS_IMAGE", "opsmesh-nats:local"),
    "opsmesh": ("OPSMESH_IMAGE", "opsmesh:local"),
}
#: The Dockerfile's arguments, which are taken from the environment.
BUILD_ARGS: Final = ("PYTHON_IMAGE", "BUILD_IMAGE", "NATS_FROM", "EXTRAS")
#: Settings of compose.yaml that are the caller's to choose.
CHOICES: Final = ("OPSMESH_IMAGE", "OPSMESH_NATS_IMAGE", "OPSMESH_RESTART", "OPSMESH_TZ")
#: Variables that hold folders which are mounted, or their parents.
FOLDERS: Final = ("OPSMESH_CONFIG_HOME", "OPSMESH_STATE_HOME", "OPSMESH_RUN")
#: Where the broker keeps its store: in the state folder, as `opsmesh up` does, or in a volume.
STORES: Final = ("folder", "volume")
#: Sections of the broker's file for other machines, with files that no container has.
OTHERS: Final = frozenset({"tls", "leafnodes", "cluster"})
#: What `opsmesh status` says of a profile that no handlers decide for yet.
UNDECIDED: Final = "nobody decides"
#: Seconds that everything gets to run, once Docker has started it.
PATIENCE: Final = 90.0


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
        for _, folders, files, here in os.fwalk(top):  # never through a link
            for name in (".", *folders, *files):
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
    chosen = store or _kept(look.folder() / "compose.env").get("STORE") or STORES[0]
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
    _write(look.folder() / "compose.env", text)
    return values


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
    _write(look.folder() / "nats.conf", text + json.dumps(told, indent=2) + "\n")
    return {"OPSMESH_NATS_PORT": port, "OPSMESH_MONITOR_PORT": monitor}


def _kept(path: Path) -> dict[str, str]:
    """What was written the last time."""
    with contextlib.suppress(OSError):
        pairs = (line.partition("=") for line in path.read_text().splitlines())
        return {name: value for name, _, value in pairs if not name.startswith("#")}
    return {}


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)


def reader() -> list[str]:
    """The command that reads compose.yaml: COMPOSE, or v2, or v1; SystemExit without Docker."""
    if os.environ.get("COMPOSE"):
        return shlex.split(os.environ["COMPOSE"])
    if shutil.which("docker") is None:
        fail(
            "docker is not installed",
            "install Docker and its compose plug-in, then make compose-up",
        )
    if _quiet("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    fail(
        "neither `docker compose` nor `docker-compose` is here", "install Docker's compose plug-in"
    )


def _quiet(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def compose(values: Mapping[str, str], *words: str, quiet: bool = False) -> int:
    """Run compose on this user's mesh; its exit code."""
    files = ["--env-file", str(look.folder() / "compose.env"), "-f", str(HERE / "compose.yaml")]
    return subprocess.run(
        [*reader(), "-p", project(values), *files, *words],
        env={**os.environ, **values},
        stdout=subprocess.DEVNULL if quiet else None,
        check=False,
    ).returncode


def project(values: Mapping[str, str]) -> str:
    """The mesh's name among Docker's projects: two users' meshes do not meet."""
    return os.environ.get("COMPOSE_PROJECT_NAME") or f"opsmesh-{values.get('OPSMESH_UID', '')}"


def build(values: Mapping[str, str]) -> None:
    """Both images; quick when nothing has changed."""
    for target, (variable, default) in IMAGES.items():
        arguments = [
            word
            for name in BUILD_ARGS
            if os.environ.get(name)
            for word in ("--build-arg", f"{name}={os.environ[name]}")
        ]
        image = values.get(variable, default)
        print(f"building {image} …", flush=True)
        argv = ["docker", "build", "--quiet", "--file", str(HERE / "Dockerfile"), *arguments]
        argv += ["--target", target, "--tag", image, str(HERE.parent)]
        if subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            fail(
                f"{image} was not built",
                f"see why: {shlex.join(a for a in argv if a != '--quiet')}",
            )


def up(options: argparse.Namespace) -> None:
    """From whatever there is to a mesh that runs."""
    uid, gid = user()
    reader()
    if not _quiet("docker", "info"):
        fail(
            "Docker does not answer", "start it, or have your user in the group docker: docker info"
        )
    config_file.read()  # stricter than Settings: a key given twice, a file that is no mapping
    settings = Settings()
    _refuse(settings)
    values = prepare(settings, uid=uid, gid=gid, store=options.store)
    give(uid, gid)
    if not options.no_build:
        build(values)
    services = options.services or SERVICES
    wanted = [BROKER, *services] if own_broker(settings) else list(services)
    running = look.components() is not None
    words = ["up", "-d", "--no-build", "--no-deps", *wanted]
    if compose(values, *words) != 0:
        fail("compose did not start everything", "see above, and: make compose-logs")
    if running and BROKER in wanted:  # who may connect may have changed
        compose(values, "kill", "-s", "SIGHUP", BROKER, quiet=True)
    _wait(settings, services)
    where = mask_url(connection.endpoint(settings, role="viewer").url)
    print(f"everything runs, NATS at {where}")
    print("next: opsmesh status · opsmesh tail · make compose-logs · make compose-down")


def _refuse(settings: Settings) -> None:
    """One mesh, one way to run it; and nothing that could not work."""
    lock = begin.share()
    if lock is None or supervisor_state.running() is not None:
        fail("the mesh runs already, by opsmesh up", "opsmesh down, then make compose-up")
    os.close(lock)
    if settings.nats.url and any(
        near in settings.nats.url for near in ("127.0.0.1", "localhost", "[::1]")
    ):
        fail(
            f"nats.url is {mask_url(settings.nats.url)}, where each container finds itself",
            "name the server by an address that others reach too, or let opsmesh run its own",
        )


def _wait(settings: Settings, services: Sequence[str]) -> None:
    """Return once each has said that it does its work, or is connected to the broker."""
    wanted = {*services} if own_broker(settings) else {"agent"} & {*services}
    said: set[str] = set()
    deadline = time.monotonic() + PATIENCE
    while wanted - said:
        found = look.components() or []
        for one in found:
            waited_for = one.name in wanted - said and one.state == "running"
            asks = READY.get(one.name)
            if waited_for and (asks is None or asks(settings)):
                said.add(one.name)
                print(f"✓ {one.name}", flush=True)
        if time.monotonic() > deadline:
            fail(
                f"not running within {PATIENCE:g} s: {', '.join(sorted(wanted - said))}",
                "make compose-logs says why; the rest runs on: make compose-down ends it",
            )
        time.sleep(0.05)


def _agent_is_ready(_: Settings) -> bool:
    with contextlib.suppress(TimeoutError):
        return (spool_state.ask_agent() or {}).get("broker") == "open"
    return False


def _handlers_are_ready(settings: Settings) -> bool:
    """Whether every profile is decided: what is emitted from now on is not the past of any."""
    found = asyncio.run(health.check(settings))
    return bool(found.streams) and all(one["verdict"] != UNDECIDED for one in found.profiles)


#: What is asked of a component beside that it is connected.
READY: Final[Mapping[str, Callable[[Settings], bool]]] = {
    "agent": _agent_is_ready,
    "handlers": _handlers_are_ready,
}


def down(options: argparse.Namespace) -> None:
    """End the containers. Events, evidence and the store stay, in a volume too."""
    values = _started()
    if compose(values, "down", "--timeout", "30") != 0:
        fail("compose did not end everything", "see above, and: docker ps")


def other(options: argparse.Namespace) -> None:
    """Any other command of compose's, on this mesh."""
    raise SystemExit(compose(_started(), *options.words))


def _started() -> dict[str, str]:
    values = _kept(look.folder() / "compose.env")
    if not values:
        print("no mesh was started in containers here: make compose-up")
        raise SystemExit(0)
    return values


def main(argv: Sequence[str]) -> int:
    """The exit code: 0, 1 where something is wrong, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="deploy/compose.py", description=__doc__)
    commands = parser.add_subparsers(required=True)
    starts = commands.add_parser("up", help="build what is missing, start everything, and wait")
    starts.add_argument("--no-build", action="store_true", help="take the images as they are")
    starts.add_argument("--store", choices=STORES, help="where the broker's store lies")
    starts.add_argument("services", nargs="*", help=f"of {' '.join(SERVICES)}; all unless named")
    starts.set_defaults(call=up)
    commands.add_parser("down", help="end it; nothing is lost").set_defaults(call=down)
    rest = commands.add_parser("do", help="a command of compose's: do logs -f agent; do ps")
    rest.add_argument("words", nargs=argparse.REMAINDER)
    rest.set_defaults(call=other)
    options = parser.parse_args(argv)
    try:
        options.call(options)
    except (ConfigError, RouterError, ValidationError, SettingsError, OSError) as error:
        fail(str(error), getattr(error, "hint", "") or "opsmesh config validate")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
