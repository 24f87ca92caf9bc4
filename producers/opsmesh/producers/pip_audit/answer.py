"""What pip-audit answered. Pure: a text in, vulnerabilities out.

Its exit code is 1 for "something was found" and for "it broke": the JSON alone decides. What it
says nothing of, or that it skipped, is unknown; never clean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from opsmesh.producers.pip_audit.locks import Pin, canonical

#: The topic, and the source of the events.
VULNERABLE: Final = "python.dep.vuln.detected"
INCOMPLETE: Final = "python.dep.audit.incomplete"
TOOL: Final = "pip-audit"
#: Characters of an advisory's text, and other ids, fixes and unknown packages of one event.
MOST_TEXT, MOST_LISTED = 2000, 100


class _Vuln(msgspec.Struct, frozen=True):
    id: str
    fix_versions: list[str] = []
    aliases: list[str] = []
    description: str | None = None


class _Dependency(msgspec.Struct, frozen=True):
    name: str
    version: str | None = None
    vulns: list[_Vuln] = []
    skip_reason: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    dependencies: list[_Dependency]


@dataclass(frozen=True, kw_only=True)
class Vulnerability:
    """One advisory about one package at one version."""

    package: str
    version: str
    vuln_id: str
    aliases: list[str] = field(default_factory=list)
    fix_versions: list[str] = field(default_factory=list)
    description: str | None = None
    requirement: str | None = None

    @property
    def key(self) -> str:
        """What makes it the same one in a project; that it can be mended at last is news."""
        mended = "mended" if self.fix_versions else "open"
        return f"{self.package} {self.version} {self.vuln_id} {mended}"

    def payload(self, folder: str) -> dict[str, Any]:
        """As PythonDepVulnDetected has it."""
        text = self.description[:MOST_TEXT] if self.description else None
        bounded = {
            "aliases": self.aliases[:MOST_LISTED] or None,
            "fix_versions": self.fix_versions[:MOST_LISTED] or None,
            "description": text,
            "folder": folder,
        }
        return {n: value for n, value in {**vars(self), **bounded}.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A project's verdict: `unknown` says why, by package; `judged`: packages of which we know."""

    vulnerabilities: list[Vulnerability]
    unknown: dict[str, str]
    judged: int


def decode(
    answer: bytes, asked: Mapping[Pin, str], unknown: Mapping[str, str] | None = None
) -> Audited:
    """What `pip-audit --format json` says of the packages that it was asked about; `unknown`: what
    it was not. ValueError for what is no such answer."""
    found = msgspec.json.decode(answer, type=_Answer)
    left, made, judged = dict(asked), list[Vulnerability](), 0
    why = dict(unknown or {})
    for one in found.dependencies:
        name = canonical(one.name)
        if one.skip_reason is not None or one.version is None:
            why[name] = (one.skip_reason or "pip-audit has no version of it")[:300]
            continue
        judged += 1
        pin = _asked(name, one.version, left)
        source = left.pop(pin) if pin else None
        made += [
            Vulnerability(
                package=name,
                version=pin.version if pin else one.version,
                vuln_id=vuln.id,
                aliases=sorted(vuln.aliases),
                fix_versions=list(vuln.fix_versions),
                description=vuln.description or None,
                requirement=source,
            )
            for vuln in one.vulns
        ]
    for pin in left:
        why.setdefault(pin.name, "pip-audit said nothing of it")
    return Audited(vulnerabilities=made, unknown=why, judged=judged)


def _asked(name: str, version: str, asked: Mapping[Pin, str]) -> Pin | None:
    """The pin that is meant: pip-audit writes versions in their normal form, `1.0-1` as
    `1.0.post1`."""
    if (pin := Pin(name, version)) in asked:
        return pin
    others = [one for one in asked if one.name == name]
    return others[0] if len(others) == 1 else None


def incomplete(audited: Audited, folder: str) -> dict[str, Any]:
    """As PythonDepAuditIncomplete has it."""
    listed = dict(sorted(audited.unknown.items())[:MOST_LISTED])
    return {
        "folder": folder,
        "unknown": listed,
        "count": len(audited.unknown),
        "audited": audited.judged,
    }
