"""What every area's tests share: a real nats-server on a free port with a temporary store."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
import structlog
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout

from opsmesh.router import connection, paths, ports, server, topology
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.settings import Settings

# Components run in a test's own process log while a command's output is caught beside them.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

# Nothing is timed: a busy machine is slow, and no example has done wrong by it. Each run has other
# examples; `make test-all` has more of them at once (`thorough`).
hypothesis.settings.register_profile("opsmesh", deadline=None, max_examples=50)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=200)
hypothesis.settings.load_profile("opsmesh")

# A process of pytest holds every test and what it imports to its end: to look through half a
# million objects for garbage again and again was a tenth of its work.
gc.set_threshold(50_000, 20, 100)

# A shell starts what it puts into the background with SIGINT ignored, and every child inherits it:
# the tests of Ctrl-C need the ordinary state of affairs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

T = TypeVar("T")

HERE = Path(__file__).resolve().parent
#: Seconds between two looks at a condition.
LOOK = 0.01
#: Seconds that what is waited for may take. Nothing is measured by it: a busy machine takes long
#: for what an idle one does at once, and only a test that fails waits to the end.
PATIENCE = 60
#: Of a whole test: several such waits.
WHOLE = 180
#: Ports that are kept for servers to come, the newest.
PROMISED: deque[socket.socket] = deque()
MOST_PROMISED = 50
#: Bytes that must be free in memory, or the folders of tests lie on disk.
MEMORY_ROOM = 4 * 2**30

# What a test kills was written, and needs no disk: a broker that syncs each message waits for one
# most of its time. Tests of power cuts and full disks bring file systems of their own.
_shm = Path("/dev/shm")
if os.access(_shm, os.W_OK) and shutil.disk_usage(_shm).free > MEMORY_ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_shm))


def pytest_collection(session: pytest.Session) -> None:
    """Have each process of a whole run begin with modules of its own: what one has compiled, the
    others find. In a clean checkout six would compile all of them, at the same time."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not number or [Path(name).resolve() for name in session.config.args] != [HERE]:
        return
    modules = sorted(HERE.rglob("test_*.py"))
    first = len(modules) * int(number) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for module in (*modules[first:], *modules[:first]):
        name = ".".join(module.relative_to(HERE.parent).with_suffix("").parts)
        # what is wrong with a module, or missing, is said when it is collected
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to go on where pytest-xdist does not keep groups together: each process would set up
    every mesh and server of its own."""
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is not None and "@" not in item.nodeid:
            raise pytest.UsageError("pytest-xdist does not know this pytest: make .venv/.dev")


def pytest_collection_finish() -> None:
    """What is there now is no garbage, and is not looked at again."""
    gc.freeze()


def private_folders(home: Path, env: pytest.MonkeyPatch) -> None:
    """Make a set of XDG directories in `home` and name them in the environment: a mesh of one's
    own."""
    for variable, name in (
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_DATA_HOME", "data"),
        ("XDG_RUNTIME_DIR", "run"),
    ):
        folder = home / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        env.setenv(variable, str(folder))
    env.delenv("OPSMESH_NATS_URL", raising=False)
    # nothing of a test appears on the desktop of whoever runs it
    env.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)


@pytest.fixture(autouse=True)
def log_of_before() -> Iterator[None]:
    """What is set up for the log lasts for one test: a command that is run in this process sets up
    its own, to a stream that ends with it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def start_server() -> server.EmbeddedServer:
    """A nats-server that runs, prepared in the state folder."""
    for left in (2, 1, 0):
        running = server.EmbeddedServer(
            server.prepare(Path(paths.state_dir()), name=Settings().host)
        )
        try:
            running.start()
            break
        except BrokerUnavailable:  # a port that was free was taken by another test's server
            if not left:
                raise
    return running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private set of XDG directories: a mesh of this test's own."""
    private_folders(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def nats_server(home: Path) -> Iterator[server.EmbeddedServer]:
    """A running nats-server of this test's own, prepared in its state folder."""
    running = start_server()
    yield running
    running.kill()  # its store goes with it: nothing has to be put in order


@contextlib.asynccontextmanager
async def mesh_client(settings: Settings | None = None) -> AsyncIterator[Client]:
    """A connection to this test's server, with the streams of the mesh in place."""
    settings = settings or Settings()
    client = await connection.connect(connection.endpoint(settings, role="admin"), name="test")
    known = topology.Known(Path(paths.state_dir(), "known.json"))
    await topology.ensure(client.jetstream(timeout=PATIENCE), settings, known)
    try:
        yield client
    finally:
        await client.close()


async def restart(
    client: Client, broker: server.EmbeddedServer, end: Callable[[], None] | None = None
) -> None:
    """End the broker (kill -9 unless told), start it again, and return once the client is back.

    `is_connected` alone is no proof: it stays true until the client has seen the end.
    """
    before = client.stats["reconnects"]
    await asyncio.to_thread(end or broker.kill)
    await asyncio.to_thread(broker.start)
    await eventually(lambda: client.is_connected and client.stats["reconnects"] > before)


def run(coroutine: Coroutine[Any, Any, Any], *, timeout: float = WHOLE) -> Any:
    """Run a coroutine to its end; a test that hangs fails instead."""
    return asyncio.run(asyncio.wait_for(coroutine, timeout))


def until(condition: Callable[[], Any], *, timeout: float = PATIENCE) -> Any:
    """The condition's first true value; AssertionError when it stays false for `timeout` s."""
    began = time.monotonic()
    deadline = began + timeout
    while not (value := condition()):
        now = time.monotonic()
        assert now < deadline, f"never true within {timeout} s: {condition}"
        time.sleep(max(LOOK, 2 * (now - began)))
        began = time.monotonic()
    return value


def free_ports(count: int) -> list[int]:
    """So many ports that nothing listens on, and nobody else is given, for servers that have to be
    told one."""
    return [ports.free() for _ in range(count)]  # each is promised below


def promised(port: int) -> int:
    """Keep a free port from everybody but the server that is told it, by a socket that is bound and
    does not listen: beside it, a server with SO_REUSEADDR does."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
    PROMISED.append(probe)
    if len(PROMISED) > MOST_PROMISED:
        PROMISED.popleft().close()
    return port


def _promising(*, besides: int | None = None, _free: Callable[..., int] = ports.free) -> int:
    return promised(_free(besides=besides))


# Six processes start hundreds of brokers: now and then one is given the port of another, which has
# not come to listen yet, or waits for its test to start it.
ports.free = _promising


def limited(attempt: Callable[[float], T], begun: Callable[[T], Any]) -> T:
    """What comes of the shortest time limit that lets a program begin before it is over.

    What a limit does is seen in a program that runs; how soon one does is the machine's affair. So
    each attempt has twice the seconds of the one before.
    """
    seconds = 0.25
    while not begun(result := attempt(seconds)):
        assert seconds < PATIENCE, f"not begun within {seconds} s: {result}"
        seconds *= 2
    return result


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stop a process as a hang does, and return once none of its threads runs: the signal alone is
    no promise, and a busy machine lets it answer once more."""
    process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{process.pid}/task")

    def stopped() -> bool:
        try:
            states = [
                (one / "stat").read_text().rpartition(")")[2].split()[0]
                for one in threads.iterdir()
            ]
        except (FileNotFoundError, ProcessLookupError):  # one of them has just ended
            return False
        return set(states) == {"T"}

    until(stopped)


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]],
    *,
    timeout: float = PATIENCE,  # noqa: ASYNC109
) -> Any:
    """The condition's first true value; AssertionError when it stays false for `timeout` s."""
    deadline = time.monotonic() + timeout
    last: NatsTimeout | None = None
    while True:
        began = time.monotonic()
        value = condition()
        if asyncio.iscoroutine(value):
            try:
                value = await value
            except NatsTimeout as late:  # a broker that is busy is asked again
                value, last = None, late
        if value:
            return value
        now = time.monotonic()
        assert now < deadline, f"never true within {timeout} s: {condition} {last or ''}"
        await asyncio.sleep(max(LOOK, 2 * (now - began)))  # who asks a broker leaves it time
