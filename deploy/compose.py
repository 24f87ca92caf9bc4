"""`make compose-up`, `compose-down` and `compose-logs`: the mesh of this user, in containers.

The one rule: it is the mesh that `opsmesh up` runs, with the same folders, socket, ports and
credentials. One of the two ways to run it has to end before the other begins.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_settings import SettingsError

from compose_files import BROKER, SERVED, STORES, fail, give, kept, own_broker, prepare, user
from opsmesh.cli import config_file
from opsmesh.cli import health as mesh_health
from opsmesh.cli.config_file import mask_url
from opsmesh.handlers.errors import ConfigError
from opsmesh.router import connection, probes, spool_state, supervisor_state
from opsmesh.router.containers import begin, health, look
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Settings

HERE: Final = Path(__file__).resolve().parent
#: The services in the order in which they are shown; the broker comes first where it is used.
SERVICES: Final = ("agent", "handlers", "sink", "web")
#: What is started beside them when it is asked for, by compose's own word for it.
PROFILES: Final = {"metrics": ("metrics", "prometheus", "grafana")}
#: What the images are called, and which of the Dockerfile's each is.
IMAGES: Final = {
    "nats": ("OPSMESH_NATS_IMAGE", "opsmesh-nats:local"),
    "opsmesh": ("OPSMESH_IMAGE", "opsmesh:local"),
}
#: The Dockerfile's arguments, which are taken from the environment.
BUILD_ARGS: Final = ("PYTHON_IMAGE", "BUILD_IMAGE", "NATS_FROM", "EXTRAS")
#: What `opsmesh status` says of a profile that no handlers decide for yet.
UNDECIDED: Final = "nobody decides"
#: Seconds for a page to answer.
ANSWER: Final = 1.0
#: Seconds that everything gets to run, once Docker has started it.
PATIENCE: Final = 90.0


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
    if shutil.which("docker-compose") is None:
        fail(
            "neither `docker compose` nor `docker-compose` is here",
            "install Docker's compose plug-in",
        )
    return ["docker-compose"]


def _quiet(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def compose(
    values: Mapping[str, str], *words: str, out: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run compose on this user's mesh; `out` is as subprocess's stdout. Of the profiles too: what
    is started is named, and what is ended is everything."""
    files = ["--env-file", str(look.folder() / "compose.env"), "-f", str(HERE / "compose.yaml")]
    return subprocess.run(
        [*reader(), "-p", project(values), *files, *words],
        env={**os.environ, **values, "COMPOSE_PROFILES": ",".join(PROFILES)},
        stdout=out,
        text=True,
        check=False,
    )


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
    services = [*(options.services or SERVICES), *PROFILES.get(options.profile, ())]
    wanted = [BROKER, *services] if own_broker(settings) else services
    running = look.components() is not None
    words = ["up", "-d", "--no-build", "--no-deps", *wanted]
    if compose(values, *words).returncode != 0:
        fail("compose did not start everything", "see above, and: make compose-logs")
    if running and BROKER in wanted:  # who may connect may have changed
        compose(values, "kill", "-s", "SIGHUP", BROKER, out=subprocess.DEVNULL)
    ports = {one: int(values.get(name) or port) for one, (name, port) in SERVED.items()}
    _wait(settings, services, ports)
    where = mask_url(connection.endpoint(settings, role="viewer").url)
    print(f"everything runs, NATS at {where}")
    if "web" in services:
        print(f"the page: {_page(values)}")
    for name in ("grafana", "prometheus"):
        if name in services:
            print(f"{name.capitalize()}: http://127.0.0.1:{ports[name]}")
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


def _page(values: Mapping[str, str]) -> str:
    """The page's address with the token of its last start."""
    told = compose(values, "logs", "--no-color", "web", out=subprocess.PIPE).stdout
    found: list[str] = re.findall(r"serving (http\S+)", told)
    return found[-1] if found else "make compose-logs ARGS=web"


def _wait(settings: Settings, services: Sequence[str], ports: Mapping[str, int]) -> None:
    """Return once each has said that it does its work, is connected to the broker, or answers."""
    components = health.COMPONENTS if own_broker(settings) else ("agent",)
    wanted = {*services} & {*components, *ports}
    said: set[str] = set()
    deadline = time.monotonic() + PATIENCE
    while wanted - said:
        found = {one.name for one in look.components() or [] if one.state == "running"}
        found |= {
            one for one, port in ports.items() if one in wanted and probes.answers(port, ANSWER)
        }
        for one in sorted(found & wanted - said):
            asks = READY.get(one)
            if asks is None or asks(settings):
                said.add(one)
                print(f"✓ {one}", flush=True)
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
    found = asyncio.run(mesh_health.check(settings))
    return bool(found.streams) and all(one["verdict"] != UNDECIDED for one in found.profiles)


#: What is asked of a component beside that it is connected.
READY: Final[Mapping[str, Callable[[Settings], bool]]] = {
    "agent": _agent_is_ready,
    "handlers": _handlers_are_ready,
}


def down(options: argparse.Namespace) -> None:
    """End the containers. Events, evidence and the store stay, in a volume too."""
    values = _started()
    if compose(values, "down", "--timeout", "30").returncode != 0:
        fail("compose did not end everything", "see above, and: docker ps")


def other(options: argparse.Namespace) -> None:
    """Any other command of compose's, on this mesh."""
    raise SystemExit(compose(_started(), *options.words).returncode)


def _started() -> dict[str, str]:
    values = kept(look.folder() / "compose.env")
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
    starts.add_argument("--profile", choices=PROFILES, help="start Prometheus and Grafana as well")
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
