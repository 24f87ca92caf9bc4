"""`python -m opsmesh.router.units.ended NAME`, ExecStopPost= of each unit: a component that
ended by itself is told as `mesh.component.failed`, as our supervisor tells it, by way of the spool.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from opsmesh.router import paths, spool
from opsmesh.router.supervise import CANNOT_RUN
from opsmesh.schemas import ids, times


def event(name: str, env: Mapping[str, str]) -> dict[str, Any] | None:
    """What is to be told, from what systemd says of the end; None of one that was asked for."""
    result, status = env.get("SERVICE_RESULT", "success"), env.get("EXIT_STATUS", "")
    if result == "success" or status == str(CANNOT_RUN):
        return None
    killed = env.get("EXIT_CODE") in ("killed", "dumped")
    how = f"SIG{status}" if killed else f"exit {status}" if status else result
    payload: dict[str, Any] = {
        "component": name,
        "reason": how if result in ("signal", "exit-code", "core-dump") else f"{result}: {how}",
    }
    if status.isdigit() and not killed:
        payload["exit_code"] = int(status)
    return {
        "topic": "mesh.component.failed",
        "ts_utc": times.format_us(times.now_us()),
        "source": "opsmesh",
        "component": "systemd",
        "id": ids.uuid7(),
        "payload": payload,
    }


def main(arguments: Sequence[str]) -> int:
    """Tell it; a full disk must not change how the unit ended."""
    told = event(arguments[0], os.environ)
    if told is not None:
        with contextlib.suppress(OSError):
            spool.write(paths.spool_dir(), [json.dumps(told).encode()])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
