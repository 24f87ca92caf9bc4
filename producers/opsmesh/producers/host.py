"""The process that runs one producer: `python -m opsmesh.producers.host NAME [-o key=value …]`.

It numbers the producer's events, completes them with what it knows of this machine, and delivers
each through the agent or the spool before `emit` returns. It lives for weeks, so it imports
nothing heavy: no NATS, no pydantic, no asyncio.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from opsmesh.producers.contract import Producer
from opsmesh.producers.errors import (
    OptionError,
    ProducerError,
    Refused,
    Unavailable,
    UnknownProducer,
)
from opsmesh.producers.waking import waking
from opsmesh.router import notify, paths
from opsmesh.router.client import Client
from opsmesh.router.files import write_private
from opsmesh.router.session import login
from opsmesh.schemas import ids, times

#: Seconds between two tries when neither the agent nor the spool can take an event: first, longest.
RETRY_FIRST, RETRY_LONGEST = 0.5, 30.0
#: Seconds between two writes of the status file.
STATUS_EVERY = 2.0
#: Exit codes beside 0: a producer that failed, a wrong call, no such producer, one that cannot run
#: here (EX_CONFIG).
FAILED, USAGE, NOT_FOUND, UNAVAILABLE = 1, 2, 3, 78


def status_path(name: str) -> Path:
    """Where the host of producer `name` says what it last sent."""
    return Path(paths.state_dir(), "producers", name, "status.json")


#: Half of a pair of surrogates; whole pairs are one character to Python.
_HALF = re.compile("[\ud800-\udfff]")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file as a whole, so that a crash leaves the old text or the new, never a part."""
    paths.private_dir(str(path.parent))
    write_private(path, data)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _line(event: Mapping[str, Any]) -> bytes:
    """The event as JSON. Bytes of a file's name that are no UTF-8 are lone surrogates to Python,
    which no reader of JSON takes: they are shown by their numbers."""
    text = json.dumps(event, ensure_ascii=False)
    return _HALF.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text).encode()


class Host:
    """`emit` for one producer in this process. `seq` counts every event from 1 with each `boot_id`.

    A number that is missing in the stream is an event that was lost, so none may be used for what
    the broker drops as known already: an event with an id of its own may have been stored in an
    earlier life. The agent says so, and the number is free again. Of what goes to the spool nobody
    can tell: a new boot begins after it, and such events have no number as long as that lasts.

    A patient host waits for room when neither the agent nor the spool can take an event, and keeps
    a status file; another one raises OSError at once.
    """

    def __init__(self, name: str, *, client: Client | None = None, patient: bool = True) -> None:
        self._name = name
        self._client = client or Client()
        self._patient = patient
        self._boot_id = ids.uuid7()
        self._seq = 0
        self._behind = False
        self._told = 0
        self._refused = 0
        self._last: dict[str, Any] = {}
        self._written = 0.0

    def emit(
        self,
        topic: str,
        payload: Mapping[str, Any],
        *,
        severity: str | None = None,
        ts_us: int | None = None,
        id: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        hops: int | None = None,
        component: str | None = None,
        session: str | None = None,
        workspace: str | None = None,
        run_id: str | None = None,
        exit_code: int | None = None,
        duration_ms: float | None = None,
        evidence_path: str | None = None,
    ) -> str:
        """See `contract.Emit`."""
        self._told += 1
        numbered = id is None or not self._behind
        if numbered:
            self._seq += 1
        optional = {
            "severity": severity,
            "correlation_id": correlation_id,
            "causation_id": causation_id,
            "hops": hops,
            "run_id": run_id,
            "exit_code": exit_code,
            "duration_ms": duration_ms,
            "evidence_path": evidence_path,
        }
        event = {
            "topic": topic,
            "ts_utc": times.format_us(times.now_us() if ts_us is None else ts_us),
            "source": self._name,
            "component": component or self._name,
            "session_id": login(os.environ) if session is None else session,
            "workspace": workspace or "",
            "payload": payload,
            "id": id or ids.uuid7(),
            **({"seq": self._seq, "boot_id": self._boot_id} if numbered else {}),
            **{name: value for name, value in optional.items() if value is not None},
        }
        answer = self._deliver(event)
        if id is not None:
            self._behind = bool(answer.get("spooled"))
        if numbered and id is not None and self._behind:
            self._boot_id, self._seq = ids.uuid7(), 0
        elif numbered and answer.get("duplicate"):
            self._seq -= 1
        if not answer.get("ok") and not answer.get("dropped"):
            self._refused += 1
            raise Refused(topic, str(event["id"]), str(answer.get("error", "no reason given")))
        self._note(event)
        return str(event["id"])

    def _deliver(self, event: Mapping[str, Any]) -> dict[str, Any]:
        line = _line({**event, "_reply": True})
        wait = RETRY_FIRST
        while True:
            try:
                return dict(json.loads(self._client.deliver(line, event["id"])))
            except OSError as error:  # no agent, and the spool's disk is full or read-only
                if not self._patient:
                    raise
                say(f"{self._name}: cannot keep an event, next try in {wait:g} s: {error}")
                time.sleep(wait)
                wait = min(wait * 2, RETRY_LONGEST)

    def _note(self, event: Mapping[str, Any]) -> None:
        self._last = {"topic": event["topic"], "id": event["id"], "ts_utc": event["ts_utc"]}
        if time.monotonic() - self._written >= STATUS_EVERY:
            self.write_status()

    def write_status(self) -> None:
        """Tell `producer status` what was sent last. Never in an event's way."""
        if not self._last or not self._patient:
            return
        self._written = time.monotonic()
        status = {
            "pid": os.getpid(),
            "boot_id": self._boot_id,
            "events": self._told - self._refused,
            "refused": self._refused,
            "last": self._last,
        }
        with contextlib.suppress(OSError):
            write_atomically(status_path(self._name), json.dumps(status).encode())

    def close(self) -> None:
        """Write the last status, and let go of the agent."""
        self.write_status()
        self._client.close()


