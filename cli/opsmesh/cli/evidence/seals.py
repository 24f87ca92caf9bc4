"""`opsmesh evidence seal` and `key`: sealing on demand, and the key that seals."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from opsmesh.cli import output
from opsmesh.handlers.errors import SealError
from opsmesh.handlers.evidence import ed25519, keychain, keys, lines, sealing, seals, segments
from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.evidence.keychain import BrokenChain
from opsmesh.handlers.evidence.seals import Seal
from opsmesh.handlers.evidence.segments import Segment
from opsmesh.handlers.evidence.sink import SEAL
from opsmesh.router import paths
from opsmesh.router.errors import AlreadyRunning
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS

#: Seconds that a running sink has to close its segment; it may be at a commit.
ANSWER: Final = 15.0
#: Seconds between looks.
LOOK: Final = 0.05

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

key_app = typer.Typer(
    invoke_without_command=True, help="The public key that the seals are checked with."
)


def seal(as_json: AsJson = False) -> None:
    """Seal the open file now, so that its events can be proved.

    The running sink closes it, or this command where none runs. Whatever else is closed and not
    sealed is sealed as well.

    Example: opsmesh evidence seal && opsmesh evidence prove 019ab3c4-…
    """
    settings = Settings()
    folder = settings.evidence_dir
    found = segments.listing(folder)
    if not found:
        hint = "the sink runs with the mesh: opsmesh up"
        output.fail(f"nothing is archived in {folder}", hint=hint, code=output.NOT_FOUND)
    unsealed = [segment for segment in found if segment.path.exists()]
    last = found[-1]
    if last not in segments.closed(folder):
        if _worth_it(last):
            _close(settings, last)
        else:
            output.note("nothing was stored since the last seal but the event that tells of it")
    outcome = sealing.seal_closed(folder, Path(paths.keys_dir()))
    made = _made(unsealed, outcome)
    if as_json:
        sealed = [seal.manifest for seal in made]
        output.as_json({"sealed": [_row(m) for m in sealed], "refused": outcome.refused})
    else:
        output.table(
            [_row(seal.manifest) for seal in made],
            ["file", "lines", "bytes", "last_seq", "key"],
            empty="everything was sealed already",
        )
    for file, reason in outcome.refused.items():
        output.note(f"{folder / file}: not sealed: {reason}")
    if outcome.refused:
        raise typer.Exit(output.FAILED)


def _made(unsealed: list[Segment], outcome: sealing.Outcome) -> list[Seal]:
    """The seals made since: by this command, or by the sink's own process beside it."""
    mine = {seal.manifest.file: seal for seal in outcome.sealed}
    theirs = {segment.name: seals.read(segment) for segment in unsealed}
    made = {file: seal for file, seal in theirs.items() if file not in outcome.refused} | mine
    return [seal for seal in made.values() if seal is not None]


def _row(manifest: seals.Manifest) -> dict[str, object]:
    return {
        "file": manifest.file,
        "segment": manifest.segment,
        "lines": manifest.lines,
        "bytes": manifest.bytes,
        "first_seq": manifest.first_seq,
        "last_seq": manifest.last_seq,
        "last_hash": manifest.last,
        "key": manifest.key[:16],
    }


def _worth_it(segment: Segment) -> bool:
    """Whether it holds anything but events of seals."""
    marker = f'"event":{{"topic":"{seals.TOPIC}",'.encode()
    with segments.opened(segment) as file:
        return any(marker not in raw[:400] and lines.parse(raw) for raw in file)


def _close(settings: Settings, last: Segment) -> None:
    """No line goes into this segment any more when this returns."""
    folder = settings.evidence_dir
    deadline = time.monotonic() + ANSWER
    asked = 0.0
    while last not in segments.closed(folder):
        try:
            with Archive(
                folder, stream=EVENTS, segment_bytes=settings.evidence.segment_bytes
            ) as archive:
                archive.end_segment()
        except AlreadyRunning as error:
            now = time.monotonic()
            if now > deadline:
                output.fail(
                    f"the sink (pid {error.pid}) has not closed its file within {ANSWER:g} s",
                    hint="see its log: opsmesh status",
                )
            # one that starts just now does not listen yet
            if error.pid and now - asked > ANSWER / 3 and _listens(error.pid):
                os.kill(error.pid, SEAL)
                asked = now
            time.sleep(LOOK)


def _listens(pid: int) -> bool:
    """Whether the process catches the signal, which would end any other."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.Signals(SEAL) - 1))


@key_app.callback()
def key(context: typer.Context, as_json: AsJson = False) -> None:
    """Print the public key that the seals are checked with; give it to whoever is to check them.

    Example: opsmesh evidence key > evidence.pub
    """
    if context.invoked_subcommand is not None:
        return
    folder = Settings().evidence_dir
    public = keys.public(Path(paths.keys_dir()))
    if public is None:
        output.fail(
            "there is no key yet: the first start of the sink makes it",
            hint="opsmesh up",
            code=output.NOT_FOUND,
        )
    name, pem = ed25519.fingerprint(public), ed25519.pem(public)
    if not as_json:
        output.note(f"fingerprint {name}")
        sys.stdout.write(pem)
        return
    try:
        chain = [entry.statement for entry in keychain.read(folder)]
    except BrokenChain as error:
        output.fail(
            f"{folder / keychain.NAME}:{error.line}: {error.reason}",
            hint="opsmesh evidence verify",
        )
    output.as_json(
        {
            "fingerprint": name,
            "pem": pem,
            "file": str(Path(paths.keys_dir(), keys.PUBLIC)),
            "keys": [
                {
                    "number": one.number,
                    "fingerprint": one.key,
                    "from_segment": one.from_segment,
                    "made_at": one.made_at,
                }
                for one in chain
            ],
        }
    )


@key_app.command("rotate")
def rotate(
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="The old key, or the whole archive, is gone for good."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Begin a new key; the old one signs for it, and is deleted.

    Files that are sealed stay under the old key, later ones are sealed with the new one. Whoever
    holds the old public key can go on with it.

    Example: opsmesh evidence key rotate
    """
    folder, keys_folder = Settings().evidence_dir, Path(paths.keys_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with keys.locked(folder):
        try:
            entry = keys.rotate(folder, keys_folder, lost=accept_loss)
        except SealError as error:
            output.fail(str(error))
    said = entry.statement
    if as_json:
        output.as_json(
            {"fingerprint": said.key, "number": said.number, "from_segment": said.from_segment}
        )
        return
    sys.stdout.write(f"key {said.number}: {said.key}, from file {said.from_segment} on\n")
    output.note(f"give it away: {keys_folder / keys.PUBLIC}")
