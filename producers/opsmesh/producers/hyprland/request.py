"""One question to the compositor, on a connection of its own that is closed at once.

The compositor answers in the loop that draws: older ones stand still until a client of
`.socket.sock` has sent its question and gone, so the question goes out with the connection, and
nothing is ever kept open.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from opsmesh.producers.hyprland import layout
from opsmesh.producers.hyprland.layout import Monitor

#: The socket for questions, in the instance's folder (src/ipc/s1/Unix.cpp at 6ffae9c).
SOCKET: Final = ".socket.sock"
#: Seconds that an answer may take altogether.
PATIENCE: Final = 2.0
#: Bytes of an answer, at most: a layout of a dozen monitors has 30,000.
LONGEST_ANSWER: Final = 4 << 20


def ask(instance: Path, question: str) -> bytes:
    """The whole answer. OSError when there is none in time, or no end of it."""
    deadline = time.monotonic() + PATIENCE
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(instance / SOCKET))
        connection.sendall(question.encode())
        while len(answer) <= LONGEST_ANSWER:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(65536)
            if not part:
                return bytes(answer)
            answer += part
    raise OSError(f"the answer to {question} exceeds {LONGEST_ANSWER} bytes")


def monitors(instance: Path) -> Mapping[str, Monitor]:
    """The layout now; OSError or ValueError when there is no answer that says it."""
    return layout.read(ask(instance, "j/monitors"))


def config_errors(instance: Path) -> list[str]:
    """What the compositor finds wrong with its configuration; OSError or ValueError."""
    answer = json.loads(ask(instance, "j/configerrors").decode("utf-8", "replace"))
    return [line for line in answer if isinstance(line, str) and line.strip()]
