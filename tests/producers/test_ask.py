"""Questions to tools, and the end of who asks."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import until

# The kernel gives the signal to the other thread, so that the wait goes on: so it does where a
# signal comes between Python's last look and the wait, once in thousands of times.
ASKS = """
import signal, sys, threading
from opsmesh.producers.ask import ask
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
ask(["sh", "-c", f"echo $$ >{sys.argv[1]}; exec sleep 1000"], limit=600)
"""


def test_a_signal_that_interrupts_no_wait_ends_it(tmp_path: Path) -> None:
    """Whoever asks ends, and the tool with it, whenever the order to end comes."""
    told = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", ASKS, str(told)])
    until(lambda: told.exists() and told.read_text())
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not Path("/proc", told.read_text().strip()).exists()
