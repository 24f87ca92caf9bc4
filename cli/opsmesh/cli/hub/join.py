"""`opsmesh join` and `opsmesh leave`: this machine becomes a host of a hub, or one on its own."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from nats.errors import Error as NatsError

from opsmesh.cli import again, output
from opsmesh.cli.again import Restart
from opsmesh.cli.session import with_client
from opsmesh.router import joined
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.hub import plan, sourcing, token
from opsmesh.router.hub.token import PREFIX, Token
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import host_token


def join(
    where: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-|TOKEN", help="The token, a file that holds it, or - to read it."
        ),
    ],
    restart: Restart = True,
) -> None:
    """Join a hub with the token that was made there for this host.

    As a leaf this machine keeps its broker and all that it stores, and the hub gets a copy; as a
    thin host its events go to the hub, and what is stored here stays as it is. A hub that was
    joined before is left.

    Examples: ssh hub opsmesh hub token --host "$(hostname)" | opsmesh join -
              opsmesh join desk.token
    """
    given = token.decode(_text(where))
    settings = Settings()
    _fits(given, settings)
    joined.write(given.hub, given.files)
    hub = given.hub
    print(f"joined {hub.hub_host} as {hub.host}, a {hub.kind} host")
    again.restart(restart)
    print("how it stands: opsmesh hosts")


def _text(where: str) -> str:
    if where == "-":
        if sys.stdin.isatty():
            output.note("paste the token, then Ctrl-D")
        return sys.stdin.read()
    if where.startswith(PREFIX):
        output.note("a token among the arguments is in your shell's history: better a file, or -")
        return where
    try:
        return Path(where).read_text()
    except UnicodeDecodeError:
        output.fail(f"{where} is no text, and so no token", code=output.NOT_FOUND)
    except OSError as error:
        output.fail(
            f"{where} cannot be read: {error.strerror}",
            hint="a token is made at the hub: opsmesh hub token --host NAME",
            code=output.NOT_FOUND,
        )


def _fits(given: Token, settings: Settings) -> None:
    """Ends with an error where this machine cannot be what the token says."""
    hub = given.hub
    if host_token(settings.host) != host_token(hub.host):
        output.fail(
            f"the token is for the host {hub.host!r}, and this one is called {settings.host!r}",
            hint=f"at the hub: opsmesh hub token --host {settings.host}; "
            f"or here, in config.yaml: host: {hub.host}",
        )
    if plan.read() is not None:
        output.fail(
            "this machine is a hub itself",
            hint=f"remove {plan.path()} to make it none; or join from another machine",
        )
    if settings.nats.url:
        output.fail(
            "nats.url names a server of your own, which would go on being used",
            hint="remove nats.url (or OPSMESH_NATS_URL), then join",
        )


def leave(restart: Restart = True) -> None:
    """Leave the hub: this machine is on its own again. What the hub has of it stays there.

    What only the hub had of a thin host does not come here; its spool is sent to the broker here.

    Example: opsmesh leave
    """
    member = joined.read()
    if member is None:
        output.fail("this machine has joined no hub", code=output.NOT_FOUND)
    if member.hub.kind == "leaf":
        with contextlib.suppress(BrokerUnavailable, NatsError, TimeoutError):
            with_client(lambda client, _: sourcing.forget(client.jetstream(), member.hub.host))
    joined.remove()
    print(f"left {member.hub.hub_host}; there: opsmesh hub remove {member.hub.host}")
    again.restart(restart)