def run(producer: Producer) -> None:
    """Run a producer in this process until it ends or SIGTERM comes."""
    if reason := producer.available():
        raise Unavailable(producer.name, reason)
    signal.signal(signal.SIGTERM, _stop)
    host = Host(producer.name)
    say(f"{producer.name}: watching, topics {', '.join(producer.topics)}")
    notify.ready()
    notify.beat_from_main_thread()
    try:
        with waking():
            producer.run(host.emit)
    finally:
        notify.rest()
        host.close()


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def say(text: str) -> None:
    """A line for the component's log."""
    print(text, file=sys.stderr, flush=True)


def options(pairs: Sequence[str]) -> dict[str, str]:
    """`key=value` texts as a mapping; OptionError for one that has no `=`."""
    made = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise OptionError(pair, "expected key=value")
        made[key.strip().replace("-", "_")] = value
    return made


def main(name: str, pairs: Sequence[str] = ()) -> int:
    """Run the producer `name` with options `key=value`; the process's exit code."""
    from opsmesh.producers import registry  # half of the time and memory of what only emits

    try:
        run(registry.load(name, options(pairs)))
    except KeyboardInterrupt:
        return 130
    except Unavailable as error:
        say(f"error: {error}")
        return UNAVAILABLE
    except UnknownProducer as error:
        say(f"error: {error}")
        return NOT_FOUND
    except ProducerError as error:
        say(f"error: {error}")
        return USAGE if isinstance(error, OptionError) else FAILED
    return 0


def _arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    name, *rest = arguments
    if len(rest) % 2 or any(flag != "-o" for flag in rest[::2]):
        raise OptionError(" ".join(rest), "expected -o key=value")
    return name, rest[1::2]


if __name__ == "__main__":
    gc.freeze()  # what was imported stays: it is never looked through for rubbish again
    try:
        sys.exit(main(*_arguments(sys.argv[1:])))
    except (OptionError, ValueError):
        say("usage: python -m opsmesh.producers.host NAME [-o key=value ...]")
        sys.exit(USAGE)
