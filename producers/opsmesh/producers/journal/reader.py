"""journalctl as a child process: questions about the journal, and its entries as they come.

The Python binding of sd-journal has no wheel, and `journalctl` is wherever a journal is. Without
`--system` or `--user` it shows every journal that this user may read.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from opsmesh.producers.journal.classify import FIELDS, MATCHES
from opsmesh.producers.journal.entry import number, text

#: Seconds until a journalctl that died is started again: first, longest.
RESTART_FIRST, RESTART_LONGEST = 0.5, 30.0
#: Seconds that one question to journalctl may take.
QUESTION: Final = 30.0
#: Seconds that journalctl has to go away before it is killed.
LEAVE: Final = 2.0
#: The end of the year 9999: no clock of a working machine says so.
LATEST_US: Final = 253_402_300_800_000_000
#: Bytes of one line, at most. journalctl leaves out what is longer than 4 KiB in a field.
LINE: Final = 1 << 20


class JournalError(Exception):
    """journalctl cannot do what was asked; its own words say why."""


class Unanswered(JournalError):
    """journalctl was killed, hung or could not be started: that says nothing of what was asked."""


@dataclass(frozen=True)
class Source:
    """Which journal: the machine's own, or the files in `directory`."""

    directory: str = ""

    def arguments(self) -> list[str]:
        """What every call of journalctl begins with."""
        where = [f"--directory={self.directory}"] if self.directory else []
        return ["journalctl", "--quiet", "--no-pager", "--output=json", *where]

    def ask(self, *arguments: str) -> dict[str, Any] | None:
        """The first entry that journalctl gives; None for none. JournalError when it fails."""
        command = [*self.arguments(), "--output-fields=MESSAGE_ID", "--lines=1", *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=QUESTION, check=True
            )
        except subprocess.CalledProcessError as error:
            words = error.stderr.decode("utf-8", "replace").strip()
            if error.returncode < 0:
                raise Unanswered(f"journalctl ended with {error.returncode}") from error
            raise JournalError(words or f"journalctl ended with {error.returncode}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unanswered(str(error)) from error
        first = done.stdout.partition(b"\n")[0]
        if not first.strip():
            return None
        entry = parse(first)
        if entry is None:
            raise JournalError("journalctl's answer is no entry")
        return entry

    def newest(self) -> str:
        """The cursor of the last entry; empty for an empty journal."""
        entry = self.ask()
        return str(entry["__CURSOR"]) if entry else ""

    def at_or_after(self, cursor: str) -> str:
        """The cursor of the first entry from `cursor` on: `cursor` itself while it is kept.

        A cursor that the journal does not hold is no error for journalctl: it gives what it has.
        """
        entry = self.ask(f"--cursor={cursor}")
        return str(entry["__CURSOR"]) if entry else ""

    def follow(
        self,
        start: Callable[[], Sequence[str]],
        *,
        report: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[dict[str, Any]]:
        """Entries without end; `start` gives the arguments that say from where, at each start."""
        wait = RESTART_FIRST
        while True:
            skipped = 0
            try:
                # --follow shows the current boot alone, whatever --boot says (journalctl.c, 252 to
                # 257), and --merge, which would not, takes other machines' journals too. So what
                # was logged until now is read first, of all boots.
                for mode in ((), ("--follow", "--no-tail")):
                    with self._child(mode, start()) as child:
                        for line in _lines(child.stdout):
                            entry = parse(line)
                            if entry is None:
                                skipped += 1
                                continue
                            wait = RESTART_FIRST
                            yield entry
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            child.wait(LEAVE)
                    if child.returncode < 0:
                        break  # killed: what it had not read yet may be of an earlier boot
                ended = f"journalctl ended with {child.returncode}"
            except (OSError, JournalError) as error:  # its package is being replaced
                ended = f"journalctl: {error}"
            unreadable = f" ({skipped} lines were unreadable)" if skipped else ""
            report(f"{ended}{unreadable}, starts again in {wait:g} s")
            sleep(wait)
            wait = min(wait * 2, RESTART_LONGEST)

    @contextlib.contextmanager
    def _child(
        self, mode: Sequence[str], start: Sequence[str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        command = [
            *self.arguments(),
            *mode,
            f"--output-fields={','.join(FIELDS)}",
            *start,
            *MATCHES,
        ]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(LEAVE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout:
                child.stdout.close()


def _lines(stream: IO[bytes] | None) -> Iterator[bytes]:
    while stream and (line := stream.readline(LINE)):
        yield line


def parse(line: bytes) -> dict[str, Any] | None:
    """An entry that says where and when it is; None for anything else, as a line that was cut."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not text(entry, "__CURSOR"):
        return None
    at_us = number(entry, "__REALTIME_TIMESTAMP")
    return entry if at_us is not None and at_us < LATEST_US else None
