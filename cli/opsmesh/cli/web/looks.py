"""What the page looks up on this machine: evidence bundles, and backtests of a text that is typed.

Both read folders and decide a lot, so that they run beside the server: in a thread, in a process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from opsmesh.cli import session
from opsmesh.cli.evidence import bundle_find as find
from opsmesh.cli.evidence import bundle_text as evidence_bundle_text
from opsmesh.cli.web.deeds import Refusal
from opsmesh.handlers.bundles import catalog, folders
from opsmesh.handlers.bundles.catalog import NoSuchBundle
from opsmesh.router import paths
from opsmesh.schemas import durations

#: Bundles that are listed, and bytes of a report that are shown.
BUNDLES: Final = 200
MAX_REPORT: Final = 256 * 1024
#: Seconds that a backtest may take; backtests at once.
BACKTEST_S: Final = 120.0
_one_at_a_time = asyncio.Semaphore(1)


def bundles() -> list[dict[str, Any]]:
    """Bundles of this host and those that others have shared, the newest first."""
    found = catalog.merged(catalog.local(find.bundles()), find.objects())
    return [evidence_bundle_text.record(known) for known in found[:BUNDLES]]


def bundle(name: str) -> dict[str, Any]:
    """A bundle that is on this host: its manifest and its report. Refusal."""
    try:
        known = catalog.choose(list(catalog.local(find.bundles())), name)
    except NoSuchBundle as error:
        raise Refusal(
            str(error), hint=f"one of another host: opsmesh evidence bundle show {name[:12]}"
        ) from None
    if known.folder is None:
        raise Refusal("it is not on this host")
    manifest = folders.read_manifest(known.folder)
    report = known.folder / folders.REPORT
    text = ""
    if report.is_file() and not report.is_symlink():
        with report.open("rb") as opened:
            text = opened.read(MAX_REPORT).decode(errors="replace")
    return {**evidence_bundle_text.record(known), "manifest": manifest, "report": text}


async def backtest(text: str, since: str) -> dict[str, Any]:
    """What `opsmesh profile backtest --json` says of this text. Refusal with its words."""
    try:
        durations.parse(since)
    except ValueError as error:
        raise Refusal(str(error), hint="an age like 12h or 7d") from None
    paths.private_dir(paths.state_dir())
    with tempfile.TemporaryDirectory(prefix="web-", dir=paths.state_dir()) as name:
        file = Path(name, "profiles.yaml")
        file.write_text(text)
        at = ("--hub",) if session.asks_hub() else ()
        call = (*at, "profile", "backtest", str(file), "--since", since, "--json")
        async with _one_at_a_time:
            return await _said(*call, place=f"{name}/")


async def _said(*call: str, place: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "opsmesh.cli.entry", *call),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BACKTEST_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise Refusal(
            f"it took more than {BACKTEST_S:.0f} s", hint="a shorter period, or the command line"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Refusal(err.decode(errors="replace").replace(place, "").removeprefix("error: "))
    found: dict[str, Any] = json.loads(out)
    return found
