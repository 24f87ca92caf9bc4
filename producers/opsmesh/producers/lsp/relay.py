"""Between an editor and its language server: hands every byte on, at once.

The process that the editor started becomes the server (`begin` never returns): its exit code, its
signals, its standard error and its death are the server's own. The relay is a process of its own
beside it, with a thread for each direction, and one that feeds the observer, a third process. The
one rule: nothing here waits for the observer, and what fails here beside the stream is left out.

Builtins and `os` only: this is the time between an editor's start of a server and the server's.
"""

from __future__ import annotations

import os
import time
from _collections import deque  # type: ignore[import-not-found]
from _thread import allocate_lock, start_new_thread

from opsmesh.producers.lsp import save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

#: Bytes that one read takes: what a pipe holds. More would cost a mapping of memory each time.
CHUNK = 1 << 16
#: Bytes that may wait for the observer; what comes then is passed on, and counted as not seen.
WAITING = 32 << 20
#: Bytes of the last piece that are looked at together with the next one.
LAST = 2048
#: Seconds that the observer is told later than the editor, and all that came meanwhile with it: a
#: round trip is over by then, and nobody notices a fiftieth of a second.
LATER = 0.02
#: Seconds that the relay stays for the observer once both streams have ended.
PARTING = 10.0
#: Exit codes of a shell, for a command that is not there, and one that cannot be run.
NOT_FOUND, NOT_EXECUTABLE = 127, 126

#: What a record for the observer begins with: its kind, the time (Unix, ns) and the size of what
#: follows; of a gap the size is that of what is missing, and nothing follows.
TO_SERVER, TO_EDITOR, GAP_TO_SERVER, GAP_TO_EDITOR = range(4)
HEAD = 17

Record = tuple[int, int, bytes, int]


def begin(argv: Sequence[str], *, ask_for_saves: bool, observe: Callable[[int], None]) -> NoReturn:
    """Become the server, behind a relay. `observe` is called in a process of its own with the
    descriptor of the records. Where there can be no relay, the server runs without one."""
    try:
        ends = _fork(ask_for_saves=ask_for_saves, observe=observe)
    except OSError:  # no processes or descriptors left: the server may still have enough
        ends = None
    if ends is not None:
        for descriptor, end in enumerate(ends):
            os.dup2(end, descriptor)  # the pipes themselves are closed by exec
    _exec(argv)


def _exec(argv: Sequence[str]) -> NoReturn:
    import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without its enums

    # Python ignores these, and exec would pass that on
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 (no shell is wanted)
    except OSError as error:
        text = f"opsmesh lsp: {argv[0]}: {error.strerror or error}\n"
        os.write(2, text.encode(errors="replace"))
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _fork(*, ask_for_saves: bool, observe: Callable[[int], None]) -> tuple[int, int]:
    """Start the relay; what the server's standard input and output are to be."""
    server_in, to_server = os.pipe()
    from_server, server_out = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # No child of the server's, which may wait for its own; no part of the editor's group,
            # which may be killed with what it was about to say.
            os.setsid()
            if os.fork() == 0:
                _relay(to_server, from_server, ask_for_saves=ask_for_saves, observe=observe)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(to_server)
    os.close(from_server)
    return server_in, server_out


def _relay(
    to_server: int,
    from_server: int,
    *,
    ask_for_saves: bool,
    observe: Callable[[int], None],
) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # who waits for the server's last word there
    try:
        feed: int | None = _observer(observe)
    except OSError:  # no process left for it: the streams go on without one
        feed = None
    _keep(to_server, from_server, *([] if feed is None else [feed]))
    Relay(to_server, from_server, feed, ask_for_saves=ask_for_saves).run()


def _observer(observe: Callable[[int], None]) -> int:
    """Start the observer; where its records are written to."""
    records, feed = os.pipe()
    if os.fork() == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(0, 1)
            _keep(records)
            _step_back()
            observe(records)
        finally:
            os._exit(0)
    return feed


def _step_back() -> None:
    """The server starts now, and whoever looks on has time."""
    try:
        os.nice(5)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        pass


def _keep(*wanted: int) -> None:
    """Close every other descriptor above standard error: some editor may wait for its end."""
    low = 3
    for descriptor in sorted(wanted):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


