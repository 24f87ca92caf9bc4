"""Which bundle is meant on the command line, and its folder on this host.

What another host has shared is fetched, and checked against its id, before anything of it is used.
"""

from __future__ import annotations

from pathlib import Path

from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.cli import output
from opsmesh.cli.session import with_client
from opsmesh.handlers.bundles import catalog
from opsmesh.handlers.bundles.archive import BadBundle
from opsmesh.handlers.bundles.catalog import Known, NoSuchBundle
from opsmesh.handlers.bundles.store import NotShared, Object, Store
from opsmesh.router import paths
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.settings import Settings
from opsmesh.schemas import unseen


def bundles() -> Path:
    """Where this host keeps bundles."""
    return Path(paths.bundles_dir())


def objects() -> list[Object]:
    """What other hosts have shared; nothing, with a note, where the mesh cannot be reached."""

    async def body(client: Client, settings: Settings) -> list[Object]:
        return await Store(client).list()

    try:
        return with_client(body, hub=True)
    except (BrokerUnavailable, NatsError, TimeoutError):
        output.note("the mesh cannot be reached: only what is on this host is known")
        return []


def _known(ref: str) -> Known:
    """The bundle that is meant: on this host, or else in the object store."""
    if "/" in ref and Path(ref).is_dir():
        return catalog.of_folder(Path(ref).absolute())
    ours = list(catalog.local(bundles()))
    if any(known.named(ref) for known in ours):
        return catalog.choose(ours, ref)
    return catalog.choose(catalog.merged(ours, objects()), ref)


def folder_of(ref: str) -> Path:
    """The folder of a bundle, fetched and checked where it is not here."""
    try:
        known = _known(ref)
        if known.folder is not None:
            return known.folder
        host = unseen.marked(str(known.told.get("host")))
        output.note(f"fetching {known.bundle_id[:12]} of {host} …")

        async def body(client: Client, settings: Settings) -> Path:
            return await catalog.fetch(known, bundles(), Store(client))

        return with_client(body, hub=True)
    except NoSuchBundle as error:
        output.fail(str(error), hint="opsmesh evidence bundle ls", code=output.NOT_FOUND)
    except NotShared as error:
        output.fail(str(error), code=output.NOT_FOUND)
    except BadBundle as error:
        output.fail(
            f"the bundle is not what it says, and nothing of it is shown: {error}",
            hint="whoever has put it into the object store is to be asked",
        )
    except (NatsError, TimeoutError) as error:
        output.fail(f"the broker did not give the bundle: {error}", code=output.UNAVAILABLE)
