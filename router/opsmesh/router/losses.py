"""What the spool had to drop: counted on disk before it is gone, and told as events afterwards.

The one rule: a loss is written down and synced first; only then is the file removed. After a crash
between the two the file is still there, and its name in the log says that it was counted already.

    dropped.log        one record for each file that was dropped
    dropped-<ns>.log   the same, closed: what the agent tells as events, and then adds to the total
    dropped.json       the total of all that has been told
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from opsmesh.router import spool

#: The open log, and the total, in the spool.
LOG, TOTAL = "dropped.log", "dropped.json"
#: How the name of a closed log begins and ends; between them is the time of closing.
CLOSED, END = "dropped-", ".log"
#: Bytes of the open log from which it is closed and drawn together.
MAX_LOG: Final = 1 << 20
#: Seconds that a writer waits for another one that writes to the log.
LOCK_WAIT: Final = 1.0
#: The source of what is no event, or does not name one.
UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Loss:
    """What one source has lost; times are those of its first and last event that is gone."""

    source: str
    events: int
    bytes: int
    from_time: str
    to_time: str
    reasons: tuple[str, ...] = ()

    def __add__(self, other: Loss) -> Loss:
        return replace(
            self,
            events=self.events + other.events,
            bytes=self.bytes + other.bytes,
            from_time=min(filter(None, (self.from_time, other.from_time)), default=""),
            to_time=max(self.to_time, other.to_time),
            reasons=tuple(sorted({*self.reasons, *other.reasons})),
        )


def record(spool_dir: str, name: str, lines: Sequence[bytes], reason: str) -> None:
    """Write down, on disk when this returns, that these events of a file are given up."""
    record_all(spool_dir, [(name, lines)], reason)


def record_all(spool_dir: str, files: Iterable[tuple[str, Sequence[bytes]]], reason: str) -> None:
    """The same for several files, with one sync."""
    _append(
        spool_dir,
        [
            {"name": name, "losses": [asdict(loss) for loss in _by_source(lines, reason)]}
            for name, lines in files
        ],
    )


def counted(spool_dir: str) -> set[str]:
    """Names of files that are written down as dropped: one that is still there was meant to go."""
    return {
        entry["name"]
        for name in [LOG, *frozen(spool_dir)]
        for entry in _entries(f"{spool_dir}/{name}")
    }


def freeze(spool_dir: str) -> None:
    """Close the log, so that it can be told; remove those that are in the total already (a crash
    came between adding one and removing it)."""
    told = _total(spool_dir)[1]
    closed = _closed(spool_dir)
    for name in closed:
        if name <= told:
            spool.remove(f"{spool_dir}/{name}")
    # Its name goes behind all others, even when the clock was set back.
    last = max([told, *closed])
    ns = max(time.time_ns(), int(last[len(CLOSED) : -len(END)] or 0) + 1)
    with contextlib.suppress(FileNotFoundError), _locked(spool_dir, create=False):
        os.rename(f"{spool_dir}/{LOG}", f"{spool_dir}/{CLOSED}{ns:020d}{END}")  # noqa: PTH104


def frozen(spool_dir: str) -> list[str]:
    """The closed logs that have not been added to the total, oldest first."""
    told = _total(spool_dir)[1]
    return [name for name in _closed(spool_dir) if name > told]


def summary(spool_dir: str, name: str = LOG) -> list[Loss]:
    """What one log holds, for each source."""
    merged: dict[str, Loss] = {}
    seen = set()
    for entry in _entries(f"{spool_dir}/{name}"):
        if entry["name"] in seen:  # counted again after a crash
            continue
        seen.add(entry["name"])
        _merge(merged, (_loss(facts) for facts in entry["losses"]))
    return list(merged.values())


def close(spool_dir: str, name: str) -> None:
    """A closed log has been told: add it to the total, once, and remove it."""
    total, told = _total(spool_dir)
    if name > told:
        _merge(total, summary(spool_dir, name))
        data = {"told": name, "losses": [asdict(loss) for loss in total.values()]}
        spool.put(spool_dir, TOTAL, json.dumps(data).encode())
    spool.remove(f"{spool_dir}/{name}")


def total(spool_dir: str) -> list[Loss]:
    """Everything that was ever dropped here, told or not."""
    merged, _ = _total(spool_dir)
    for name in [LOG, *frozen(spool_dir)]:
        _merge(merged, summary(spool_dir, name))
    return list(merged.values())


def _closed(spool_dir: str) -> list[str]:
    try:
        found = os.listdir(spool_dir)  # noqa: PTH208
    except FileNotFoundError:
        return []
    return sorted(
        name
        for name in found
        if name.startswith(CLOSED)
        and name.endswith(END)
        and name[len(CLOSED) : -len(END)].isdigit()
    )


def _by_source(lines: Sequence[bytes], reason: str) -> list[Loss]:
    merged: dict[str, Loss] = {}
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        facts = event if isinstance(event, dict) else {}
        source, at = facts.get("source"), facts.get("ts_utc")
        at = at if isinstance(at, str) else ""
        source = source if isinstance(source, str) and source else UNKNOWN
        _merge(merged, [Loss(source, 1, len(line), at, at, (reason,))])
    return list(merged.values())


def _merge(into: dict[str, Loss], losses: Sequence[Loss] | Iterator[Loss]) -> None:
    for loss in losses:
        known = into.get(loss.source)
        into[loss.source] = known + loss if known else loss


def _loss(facts: Mapping[str, Any]) -> Loss:
    return Loss(**{**facts, "reasons": tuple(facts["reasons"])})


def _total(spool_dir: str) -> tuple[dict[str, Loss], str]:
    """The total by source, and the last log in it."""
    try:
        with open(f"{spool_dir}/{TOTAL}", "rb") as file:  # noqa: PTH123
            data = json.load(file)
        losses = [_loss(facts) for facts in data["losses"]]
        return {loss.source: loss for loss in losses}, str(data["told"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, ""


def _entries(path: str) -> list[dict[str, Any]]:
    try:
        # The log has no end mark, which `read` takes for a cut: its records are what counts here.
        return [json.loads(line) for line in spool.read(path)[0]]
    except OSError:
        return []


def _append(spool_dir: str, entries: Sequence[Mapping[str, Any]]) -> None:
    if not entries:
        return
    # The line break before it: a record that a power cut has left half spoils only itself.
    records = [spool.as_record(json.dumps(entry).encode()) for entry in entries]
    data = b"\n" + b"".join(records)
    with _locked(spool_dir) as file:
        size = os.fstat(file).st_size
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)
        if not size:
            spool.sync_folder(spool_dir)
    if size > MAX_LOG:
        freeze(spool_dir)
        _draw_together(spool_dir)


def _draw_together(spool_dir: str) -> None:
    """Closed logs, each as one record; told or not, they stay short."""
    for name in frozen(spool_dir):
        path = f"{spool_dir}/{name}"
        if os.stat(path).st_size > MAX_LOG:  # noqa: PTH116
            facts = [asdict(loss) for loss in summary(spool_dir, name)]
            entry = json.dumps({"name": name, "losses": facts}).encode()
            spool.put(spool_dir, name, spool.as_record(entry))


@contextlib.contextmanager
def _locked(spool_dir: str, *, create: bool = True) -> Iterator[int]:
    """The open log, to write to alone. A holder that hangs is not waited for longer than a
    moment: then a record may be counted late, never be torn (appending is atomic)."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    path = f"{spool_dir}/{LOG}"
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        file = os.open(path, flags, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.002)
            if _is_at(file, path):
                yield file
                return
        finally:
            os.close(file)
        if not create:  # somebody else has closed it
            raise FileNotFoundError(path)


def _is_at(file: int, path: str) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(file).st_ino  # noqa: PTH116
    except FileNotFoundError:
        return False
