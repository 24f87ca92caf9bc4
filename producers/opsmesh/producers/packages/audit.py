"""Known vulnerabilities of installed packages, as the distribution's own tool tells them.

A tool that fails has found nothing out: that is never taken for "clean".
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Seconds that a tool may take: both fetch their data over the network.
LIMIT: Final = 120.0
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_DEBSECAN: Final = re.compile(r"(?P<id>[A-Z]+-[\w-]+) (?P<package>\S+)(?: \((?P<notes>[^()]*)\))?")


class AuditError(Exception):
    """The tool could not say; its own words say why."""


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
    url: str | None = None

    @property
    def key(self) -> str:
        """What makes it the same one; another version or a fix makes it news."""
        return f"{self.manager} {self.package} {self.version} {self.vuln_id} {self.fixed}"

    def payload(self) -> dict[str, Any]:
        """As PackageVulnDetected has it."""
        return {name: value for name, value in vars(self).items() if value is not None}


def tool() -> str | None:
    """The tool that is here."""
    return next((name for name in TOOLS if shutil.which(name)), None)


def ask(name: str, options: Sequence[str] = ()) -> list[Vulnerability]:
    """Everything that the tool knows of what is installed; AuditError when it cannot tell."""
    arguments, parse = TOOLS[name]
    if name == "debsecan" and not options:
        options = _debian()
    output = _run([name, *arguments, *options])
    return list(parse(output))


def _arch_audit(output: str) -> Iterator[Vulnerability]:
    versions = _versions(["pacman", "-Q"])
    for line in _ANSI.sub("", output).splitlines():
        package, *facts = line.split("\t")
        ids, severity, fixed = [*facts, "", "", ""][:3]
        for one in filter(None, (part.strip() for part in ids.split(","))):
            yield Vulnerability(
                manager="pacman",
                package=package,
                version=versions.get(package, ""),
                vuln_id=one,
                severity=severity or None,
                fix_version=fixed or None,
                fixed=bool(fixed),
                url=f"https://security.archlinux.org/{one}",
            )


def _debsecan(output: str) -> Iterator[Vulnerability]:
    versions = _versions(["dpkg-query", "-W", "-f", "${Package} ${Version}\n"])
    for line in output.splitlines():
        found = _DEBSECAN.fullmatch(line.strip())
        if found is None:
            continue
        notes = (found["notes"] or "").split(", ")
        urgency = next((n.removesuffix(" urgency") for n in notes if n.endswith("urgency")), None)
        yield Vulnerability(
            manager="apt",
            package=found["package"],
            version=versions.get(found["package"], ""),
            vuln_id=found["id"],
            severity=urgency,
            fixed="fixed" in notes,
            url=f"https://security-tracker.debian.org/tracker/{found['id']}",
        )


def _debian() -> list[str]:
    """What can be mended: a Debian has some thousand known issues that wait for a fix."""
    with contextlib.suppress(OSError):
        if codename := platform.freedesktop_os_release().get("VERSION_CODENAME"):
            return ["--suite", codename, "--only-fixed"]
    return []


#: Each tool's arguments, and how its answer is read: arch-audit(1) and debsecan(1).
TOOLS: Final[dict[str, tuple[list[str], Callable[[str], Iterator[Vulnerability]]]]] = {
    "arch-audit": (["-f", "%n\t%c\t%s\t%v"], _arch_audit),
    "debsecan": (["--format", "summary"], _debsecan),
}


def _versions(command: list[str]) -> dict[str, str]:
    """Installed versions by package."""
    pairs = (line.split(" ", 1) for line in _run(command).splitlines() if " " in line)
    return {name: version.strip() for name, version in pairs}


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            ["nice", "-n", "19", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=True,
        )
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode("utf-8", "replace").strip().splitlines()
        raise AuditError(f"{command[0]}: {words[-1] if words else error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuditError(f"{command[0]}: {error}") from error
    return done.stdout.decode("utf-8", "replace")
