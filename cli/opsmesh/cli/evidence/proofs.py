"""`opsmesh evidence prove` and `check-proof`: one event for a third party."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from opsmesh.cli import output
from opsmesh.handlers.evidence import ed25519, keys, prove
from opsmesh.handlers.evidence.locate import event_of, locate
from opsmesh.handlers.evidence.prove import ProofError, Unsealed
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.schemas import times

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def prove_(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")],
    out: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="Write it there, not to the screen.")
    ] = None,
) -> None:
    """Write a small proof that an event was archived, which needs nothing but the public key.

    Exit code 1: its file is not sealed yet, or not what was sealed; 3: there is no such event.

    Example: opsmesh evidence prove 019ab3c4-… -o proof.json
    """
    place = locate(Settings().evidence_dir, event_id)
    if place is None:
        output.fail(
            f"event {event_id} is not in the archive",
            hint=f"it may be younger than the archive: opsmesh show {event_id}",
            code=output.NOT_FOUND,
        )
    try:
        proof = prove.make(place)
    except Unsealed as error:
        output.fail(f"event {event_id} cannot be proved yet: {error}", hint="opsmesh evidence seal")
    except ProofError as error:
        output.fail(str(error))
    text = msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n"
    if out is None:
        sys.stdout.write(text.decode())
        return
    try:
        out.write_bytes(text)
    except OSError as error:
        output.fail(f"{out} cannot be written: {error.strerror}")
    output.note(f"wrote {out}; it is checked with the key of: opsmesh evidence key")


def check_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The proof.")],
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The public key that you trust; this machine's if none."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof: whether this very event was in a sealed archive.

    Exit code 0: it is proved; 1: it is not, with the reason.

    Example: opsmesh evidence check-proof proof.json --key evidence.pub
    """
    trusted = trusted_key(key)
    if trusted is None:
        output.fail("there is no key on this machine", hint="name one: --key FILE")
    try:
        data = file.read_bytes()
    except OSError as error:
        output.fail(f"{file} cannot be read: {error.strerror}", code=output.USAGE)
    try:
        proved = prove.check(data, trusted)
    except ProofError as error:
        output.fail(f"not proved: {error}")
    item, manifest = proved.item, proved.manifest
    event = event_of(item)
    facts = {
        "proved": True,
        "id": event.id if event is not None else "",
        "topic": event.topic if event is not None else "",
        "stream": item.stream,
        "seq": item.seq,
        "stored": times.format_us(item.time_us),
        "sealed": manifest.sealed_at,
        "archive": manifest.archive,
        "segment": manifest.segment,
        "key": manifest.key,
    }
    if as_json:
        output.as_json({**facts, "event": item.data.decode(errors="replace")})
        return
    sys.stdout.write(
        f"proved: event {facts['id']} ({facts['topic']}) was stored as {item.stream} {item.seq} at "
        f"{facts['stored']}\nsealed {manifest.sealed_at} in file {manifest.segment} of archive "
        f"{manifest.archive}\nunder key {manifest.key}\n{item.data.decode(errors='replace')}\n"
    )


def trusted_key(file: Path | None) -> str | None:
    """The fingerprint of the key in a file, of this machine's without one; None if it has none."""
    if file is None:
        public = keys.public(Path(paths.keys_dir()))
        return None if public is None else ed25519.fingerprint(public)
    try:
        return ed25519.fingerprint(ed25519.public_of(file.read_bytes()))
    except OSError as error:
        output.fail(f"{file} cannot be read: {error.strerror}", code=output.USAGE)
    except ed25519.KeyFileError as error:
        output.fail(
            f"{file}: {error}", hint="write it with: opsmesh evidence key", code=output.USAGE
        )