class Relay:
    """The two streams, and the records of them."""

    def __init__(
        self, to_server: int, from_server: int, feed: int | None, *, ask_for_saves: bool
    ) -> None:
        self._to_server = to_server
        self._from_server = from_server
        self._feed = feed
        self._records: deque[Record | None] = deque()
        self._wake = allocate_lock()
        self._wake.acquire()
        self._asleep = False
        self._answers = save.FromServer() if ask_for_saves else None
        self._saves: save.ToServer | None = None
        # What each thread alone has counted: bytes put (by direction), bytes fed.
        self._put = [0, 0]
        self._fed = 0
        self._missing = [0, 0]
        self._observed = feed is not None
        self._last = b""
        self._sent = False
        self._parted = allocate_lock()
        self._parted.acquire()

    def run(self) -> None:
        """Until both streams have ended, or the server has."""
        start_new_thread(self._feed_observer, ())
        start_new_thread(self._edit, ())
        self._serve()
        self._see_the_end()
        for kind in (TO_SERVER, TO_EDITOR):
            self._note_gap(kind)
        self._records.append(None)
        self._call()
        self._parted.acquire(timeout=PARTING)

    def _edit(self) -> None:
        """From the editor to the server."""
        try:
            while data := _read(0):
                self._note(TO_SERVER, data)
                _write(self._to_server, self._without_saves(data))
                if self._asleep:
                    self._call()
            if self._saves is not None:
                _write(self._to_server, self._saves.rest())
        except OSError:  # the server reads no more
            pass
        finally:
            self._sent = True
            os.close(0)
            os.close(self._to_server)

    def _serve(self) -> None:
        """From the server to the editor."""
        try:
            while data := _read(self._from_server):
                if self._answers is not None:
                    data = self._with_saves(data)
                    if not data:
                        continue
                elif self._saves is not None:
                    if save.asks_for_saves(self._last + data):  # it may have come in two pieces
                        self._saves.stop()
                    self._last = data[-LAST:]
                self._note(TO_EDITOR, data)
                _write(1, data)
                if self._asleep:
                    self._call()
            if self._answers is not None:
                _write(1, self._answers.rest())
        except OSError:  # the editor reads no more
            pass
        finally:
            os.close(1)
            os.close(self._from_server)

    def _with_saves(self, data: bytes) -> bytes:
        answers = self._answers
        if answers is None:
            return data
        data = answers.feed(data)
        if answers.done:
            # before the editor can know of it, and so before its first save
            self._saves = save.ToServer() if answers.given else None
            self._answers = None
        return data

    def _without_saves(self, data: bytes) -> bytes:
        saves = self._saves
        if saves is None:
            return data
        if not saves.done:
            data = saves.feed(data)
        if saves.done:
            data = data + saves.rest() if data else saves.rest()
        return data

    def _see_the_end(self) -> None:
        """The server writes no more; the editor may still, as long as somebody reads it."""
        import select

        while not self._sent:
            poll = select.poll()
            poll.register(self._to_server, 0)  # POLLERR: no reader is left
            try:
                if poll.poll(500):
                    return
            except OSError:
                return

    def _note(self, kind: int, data: bytes) -> None:
        """Have the observer see this, if there is room: before it goes on, so that no answer to it
        is seen first."""
        if not self._observed:
            return
        if sum(self._put) - self._fed > WAITING:
            self._missing[kind] += len(data)
            return
        self._note_gap(kind)
        self._put[kind] += len(data)
        self._records.append((kind, time.time_ns(), data, len(data)))

    def _note_gap(self, kind: int) -> None:
        if self._missing[kind]:
            self._records.append((kind + GAP_TO_SERVER, time.time_ns(), b"", self._missing[kind]))
            self._missing[kind] = 0

    def _feed_observer(self) -> None:
        """Hand records over, in their order."""
        try:
            import json  # noqa: F401 (while the server starts, not when its first answer comes)

            while self._more():
                # what an editor waits for is answered before the observer takes the processor
                time.sleep(LATER)
                while self._records:
                    if not self._hand_over():
                        return
        except Exception:  # no observer any more: the streams go on without one
            self._observed = False
            while self._more() and self._records.popleft() is not None:
                pass
        finally:
            self._parted.release()

    def _more(self) -> bool:
        """Once there are records; the calls for them come after the bytes have gone on."""
        while not self._records:
            self._asleep = True
            if not self._records:  # none came before it could be seen that we sleep
                self._wake.acquire()
            self._asleep = False
        return True

    def _call(self) -> None:
        self._asleep = False
        try:  # noqa: SIM105 (contextlib costs start-up time)
            self._wake.release()
        except RuntimeError:  # the other thread has called
            pass

    def _hand_over(self) -> bool:
        """What has come until now; False when that was the last."""
        parts, held, more = [], 0, True
        while self._records and held < CHUNK:
            record = self._records.popleft()
            if record is None:
                more = False
                break
            kind, at_ns, data, size = record
            parts.append(b"%c%b%b" % (kind, _eight(at_ns), _eight(size)))
            parts.append(data)
            held += len(data)
        if self._feed is not None:
            _write(self._feed, b"".join(parts))
        self._fed += held
        return more


def _eight(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _read(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:  # whoever made it shares its flags with us
            _wait(descriptor, reading=True)


def _write(descriptor: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        try:
            written += os.write(descriptor, memoryview(data)[written:] if written else data)
        except BlockingIOError:
            _wait(descriptor, reading=False)


def _wait(descriptor: int, *, reading: bool) -> None:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN if reading else select.POLLOUT)
    poll.poll()
