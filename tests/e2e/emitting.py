"""Run on a machine: emits events until it is ended, and notes each that was acknowledged.

`python emitting.py FILE`: an id a line, written only after the answer.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from opsmesh.router.client import Client
from opsmesh.schemas import ids

#: Seconds between two events: a few hundred in a test, not a benchmark.
EVERY = 0.02


def main() -> None:
    """For ever."""
    client, count = Client(), 0
    with Path(sys.argv[1]).open("a") as noted:
        while True:
            count += 1
            event = {
                "topic": "test.event.sent",
                "source": "emitting",
                "id": ids.uuid7(),
                "payload": {"count": count},
                "_reply": True,
            }
            answer = json.loads(client.deliver(json.dumps(event).encode(), str(event["id"])))
            if answer.get("ok"):
                noted.write(f"{event['id']}\n")
                noted.flush()
            time.sleep(EVERY)


if __name__ == "__main__":
    main()
