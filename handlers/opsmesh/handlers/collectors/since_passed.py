"""`since_passed`: what is different from when the failed tests passed last.

The pytest plug-in notes in pytest's cache where a session runs and where each test passed last. The
two are compared, and git says what was changed between the two commits. What was changed without a
commit when the test passed is not known, and the piece says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors import failing_tests
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.files import read_end
from opsmesh.handlers.collectors.git import COMMIT, COMMITS, DIFF, Git

#: The plug-in's records below pytest's cache (pytest_opsmesh.notes).
SESSION: Final = "v/opsmesh/session"
PASSED: Final = "v/opsmesh/passed"
#: Bytes of a record.
MAX_RECORD: Final = 32 * 2**20
#: Differences among the facts.
FACTS: Final = 30


class SincePassedSpec(Spec):
    """Where projects may lie."""

    below: Annotated[Text, Field(description="Folders, with : between them.")]


class SincePassed:
    """Differences of the environment, then commits and sizes of changes; `.diff`: the changes."""

    key: ClassVar[str] = "since_passed"
    spec: ClassVar[type[SincePassedSpec]] = SincePassedSpec

    def __init__(self, spec: SincePassedSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        below = request.render(self._spec.below).split(":")
        folder = failing_tests.project(request, below)
        cache = folder / ".pytest_cache"
        now = await asyncio.to_thread(_record, cache / SESSION)
        known = await asyncio.to_thread(_record, cache / PASSED)
        tests = failing_tests.node_ids(request, folder)
        name, then = _last(known, tests)
        if not then:
            raise Unavailable(
                "no run in which these tests passed is on record; the next one will be "
                "(pytest_opsmesh notes it in .pytest_cache)"
            )
        changes = list(differences(then, now))
        facts: dict[str, Any] = {
            "test": name,
            "passed": then.get("time"),
            "head": then.get("head"),
            "environment": changes[:FACTS],
            "same_commit": then.get("head") == now.get("head"),
        }
        text = f"{name} passed last at {then.get('time')}\n\n"
        text += "".join(f"{line}\n" for line in changes) or "the environment is the same\n"
        log, diff = await _changes(request, folder, then.get("head"))
        pieces = [request.piece(text + "\n" + log, path=str(folder), facts=facts)]
        if diff is not None:
            pieces.append(request.beside(diff, ".diff"))
        return pieces


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """One line for each thing that differs."""
    if not now:
        yield "(where the failing session ran is not on record)"
        return
    for key in ("python", "executable", "platform"):
        if then.get(key) != now.get(key):
            yield f"{key}: {then.get(key)} → {now.get(key)}"
    for what in ("variables", "packages"):
        before, after = _mapping(then.get(what)), _mapping(now.get(what))
        for key in sorted(before.keys() | after.keys()):
            old, new = before.get(key), after.get(key)
            if old != new:
                label = key if what == "variables" else f"package {key}"
                yield f"{label}: {old or '(none)'} → {new or '(gone)'}"


async def _changes(request: Request, folder: Path, head: Any) -> tuple[str, str | None]:
    try:
        git = await Git.open(request, folder)
        if not isinstance(head, str) or not head:
            return "it passed outside of a commit\n", await git.text(*DIFF, "HEAD", "--")
        commit = await git.commit(head)
        log = await git.text(
            "log", f"--max-count={COMMITS}", f"--format={COMMIT}", f"{commit}..HEAD", "--"
        )
        stat = await git.text(*DIFF, "--stat=120", commit, "--")
        text = f"since commit {commit[:12]}:\n{log or '(no commit)'}\n{stat or 'no change'}\n"
        text += "(what was changed and not committed when it passed is not known)\n"
        return text, await git.text(*DIFF, commit, "--")
    except Unavailable as error:
        return f"git: {error}\n", None


def _last(known: Mapping[str, Any], tests: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The test of these that passed most lately, and where."""
    places, passed = _mapping(known.get("environments")), _mapping(known.get("tests"))
    best: tuple[str, dict[str, Any]] = ("", {})
    for name in tests:
        place = places.get(str(passed.get(name)))
        if isinstance(place, dict) and str(place.get("time")) > str(best[1].get("time", "")):
            best = (name, place)
    return best


def _record(file: Path) -> Mapping[str, Any]:
    try:
        data, size = read_end(file, MAX_RECORD)
        return _mapping(json.loads(data)) if size == len(data) else {}
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
