"""The images of `make compose-up` by themselves, through testcontainers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import StorageType, StreamConfig
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from opsmesh.router.server_config import ServerConfig
from tests.compose import images
from tests.compose.contained import UID, until
from tests.conftest import run
from tests.house.checkout import TOP

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]

STREAM = "KEPT"
#: Events that are stored one by one while the server is killed.
EVENTS = 500


@pytest.fixture(scope="session")
def built(variables: dict[str, str]) -> dict[str, str]:
    """Both images, built; their names."""
    for target, image in (("nats", images.NATS), ("opsmesh", images.OPSMESH)):
        named = {key: variables.get(key) for key in ("PYTHON_IMAGE", "BUILD_IMAGE")}
        arguments = [f"--build-arg={key}={value}" for key, value in named.items() if value]
        argv = ["docker", "build", "--quiet", "--file", "deploy/Dockerfile", "--target", target]
        env = {**os.environ, **variables}
        done = subprocess.run(
            [*argv, *arguments, "--tag", image, "."],
            cwd=TOP,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return {"nats": images.NATS, "opsmesh": images.OPSMESH}


@pytest.fixture
def broker(
    built: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DockerContainer]:
    """The broker's image as compose.yaml runs it, its store in a folder of that user's."""
    monkeypatch.setattr("testcontainers.core.config.testcontainers_config.ryuk_disabled", True)
    conf, store = tmp_path / "conf", tmp_path / "store"
    for folder in (conf, store):
        folder.mkdir()
        os.chown(folder, *((UID, UID) if os.getuid() == 0 else (-1, -1)))
    text = ServerConfig(
        name="test",
        listen="0.0.0.0:4222",
        monitor="0.0.0.0:8222",
        store=Path("/data"),
        max_file_store=2**28,
        access={},
    ).text()
    (conf / "nats.conf").write_text(text)
    container = (
        DockerContainer(built["nats"])
        .with_command(["-c", "/etc/opsmesh/nats.conf"])
        .with_exposed_ports(4222, 8222)
        .with_volume_mapping(str(conf), "/etc/opsmesh", "ro")
        .with_volume_mapping(str(store), "/data", "rw")
        .with_kwargs(user=str(os.getuid() or UID), read_only=True, cap_drop=["ALL"])
        .waiting_for(LogMessageWaitStrategy("Server is ready"))
    )
    with container:
        yield container


def test_nothing_but_the_server(built: dict[str, str]) -> None:
    """The broker's image holds one program, and the folder that a volume is mounted on."""
    made = images.docker("create", built["nats"])
    try:
        packed = subprocess.run(["docker", "export", made], capture_output=True, check=True).stdout
        listed = subprocess.run(["tar", "-t"], input=packed, capture_output=True, check=True)
    finally:
        images.docker("rm", "--volumes", made)
    names = {name.rstrip("/") for name in listed.stdout.decode().split()}
    # what Docker itself puts into every container
    theirs = ("dev", "etc", "proc", "sys", ".dockerenv")
    assert {name for name in names if name.split("/")[0] not in theirs} == {"nats-server", "data"}


def test_every_write_is_synced(broker: DockerContainer) -> None:
    """The server in the container syncs every write, and runs on a root that it cannot write to."""
    url = f"http://127.0.0.1:{broker.get_exposed_port(8222)}/varz"
    with urllib.request.urlopen(url, timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
    assert told["jetstream"]["config"]["sync_always"] is True
    facts = broker.get_wrapped_container().attrs["HostConfig"]
    assert (facts["ReadonlyRootfs"], facts["CapDrop"]) == (True, ["ALL"])


def test_killed(broker: DockerContainer) -> None:
    """What the server acknowledged is there after its container was killed and started again."""
    acknowledged = run(_store(broker), timeout=120)
    wrapped = broker.get_wrapped_container()
    wrapped.kill()
    wrapped.start()
    kept = until(lambda: _kept(broker))
    assert kept == acknowledged == EVENTS


def test_command(built: dict[str, str]) -> None:
    """The other image runs `opsmesh` for any user, and holds neither a server nor pip."""
    tried = ("run", "--rm", "--read-only", "--user", "4711:4711", built["opsmesh"])
    assert images.docker(*tried, "opsmesh", "--version").startswith("opsmesh ")
    server = "import shutil; print(shutil.which('nats-server'))"
    pip = "import importlib.util; print(importlib.util.find_spec('pip'))"
    for script in (server, pip):
        assert images.docker(*tried, "python", "-c", script) == "None"


async def _connected(broker: DockerContainer) -> Client:
    client = Client()
    url = f"nats://127.0.0.1:{broker.get_exposed_port(4222)}"
    await client.connect(url, allow_reconnect=False, connect_timeout=2)
    return client


async def _store(broker: DockerContainer) -> int:
    client = await _connected(broker)
    js = client.jetstream()
    await js.add_stream(StreamConfig(name=STREAM, subjects=["kept"], storage=StorageType.FILE))
    acks = [await js.publish("kept", b"%d" % number) for number in range(EVENTS)]
    await client.close()
    return acks[-1].seq


def _kept(broker: DockerContainer) -> int:
    async def ask() -> int:
        client = await _connected(broker)
        try:
            return (await client.jetstream().stream_info(STREAM)).state.messages
        finally:
            await client.close()

    try:
        broker.get_wrapped_container().reload()
        return asyncio.run(ask())
    except Exception:  # it starts
        return 0
