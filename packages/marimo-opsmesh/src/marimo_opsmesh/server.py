"""Where marimo's server lets us in: kernels that a user restarts, and kernels that die.

A kernel's end is seen by its pidfd, in the server's own loop: nothing polls. It died when its
session is still among the server's; a session that is closed or restarted is taken out of them
before its kernel is ended. A restart is a request of the page, answered with 200.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from .guard import COUNT, guarded, off
from .health import Note
from .sender import Fact, shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]

RESTARTED = "notebook.kernel.restarted"
#: How the path of a restart ends, under whatever base URL.
RESTART = "/api/kernel/restart_session"
#: The header that names marimo's session.
SESSION = b"marimo-session-id"


def lifespan(app: Any) -> _Lifespan:
    """The entry point `marimo.server.asgi.lifespan`."""
    return _Lifespan(app)


class _Lifespan:
    def __init__(self, app: Any) -> None:
        self._app = app
        self._watch: Watch | None = None

    async def __aenter__(self) -> None:
        self._watch = _begin(self._app)

    async def __aexit__(self, *error: object) -> None:
        if self._watch is not None:
            self._watch.close()


@guarded
def _begin(app: Any) -> Watch:
    sender = shared()
    note = Note("server")
    COUNT.told = lambda: sender.put(note.write)
    manager = app.state.session_manager
    watch = Watch(manager)
    bus = getattr(manager, "event_bus", None) or manager._event_bus  # before 0.25
    bus.subscribe(_listener(watch))
    sender.put(note.write)
    return watch


def _listener(watch: Watch) -> Any:
    """A listener of marimo's kind, that has whatever else its bus may call."""
    from marimo._session.events import SessionEventListener

    class Listener(SessionEventListener):  # type: ignore[misc, unused-ignore]
        async def on_session_created(self, session: Any) -> None:
            watch.began(session)

    return Listener()


class Watch:
    """The kernels of one server that are processes of their own."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, tuple[int, list[Any]]] = {}

    @guarded
    def began(self, session: Any) -> None:
        """A session has a kernel; several may share a process."""
        pid = session.kernel_pid()
        if pid is None:
            return  # a thread of the server
        if pid in self._open:
            self._open[pid][1].append(session)
            return
        descriptor = os.pidfd_open(pid)
        self._open[pid] = (descriptor, [session])
        self._loop.add_reader(descriptor, self._ended, pid)

    def close(self) -> None:
        """Watch no more: the server ends."""
        for pid in list(self._open):
            self._release(pid)

    def _release(self, pid: int) -> list[Any]:
        descriptor, sessions = self._open.pop(pid)
        with contextlib.suppress(Exception):
            self._loop.remove_reader(descriptor)
        with contextlib.suppress(OSError):
            os.close(descriptor)
        return sessions

    @guarded
    def _ended(self, pid: int) -> None:
        told = set()
        for session in self._release(pid):
            identity = next(
                (i for i, one in self._manager.sessions.items() if one is session), None
            )
            notebook = _notebook(session)
            if identity is None or notebook in told:
                continue
            told.add(notebook)
            payload = {
                "notebook": notebook,
                "cause": "died",
                "session": str(identity),
                "pid": pid,
                **_exit(session),
            }
            shared().put(Fact(RESTARTED, payload))


class Middleware:
    """The entry point `marimo.server.asgi.middleware`: pure ASGI, which hands everything on."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or off():
            await self._app(scope, receive, send)
            return
        if not str(scope.get("path", "")).endswith(RESTART):
            await self._app(scope, receive, send)
            return
        payload = _restarting(scope)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message.get("status") == 200:
                _restarted(payload)
            await send(message)

        await self._app(scope, receive, sending)


#: As Starlette takes it apart: the class, its arguments, and those with names.
MIDDLEWARE: tuple[type[Middleware], tuple[()], dict[str, Any]] = (Middleware, (), {})


@guarded
def _restarting(scope: Scope) -> dict[str, Any] | None:
    """What is known of the session before it is closed."""
    manager = scope["app"].state.session_manager
    identity = next(v for k, v in scope["headers"] if k.lower() == SESSION).decode("latin-1")
    session = manager.sessions[identity]
    return {
        "notebook": _notebook(session),
        "cause": "user",
        "session": identity,
        "pid": session.kernel_pid(),
    }


@guarded
def _restarted(payload: dict[str, Any] | None) -> None:
    if payload is not None:
        shared().put(Fact(RESTARTED, payload))


def _notebook(session: Any) -> str:
    path = session.app_file_manager.path
    return os.path.abspath(path) if path else ""  # noqa: PTH100


def _exit(session: Any) -> dict[str, Any]:
    """How the process ended, as far as marimo knows."""
    with contextlib.suppress(Exception):
        info = session.kernel_exit_info()
        code = info.exitcode
        if code is not None and code < 0:
            return {"signal": -code, "reason": info.cause}
        return {"exit_code": code, "reason": info.cause}
    return {}
