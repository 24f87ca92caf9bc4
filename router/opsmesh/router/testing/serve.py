"""The ingest socket of a mesh in memory: the agent's own protocol, in a thread beside the test.

The one rule: lines are read and answered by `router.ingest`, as in the agent. There is no spool:
the broker of a MemoryMesh is never away.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from opsmesh.router.ingest import MAX_LINE, Ingest
from opsmesh.router.intake import Message, asks_reply
from opsmesh.schemas.errors import EnvelopeError, SchemaError

#: Bytes of a line that was too long which are kept as a dead letter, as in `router.agent`.
KEPT_OF_TOO_LONG = 64 * 1024
#: Seconds for the thread to listen, and to end.
PATIENCE = 10.0


class Taker(Protocol):
    """The part of a mesh that takes lines in."""

    def take(self, line: bytes) -> tuple[Message, int]: ...

    def dead_letter(self, line: bytes, error: Exception) -> None: ...


@contextlib.contextmanager
def serving(mesh: Taker, folder: Path | None) -> Iterator[str]:
    """Answer on `folder`/opsmesh/ingest.sock while the body runs; the socket's path.

    What has been sent when the body ends is still taken in.
    """
    with contextlib.ExitStack() as stack:
        base = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opsmesh-")))
        path = str(base / "opsmesh" / "ingest.sock")
        thread = _Thread(mesh, path)
        thread.start()
        stack.callback(thread.end)
        thread.wait()
        yield path


class _Thread(threading.Thread):
    def __init__(self, mesh: Taker, path: str) -> None:
        super().__init__(name="opsmesh-memory-ingest", daemon=True)
        self._mesh = mesh
        self._path = path
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # told by `wait`, in the test's own thread
            self._failed = error
        finally:
            self._ready.set()

    def wait(self) -> None:
        if not self._ready.wait(PATIENCE):
            raise TimeoutError(f"no socket at {self._path} within {PATIENCE:g} s")
        if self._failed is not None:
            raise self._failed

    def end(self) -> None:
        if self._loop is not None and self.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)
        self.join(PATIENCE)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        ingest = Ingest(self._path, self._handle)
        await ingest.start()
        self._ready.set()
        await self._ending.wait()
        await ingest.stop()

    async def _handle(self, line: bytes, too_long: bool) -> bytes | None:
        """What `router.agent` answers, without a spool."""
        if too_long:
            error = EnvelopeError(f"line exceeds {MAX_LINE} bytes, and was skipped")
            self._mesh.dead_letter(line[:KEPT_OF_TOO_LONG], error)
            return msgspec.json.encode({"ok": False, "error": str(error)})
        try:
            message, seq = self._mesh.take(line)
        except (SchemaError, ValueError, RecursionError) as wrong:
            if asks_reply(line):
                return msgspec.json.encode({"ok": False, "error": str(wrong)})
            self._mesh.dead_letter(line, wrong)
            return None
        if not message.reply:
            return None
        return msgspec.json.encode({"ok": True, "id": message.id, "seq": seq})
