"""A mesh whose profile gets a secret, prints it and fails with it: it is nowhere afterwards."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import eventually, run
from tests.handlers.mesh import mesh

from opsmesh.handlers.secrets.sources import Files
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer

#: Words that nothing else holds, and no rule knows.
VALUE = "wombat/" + 'quilt+"anchor' + "&harp"

PROFILES = """\
profiles:
  leaky:
    on: service.start.failed
    retry: {attempts: 2, initial: 10ms, max: 10ms, jitter: 0}
    actions:
      - id: prints
        command:
          argv:
            - sh
            - -c
            - |
              echo "$LAMP"; echo "error $LAMP" >&2; printf %s "$LAMP" | base64; cat
              printf %s "$LAMP" | od -An -tx1 | tr -d ' \\n'; printf %s "$LAMP" >leaked
          env: {LAMP: '${{ secret("lamp") }}'}
          stdin: {text: '{"token": "${{ secret("lamp") }}"}'}
      - id: keeps
        collect:
          - {name: said, command: [sh, -c, 'echo "$1"', sh, "${{ steps.prints.stdout }}"]}
          - {name: copy, command: [cat, leaked]}
      - id: tells
        emit: {topic: probe.said, payload: {said: "${{ steps.prints.stdout }}"}}
      - id: fails
        command:
          argv: [sh, -c, 'echo "cannot use $LAMP" >&2; exit 3']
          env: {LAMP: '${{ secret("lamp") }}'}
"""


def forms() -> list[bytes]:
    """The value, and what a program would write for it."""
    raw = VALUE.encode()
    return [
        raw,
        json.dumps(VALUE)[1:-1].encode(),
        base64.b64encode(raw)[:-4],
        raw.hex().encode(),
        b"wombat",
        b"anchor",
    ]


def holding(folder: Path, besides: set[Path]) -> list[str]:
    """Files with one of the forms."""
    return [
        f"{path}: {form!r}"
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path not in besides
        for form in forms()
        if form in path.read_bytes()
    ]


def test_nowhere(
    nats_server: EmbeddedServer, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No file of the mesh, no stream, no bucket, no log line and no command that shows things
    holds it: events, ledger, results, dead letter, bundle, `run show`, `profile show`."""
    Files().write("lamp", VALUE)
    own = Path(paths.config_dir(), "secrets", "lamp")

    async def body() -> tuple[list[str], list[str], Path]:
        async with mesh(PROFILES) as m:
            await m.publish()

            async def dead() -> bool:
                return bool(await m.letters())

            await eventually(dead)
            [finished] = await m.runs()
            [letter] = await m.letters()
            prints = finished.step("prints")
            assert prints is not None
            assert prints.output["stdout"].count("[redacted:secret") >= 4, prints.output
            assert "cannot use [redacted:secret" in letter.reason
            assert len(await m.events("probe.said")) == 1
            stored = []
            js = m.client.jetstream()
            for stream in await js.streams_info():
                name = str(stream.config.name)
                for seq in range(1, stream.state.last_seq + 1):
                    try:
                        message = await js.get_msg(name, seq)
                    except Exception:  # removed meanwhile
                        continue
                    text = (message.data or b"") + repr(message.headers).encode()
                    stored += [f"{name} {seq}: {form!r}" for form in forms() if form in text]
            shown = [
                *(["run", "show", finished.run_id], ["profile", "show", "leaky"]),
                *(["dlq", "ls", "--json"], ["dlq", "show", str(letter.seq)]),
                *(["secret", "ls"], ["secret", "check"]),
            ]
            said = []
            for command in shown:
                line = [sys.executable, "-m", "opsmesh.cli.entry", *command]
                done = await asyncio.to_thread(subprocess.run, line, capture_output=True)
                text = done.stdout + done.stderr
                assert b"No such command" not in text, text
                said += [f"{command}: {form!r}" for form in forms() if form in text]
            bundle = Path(str(finished.evidence_path))
            assert "[redacted:secret" in (bundle / "copy").read_text()
            return stored, said, Path(paths.state_dir(), "work", finished.run_id)

    stored, said, workdir = run(body())
    nats_server.stop()  # all is written, and its files do not come and go while they are read
    assert stored == []
    assert said == []
    captured = capfd.readouterr()
    for form in forms():
        assert form.decode() not in captured.out + captured.err
    # what the program itself wrote into its own folder is the program's
    assert holding(home, {own, workdir / "leaked"}) == []
    assert holding(home, set()) != [], "the search finds nothing at all"
