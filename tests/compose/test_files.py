"""What `deploy/` says, without Docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from opsmesh.router import paths, server, supervisor_state
from opsmesh.router.containers import begin
from tests.house.checkout import TOP

DEPLOY = TOP / "deploy"
SERVICES: dict[str, Any] = {
    name: service
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items()
    if "extends" not in service  # tests/house/test_metrics.py has those
}
#: Stands in for Docker: it answers, has compose, and cannot build.
DOCKER = """\
#!/bin/sh
case "$1" in build) exit 1 ;; *) exit 0 ;; esac
"""


def front(
    *words: str, folder: Path, code: int, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Call deploy/compose.py beside a stand-in for Docker."""
    commands = folder / "commands"
    commands.mkdir(exist_ok=True)
    (commands / "docker").write_text(DOCKER)
    (commands / "docker").chmod(0o755)
    mine = {"PATH": f"{commands}:/usr/bin:/bin", "OPSMESH_UID": "12345", **variables}
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "compose.py"), *words],
        env={**os.environ, **mine},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("name", SERVICES)
def test_service(name: str) -> None:
    """Every service is a user's, read-only, without capabilities, and bounded, by keys that both
    versions of compose know."""
    service = SERVICES[name]
    assert service["user"].startswith("${OPSMESH_UID:?")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_health_checks_need_no_shell() -> None:
    """Each health check is a program and its arguments, and asks for the service that it is of."""
    checks = {name: one["healthcheck"]["test"] for name, one in SERVICES.items() if name != "nats"}
    asked = {"web": "${OPSMESH_WEB_PORT:-9475}", "metrics": "9476"}
    assert checks == {
        name: ["CMD", "python", "-m", "opsmesh.router.containers.health", asked.get(name, name)]
        for name in ("agent", "handlers", "sink", "web", "metrics")
    }


def test_top_level() -> None:
    """The file has no key at its top that a version of compose refuses, or warns of."""
    keys = yaml.safe_load((DEPLOY / "compose.yaml").read_text()).keys()
    assert {key for key in keys if not key.startswith("x-")} == {"services", "volumes"}


def test_no_secret_is_committed() -> None:
    """No password stands in `deploy`, nor a variable that would hold one."""
    for file in ("compose.yaml", "Dockerfile"):
        text = (DEPLOY / file).read_text()
        assert re.findall(r"(?i)passw|secret|token", text) == []


def test_prepared(home: Path) -> None:
    """The broker's file in the container is that of `opsmesh up`, in another place; nothing that
    compose is told is a secret, and others can read neither."""
    said = front("up", folder=home, code=1)
    assert "was not built" in said.stderr
    folder = Path(paths.state_dir(), "compose")
    broker = server.known(Path(paths.state_dir()))
    assert broker is not None
    own = json.loads(broker.config.read_text().partition("\n")[2])
    told = json.loads((folder / "nats.conf").read_text().partition("\n")[2])
    assert told["jetstream"] == {**own["jetstream"], "store_dir": "/data"}
    assert told["jetstream"]["sync_interval"] == "always"
    assert told["listen"] == f"0.0.0.0:{broker.url.rpartition(':')[2]}"
    same = own.keys() - {"jetstream", "listen", "http", "pid_file"}
    assert {key: told[key] for key in same} == {key: own[key] for key in same}
    env = (folder / "compose.env").read_text()
    assert "SEED" not in env
    assert f"OPSMESH_JETSTREAM={paths.state_dir()}/jetstream\n" in env
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    if os.getuid() == 0:  # root writes them for that user
        assert {file.stat().st_uid for file in folder.iterdir()} == {12345}


@pytest.mark.slow
def test_store_is_remembered(home: Path) -> None:
    """A store that was chosen once is taken again, until the other is named."""
    env = Path(paths.state_dir(), "compose", "compose.env")
    front("up", "--store", "volume", folder=home, code=1)
    front("up", folder=home, code=1)
    assert "OPSMESH_JETSTREAM" not in env.read_text()
    front("up", "--store", "folder", folder=home, code=1)
    assert "OPSMESH_JETSTREAM" in env.read_text()


def test_no_runtime_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host without a runtime directory the socket's folder is mounted where it lies there, and
    the containers look for it in that place."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    front("up", folder=home, code=1)
    env = Path(paths.state_dir(), "compose", "compose.env").read_text()
    assert f"OPSMESH_RUN={paths.runtime_dir()}\n" in env
    assert "OPSMESH_RUNTIME_DIR=\n" in env


def test_beside_a_supervisor(home: Path) -> None:
    """While `opsmesh up` runs, nothing is begun, and the next step is named."""
    lock = supervisor_state.lock()
    try:
        said = front("up", folder=home, code=1)
    finally:
        os.close(lock)
    assert "by opsmesh up" in said.stderr
    assert "opsmesh down" in said.stderr


def test_broker_on_loopback(home: Path) -> None:
    """Somebody else's broker on loopback is refused: a container's loopback is its own."""
    said = front("up", folder=home, code=1, OPSMESH_NATS_URL="nats://user:hidden@127.0.0.1:4222")
    assert "where each container finds itself" in said.stderr
    assert "hidden" not in said.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, who is refused")
def test_root(home: Path) -> None:
    """Root is asked whose mesh it is to be."""
    environment = {k: v for k, v in os.environ.items() if k != "OPSMESH_UID"}
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "compose.py"), "up"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "OPSMESH_UID=1000" in done.stderr) == (1, True)


def test_never_started(home: Path) -> None:
    """Ending what was never started is no error."""
    assert "make compose-up" in front("down", folder=home, code=0).stdout


def test_a_container_beside_a_supervisor(home: Path) -> None:
    """A container does not begin while a supervisor has the lock, and several hold it together."""
    lock = supervisor_state.lock()
    assert begin.share() is None
    os.close(lock)
    held = [begin.share(), begin.share()]
    assert None not in held
    for one in held:
        os.close(one or 0)


def test_begin_keeps_the_lock(home: Path) -> None:
    """What a container becomes holds the lock until it ends."""
    (home / "stays.py").write_text("import signal\nprint('it stays')\nsignal.pause()\n")
    running = subprocess.Popen(
        [sys.executable, "-m", "opsmesh.router.containers.begin", "stays"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(home)},
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"it stays\n"
        with pytest.raises(Exception, match="already running"):
            supervisor_state.lock()
    finally:
        running.kill()
        running.wait()
    os.close(supervisor_state.lock())
