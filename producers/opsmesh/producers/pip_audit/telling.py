"""What is news in a project's verdict, told once: also when a command and the producer both ask.

What is gone from a verdict is forgotten, and told again if it comes back; but of a package that
could not be judged this time nothing is forgotten.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.pip_audit.answer import INCOMPLETE, TOOL, VULNERABLE, Audited, incomplete
from opsmesh.producers.remembered import News, Remembered, shared
from opsmesh.router import session
from opsmesh.schemas import times

#: Facts of a project that are remembered: keys that were told, what was unknown, when the last
#: answer came, what the question was, and whether it was told that answers stay away.
KNOWN, UNKNOWN, AUDITED, ASKED, SILENT = "known", "unknown", "audited", "asked", "silent"
#: Projects that are remembered; a command may be called in ever new folders.
MOST_PROJECTS: Final = 1000
Facts = Mapping[str, Any]


def facts(folder: Path) -> Facts:
    """What is remembered of a project."""
    return Remembered(TOOL).facts(str(folder))


def tell(folder: Path, audited: Audited, emit: Emit, *, asked: str = "") -> int:
    """Tell what is new, and remember the verdict; how many vulnerabilities were new."""
    key, workspace = str(folder), session.workspace(str(folder))
    with shared(TOOL) as remembered:
        remembered.resume(emit)
        known = _known(remembered.facts(key))
        keys = {one.key: one for one in audited.vulnerabilities}
        news = [one for one_key, one in keys.items() if one_key not in known]
        for one in news:
            known.append(one.key)
            remembered.keep(key, known=list(known))
            payload = one.payload(key)
            topic = VULNERABLE
            remembered.tell(
                News(topic=topic, payload=payload, component=one.package, workspace=workspace), emit
            )
        unknown = _digest(audited.unknown)
        if unknown and unknown != remembered.facts(key).get(UNKNOWN):
            remembered.keep(key, unknown=unknown)
            payload = incomplete(audited, key)
            remembered.tell(_incomplete(payload, workspace), emit)
        # what is not judged may still be what it was
        still = [one for one in known if one in keys or one.partition(" ")[0] in audited.unknown]
        remembered.keep(
            key, known=still, unknown=unknown, audited=time.time(), asked=asked, silent=False
        )
        remembered.bound(MOST_PROJECTS, AUDITED)
        remembered.store()
    return len(news)


def tell_silence(folder: Path, error: str, emit: Emit) -> None:
    """Tell, once, that a project gets no answers any more."""
    key = str(folder)
    with shared(TOOL) as remembered:
        known = remembered.facts(key)
        if known.get(SILENT):
            return
        since = known.get(AUDITED)
        payload = {"folder": key, "error": error[:1000]}
        if isinstance(since, int | float) and since:
            payload["since"] = times.format_us(int(since * 1e6))
        remembered.keep(key, silent=True)
        remembered.tell(_incomplete(payload, session.workspace(key)), emit)


def _incomplete(payload: Facts, workspace: str) -> News:
    return News(topic=INCOMPLETE, payload=payload, component=TOOL, workspace=workspace)


def _known(remembered: Facts) -> list[str]:
    known = remembered.get(KNOWN)
    return [str(key) for key in known] if isinstance(known, list) else []


def _digest(unknown: Mapping[str, str]) -> str:
    """Empty when nothing is unknown. Names alone: reasons hold numbers that change."""
    names = "\0".join(sorted(unknown))
    return hashlib.sha256(names.encode()).hexdigest()[:16] if unknown else ""
