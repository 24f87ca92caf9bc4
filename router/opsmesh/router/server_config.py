"""The embedded server's configuration as data, and its text.

nats-server reads JSON as it reads its own format, so values need no quoting of our own. What other
modules decide (who may connect, TLS, leaf nodes, a cluster) comes in as `Block`s; this module alone
knows how they stand in one file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

#: A top-level section of the file, as the server's documentation names its keys.
Block = Mapping[str, Any]

#: Bytes of a protocol line at most. nats-server's own 4 KB hold the credentials of a handler of ten
#: profiles; a client sends them in one line.
MAX_LINE: Final = 32 * 1024
#: Bytes of a message at most.
MAX_PAYLOAD: Final = 2**20
MAX_MEMORY_STORE: Final = 64 * 2**20
#: Seconds for a client to show who it is. nats-server's own two are over, on a busy machine, before
#: a process that has just connected has its turn again; it then hears that no server answers.
LOGIN_S: Final = 20

_HEAD: Final = "# Written by opsmesh at every start; changes are lost. Settings: config.yaml\n"


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """One server. `access` says who may connect (`authorization`, or `operator` and what goes with
    it); `tls` is that of the client port."""

    name: str
    listen: str
    monitor: str
    store: Path
    max_file_store: int
    access: Block
    domain: str | None = None
    tls: Block | None = None
    leafnodes: Block | None = None
    cluster: Block | None = None
    more: Block = field(default_factory=dict)

    def text(self) -> str:
        """The file's content."""
        jetstream: dict[str, Any] = {
            "store_dir": str(self.store),
            # an acknowledgement means on disk
            "sync_interval": "always",
            "max_file_store": self.max_file_store,
            "max_memory_store": MAX_MEMORY_STORE,
        }
        if self.domain is not None:
            jetstream["domain"] = self.domain
        whole: dict[str, Any] = {
            "server_name": self.name,
            "listen": self.listen,
            "http": self.monitor,
            "max_payload": MAX_PAYLOAD,
            "max_control_line": MAX_LINE,
            "jetstream": jetstream,
            "authorization": {"timeout": LOGIN_S},
            **self.access,
        }
        blocks = {"tls": self.tls, "leafnodes": self.leafnodes, "cluster": self.cluster}
        whole |= {key: block for key, block in blocks.items() if block is not None}
        return _HEAD + json.dumps({**whole, **self.more}, indent=2) + "\n"
