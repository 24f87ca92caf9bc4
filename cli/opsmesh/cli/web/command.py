"""`opsmesh web`: serve the page on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import structlog
import typer

from opsmesh.cli import output, session
from opsmesh.handlers.errors import ExtraMissing
from opsmesh.router import files, paths, tasks
from opsmesh.router.settings import Settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from opsmesh.cli.view.follower import Follower
    from opsmesh.router.connection import Endpoint

#: The port, unless told otherwise; 0 takes a free one.
PORT: Final = 9475
HERE: Final = "127.0.0.1"
#: Requests under way at once, and seconds that they have when the server ends.
MOST: Final = 64
GRACE_S: Final = 1
#: Events that a page can look back.
KEEP: Final = 10_000
#: Seconds until the view is followed again after a mistake in it.
AGAIN_S: Final = 1.0

log = structlog.get_logger()


def web(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 is a free one.")] = PORT,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the desktop's browser.")] = (
        False
    ),
    host: Annotated[
        list[str] | None,
        typer.Option("--host", "-H", help="Only of these hosts; * stands for anything: 'web*'."),
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            help="Where to listen; 0.0.0.0 in a container. It answers to loopback's names alone."
        ),
    ] = HERE,
) -> None:
    """Show the mesh as a page: events as they come, stories as pictures, profiles, runs, questions
    to answer.

    It is served to this machine alone, to whoever has the address that is printed.

    On a leaf host it shows the host's own broker: opsmesh --hub web shows the hub's.

    From elsewhere: ssh -L 9475:127.0.0.1:9475 HOST, and the same address.

    Examples: opsmesh web --open
              opsmesh web --port 0
              opsmesh --hub web --host 'web*'
    """
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise ExtraMissing("web", str(error)) from error
    del starlette, uvicorn
    from opsmesh.handlers import http_server

    settings = Settings()
    hub = session.hub_endpoint(settings)
    try:
        listener = http_server.listen(address, port)
    except OSError as error:
        output.fail(
            f"{address}:{port} cannot be served: {error.strerror or error}",
            hint="is it open already? another port: opsmesh web --port 0",
        )
    with contextlib.closing(listener):
        tasks.run(_serve(settings, listener, hub, host or (), open_it=open_it))


async def _serve(
    settings: Settings,
    listener: socket.socket,
    hub: Endpoint | None,
    hosts: Sequence[str],
    *,
    open_it: bool,
) -> None:
    from opsmesh.cli.view.follower import Follower
    from opsmesh.cli.view.model import View
    from opsmesh.cli.web.app import Site
    from opsmesh.handlers import http_server

    token = secrets.token_urlsafe(32)
    follower = Follower(View(keep=KEEP), settings, hub=hub, hosts=hosts)
    site = Site(follower, settings, token=token)
    server = http_server.server(
        site.app, most=MOST, grace_s=GRACE_S, certificate=None, key=None, lifespan="off"
    )

    def end() -> None:
        follower.end()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    following = asyncio.create_task(_followed(follower))
    following.add_done_callback(lambda _: end())
    address = f"{http_server.url(HERE, listener, tls=False)}/#token={token}"
    print(f"serving {address}", flush=True)
    if open_it:
        await asyncio.to_thread(hand_over, address)
    try:
        await server.serve(sockets=[listener])
    finally:
        if open_it:
            _handed().unlink(missing_ok=True)
        await tasks.end([following])
        if not following.cancelled():
            following.result()


async def _followed(follower: Follower) -> None:
    while True:
        try:
            await follower.run()
        except Exception:  # the page says that it is not connected, and who started it hears why
            log.exception("view.interrupted")
        await asyncio.sleep(AGAIN_S)


def hand_over(address: str) -> None:
    """Open it through a file of the user's: everybody on this machine can read a command line."""
    file = _handed()
    paths.private_dir(str(file.parent))
    refresh = f'<meta http-equiv="refresh" content="0; url={address}">'
    files.write_private(file, f"<!doctype html><title>opsmesh</title>{refresh}".encode())
    webbrowser.open(file.as_uri())


def _handed() -> Path:
    return Path(paths.runtime_dir(), "web.html")
