"""What a host knows of the hub that it has joined: `joined/` in the configuration folder.

`opsmesh join` writes it whole or not at all, `opsmesh leave` removes it; a person edits nothing
there. Everything in it is its owner's alone (0700): it holds this host's credentials.

    joined/hub.json      addresses, kind, names (`Joined`)
    joined/ROLE.creds    NATS credentials of this host, one file for each role it was given
    joined/leaf.creds    those with which a leaf's server connects to the hub's
    joined/ca.pem        who the hub's certificate must come from
    joined/host.pem      this host's certificate and key, where the hub asks for one
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from opsmesh.router import files, paths
from opsmesh.router.errors import BadFile

#: thin: no broker here, events go to the hub, by the spool while it is away. leaf: a broker with a
#: JetStream domain of its own, which the hub reads.
Kind = Literal["thin", "leaf"]

HUB: Final = "hub.json"
LEAF_CREDS: Final = "leaf.creds"


class Hub(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`hub.json`. `urls` are client addresses (`tls://hub:4222`), `leaf_urls` those for servers."""

    kind: Kind
    host: str
    urls: list[str]
    leaf_urls: list[str] = []
    hub_host: str = ""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The hub and where this host's half of the trust lies."""

    hub: Hub
    folder: Path

    def file(self, name: str) -> Path | None:
        """One of the files above, None where it is not there."""
        path = self.folder / name
        return path if path.exists() else None


def folder() -> Path:
    """`joined` in the configuration folder."""
    return Path(paths.config_dir(), "joined")


def read() -> Joined | None:
    """What was joined; None for a host on its own. BadFile when hub.json is broken."""
    path = folder() / HUB
    try:
        hub = msgspec.json.decode(path.read_bytes(), type=Hub)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise BadFile(str(path), str(error)) from error
    return Joined(hub=hub, folder=folder())


def write(hub: Hub, contents: Mapping[str, bytes]) -> None:
    """Join: the folder with `hub.json` and these files, in the place of one that was there."""
    own = msgspec.json.format(msgspec.json.encode(hub))
    files.write_folder(folder(), {**contents, HUB: own})


def remove() -> None:
    """Leave: nothing of the hub is known here any more."""
    shutil.rmtree(folder(), ignore_errors=True)
