"""What arch-audit and debsecan answer. Pure: a text in, vulnerabilities out.

An answer of which a part cannot be understood is no complete one: `Found.odd` counts those parts,
and then nothing that was known before may be taken for mended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.producers.packages import versions

#: Advisories of the two distributions.
ARCH_URL: Final = "https://security.archlinux.org/"
DEBIAN_URL: Final = "https://security-tracker.debian.org/tracker/"
#: What arch-audit says of an advisory whose mended package is in the repositories.
FIXED: Final = "Fixed"

_TITLE: Final = re.compile(r"(?P<id>[A-Z]+-[\w-]+)(?: \((?P<notes>[^()]*)\))?")
_INSTALLED: Final = re.compile(r"  installed: (?P<name>\S+) (?P<version>\S+)")
_BUILT: Final = re.compile(r"             \(built from (?P<name>\S+) (?P<version>\S+)\)")
_MENDED: Final = re.compile(
    r"  fixed (?:in unstable:|on branch:  ) \S+ (?P<version>\S+) \((?P<kind>\w+) package\)"
)


@dataclass(frozen=True, kw_only=True)
class Vulnerability:
    """One advisory about one installed package."""

    manager: str
    package: str
    version: str
    vuln_id: str
    severity: str | None = None
    fix_version: str | None = None
    fixed: bool | None = None
    status: str | None = None
    issues: list[str] | None = None
    summary: str | None = None
    remote: bool | None = None
    url: str | None = None

    @property
    def key(self) -> str:
        """What makes it the same one; another version, or another status, makes it news."""
        state = self.status or self.fixed
        return f"{self.manager} {self.package} {self.version} {self.vuln_id} {state}"

    def payload(self) -> dict[str, Any]:
        """As PackageVulnDetected has it."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Found:
    """An answer; `odd`: its parts that could not be understood."""

    vulnerabilities: list[Vulnerability]
    odd: int = 0


def of_arch_audit(output: str, installed: Mapping[str, str]) -> Found:
    """`arch-audit --json`: what concerns this machine, without the versions that it has.

    Not its text: that sums up all advisories of a package, and gives each the worst one's severity.
    ValueError for what is no such list.
    """
    listed = json.loads(output)
    if not isinstance(listed, list):
        raise ValueError("no list")  # noqa: TRY004
    made, odd = [], 0
    for advisory in listed:
        try:
            vuln_id, status, issues = advisory["name"], advisory["status"], advisory["issues"]
            severity, fix = advisory["severity"], advisory["fixed"]
            texts = [vuln_id, status, severity, fix or "", *issues, *advisory["packages"]]
            packages = [(name, installed[name]) for name in advisory["packages"]]
        except (KeyError, TypeError):
            odd += 1
            continue
        if not vuln_id or not all(isinstance(text, str) for text in texts):
            odd += 1
            continue
        made += [
            Vulnerability(
                manager="pacman",
                package=name,
                version=version,
                vuln_id=vuln_id,
                severity=severity,
                fix_version=fix or None,
                fixed=status == FIXED,
                status=status,
                issues=list(issues) or None,
                summary=advisory["type"] if isinstance(advisory.get("type"), str) else None,
                url=ARCH_URL + vuln_id,
            )
            for name, version in packages
        ]
    return Found(made, odd)


def of_debsecan(output: str) -> Found:
    """`debsecan --format detail`: paragraphs of a title, a summary, and indented facts."""
    made, odd = [], 0
    for paragraph in output.split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if lines == [""]:
            continue
        if (one := _debian(lines)) is None:
            odd += 1
        else:
            made.append(one)
    return Found(made, odd)


def _debian(lines: list[str]) -> Vulnerability | None:
    """The summary is anybody's text: what a line says is told by its place first."""
    if len(lines) < 4:
        return None
    title, installed, built = (
        _TITLE.fullmatch(lines[0]),
        _INSTALLED.fullmatch(lines[2]),
        _BUILT.fullmatch(lines[3]),
    )
    if title is None or installed is None or built is None:
        return None
    notes = (title["notes"] or "").split(", ")
    urgency = next((n.removesuffix(" urgency") for n in notes if n.endswith(" urgency")), None)
    fixed = "fixed" in notes
    return Vulnerability(
        manager="apt",
        package=installed["name"],
        version=installed["version"],
        vuln_id=title["id"],
        severity=urgency,
        fix_version=_next(lines[4:], installed["version"], built["version"]) if fixed else None,
        fixed=fixed,
        summary=lines[1].strip() or None,
        remote=True if "remotely exploitable" in notes else None,
        url=DEBIAN_URL + title["id"],
    )


def _next(lines: list[str], binary: str, source: str) -> str | None:
    """The nearest version above the installed one, of those that mend it in some release."""
    above = [
        mended["version"]
        for mended in map(_MENDED.fullmatch, lines)
        if mended is not None
        and versions.key(mended["version"])
        > versions.key(binary if mended["kind"] == "binary" else source)
    ]
    return min(above, key=versions.key, default=None)
