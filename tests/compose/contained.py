"""A mesh in containers, and the host beside it: everything is done as a user does it, by `make` and
`opsmesh`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from opsmesh.handlers.evidence import reader
from tests import conftest
from tests.compose.images import docker
from tests.house.checkout import TOP

#: Whose mesh it is when root runs the tests.
UID = 12345
#: Seconds that something may take before it counts as never.
PATIENCE = 60.0

until = partial(conftest.until, timeout=PATIENCE)


class Contained:
    """The mesh of one set of XDG folders; `variables` are what `make` is called with."""

    def __init__(self, home: Path, variables: Mapping[str, str]) -> None:
        self.home = home
        self.uid = os.getuid() or UID
        self.project = f"opsmesh-test-{os.getpid()}-{home.name[-12:]}".lower().replace("_", "-")
        self.env = {
            **os.environ,
            **variables,
            "COMPOSE_PROJECT_NAME": self.project,
            "OPSMESH_UID": str(self.uid),
            "OPSMESH_GID": str(self.uid),
        }
        for variable, name in (
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_RUNTIME_DIR", "run"),
        ):
            folder = home / name
            folder.mkdir(mode=0o700, exist_ok=True)
            if os.getuid() == 0:
                os.chown(folder, self.uid, self.uid)
            self.env[variable] = str(folder)

    @property
    def state(self) -> Path:
        """The mesh's own folder."""
        return self.home / "state" / "opsmesh"

    def make(self, target: str, arguments: str = "", *, code: int = 0) -> str:
        """Call make; what it said, or why it failed."""
        argv = ["make", "--no-print-directory", "-C", str(TOP), target, f"ARGS={arguments}"]
        done = self._run(argv, code)
        return done.stderr if code else done.stdout

    def opsmesh(self, *words: str, code: int = 0) -> str:
        """Call the command on the host."""
        done = self._run([str(Path(sys.executable).with_name("opsmesh")), *words], code)
        return done.stderr if code else done.stdout

    def _run(self, argv: list[str], code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == code, (argv, done.stdout, done.stderr)
        return done

    def container(self, service: str) -> str:
        """The id of a service's container."""
        label = "label=com.docker.compose"
        return docker(
            *("ps", "--all", "--quiet", "--no-trunc"),
            *("--filter", f"{label}.project={self.project}"),
            *("--filter", f"{label}.service={service}"),
        )

    def page(self, said: str) -> str:
        """The page's address, of what `make compose-up` said."""
        (found,) = re.findall(r"the page: (http\S+)", said)
        return str(found)

    def facts(self, service: str) -> Any:
        """What Docker says of a service's container."""
        (found,) = json.loads(docker("inspect", self.container(service)))
        return found

    def profiles(self, text: str) -> None:
        """Write profiles.yaml."""
        folder = self.home / "config" / "opsmesh"
        folder.mkdir(exist_ok=True)
        (folder / "profiles.yaml").write_text(text)

    def archived(self) -> list[dict[str, Any]]:
        """Every event in the evidence, read on the host."""
        return [json.loads(one.data) for one in reader.read(self.state / "evidence")]

    def gone(self) -> None:
        """End it, and remove what is not in its folders."""
        self.make("compose-down")
        for volume in docker(
            *("volume", "ls", "--quiet"),
            *("--filter", f"label=com.docker.compose.project={self.project}"),
        ).split():
            docker("volume", "rm", volume)
