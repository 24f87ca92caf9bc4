"""Handlers as processes of their own, which a test can kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from tests.conftest import PATIENCE, mesh_client, private_folders, start_server

from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.owner import presence
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings


class Processes:
    """`opsmesh handlers`, as often as a test wants it."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> int:
        """One more; its pid."""
        log = self._logs / f"handlers-{len(list(self._logs.iterdir()))}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "opsmesh.handlers.serve"],
                stdout=out,
                stderr=out,
            )
        self._running[process.pid] = process
        return process.pid

    def kill(self, pid: int) -> None:
        """kill -9."""
        process = self._running.pop(pid)
        process.kill()
        process.wait()

    def stop(self, pid: int) -> None:
        """SIGTERM, as at the end of a session. One that does not end tells where it hangs."""
        process = self._running[pid]
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            process.wait(PATIENCE)
            raise AssertionError(self.said()) from None
        finally:
            self._running.pop(pid)

    def ended(self, pid: int) -> bool:
        """Whether it has ended by itself, or by somebody else's hand."""
        process = self._running.get(pid)
        return process is None or process.poll() is not None

    def pause(self, pid: int) -> None:
        """SIGSTOP: it hangs, and does not know it."""
        os.kill(pid, signal.SIGSTOP)

    def go_on(self, pid: int) -> None:
        """SIGCONT."""
        os.kill(pid, signal.SIGCONT)

    def said(self) -> str:
        """What all of them have logged."""
        return "\n".join(path.read_text() for path in sorted(self._logs.iterdir()))

    def end(self) -> None:
        """End all."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def handlers(logs: Path) -> Iterator[Processes]:
    """Processes that are ended with the body."""
    logs.mkdir(parents=True, exist_ok=True)
    processes = Processes(logs)
    try:
        yield processes
    finally:
        processes.end()


@contextlib.contextmanager
def handled(
    home: Path, profiles: str, settings: dict[str, Any] | None = None
) -> Iterator[tuple[EmbeddedServer, Processes]]:
    """A mesh in `home`, its folders this process's until the body ends: a broker, and handlers that
    own every profile that is enabled."""
    with pytest.MonkeyPatch.context() as env, contextlib.ExitStack() as ends:
        private_folders(home, env)
        config = Path(paths.config_dir())
        config.mkdir(exist_ok=True)
        (config / "profiles.yaml").write_text(profiles)
        (config / "config.yaml").write_text(yaml.safe_dump(settings or {}))
        broker = start_server()
        ends.callback(broker.stop)
        processes = ends.enter_context(handlers(home / "logs"))
        processes.start()
        asyncio.run(_owned())
        yield broker, processes


async def _owned() -> None:
    settings = Settings()
    async with mesh_client(settings) as client:
        for profile in load_profiles(Path(paths.config_dir())).profiles.values():
            if profile.state == "enabled":
                await owner_of(client, consumer_name(profile, settings.host))


async def owner_of(client: Client, consumer: str) -> dict[str, Any]:
    """What the owner says of itself, once there is one."""
    while True:
        try:
            answer = await client.request(presence(consumer), b"", timeout=1)
            facts: dict[str, Any] = json.loads(answer.data)
            if "seq" in facts:  # it has taken the position
                return facts
        except (NoRespondersError, NatsTimeout):
            pass
        await asyncio.sleep(0.05)
