"""package.*: the system's packages (pacman, apt)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc


class PackageChange(Payload, frozen=True, kw_only=True):
    """What a transaction did to one package."""

    name: Annotated[str, doc("name of the package")]
    operation: Annotated[
        Literal["install", "upgrade", "downgrade", "reinstall", "remove", "purge"],
        doc("what was done"),
    ]
    version: Annotated[str | None, doc("version now installed; absent after a removal")] = None
    old_version: Annotated[str | None, doc("version before")] = None
    arch: Annotated[str | None, doc("architecture, like amd64")] = None
    automatic: Annotated[
        bool | None, doc("not asked for: another package needs it (apt, at an installation)")
    ] = None


class PackageTxnCompleted(Payload, frozen=True, kw_only=True):
    """A transaction of the package manager came to its end."""

    manager: Annotated[str, doc("package manager: pacman, apt")]
    packages: Annotated[list[PackageChange], doc("what was done to each package")]
    command: Annotated[str | None, doc("command line that asked for it")] = None
    started_at: Annotated[str | None, doc("begin as the log has it, RFC 3339")] = None
    completed_at: Annotated[str | None, doc("end as the log has it, RFC 3339")] = None
    outcome: Annotated[
        Literal["completed", "failed", "interrupted", "cut"] | None,
        doc("how it ended; cut: the log goes on without its end, the package manager died"),
    ] = None
    error: Annotated[str | None, doc("why it failed, where the log says it")] = None
    requested_by: Annotated[str | None, doc("who asked, like dev (1000) (apt)")] = None
    omitted: Annotated[int | None, doc("packages left out of `packages`, of very many")] = None


class PackageVulnDetected(Payload, frozen=True, kw_only=True):
    """An installed package has a known vulnerability."""

    manager: Annotated[str, doc("package manager: pacman, apt")]
    package: Annotated[str, doc("name of the package")]
    version: Annotated[str, doc("installed version")]
    vuln_id: Annotated[str, doc("id of the advisory, like CVE-2026-1234 or AVG-2843")]
    severity: Annotated[str | None, doc("severity as the advisory has it")] = None
    fix_version: Annotated[str | None, doc("first version that is not affected")] = None
    fixed: Annotated[bool | None, doc("whether a version that is not affected can be had")] = None
    status: Annotated[
        str | None, doc("status as the advisory has it, like Vulnerable, Fixed, Testing (pacman)")
    ] = None
    issues: Annotated[list[str] | None, doc("the CVEs of an advisory that has several")] = None
    summary: Annotated[str | None, doc("what it is about")] = None
    remote: Annotated[bool | None, doc("whether it can be exploited over the network")] = None
    url: Annotated[str | None, doc("page of the advisory")] = None


class PackageCheckCompleted(Payload, frozen=True, kw_only=True):
    """What works after a transaction, and what does not."""

    problems: Annotated[int, doc("failed commands, new failed units and missing libraries")]
    transaction: Annotated[str, doc("id of the transaction's event")]
    manager: Annotated[str | None, doc("package manager: pacman, apt")] = None
    commands: Annotated[list[str] | None, doc("commands that failed")] = None
    units: Annotated[list[str] | None, doc("units that failed since")] = None
    libraries: Annotated[int | None, doc("binaries that miss a library")] = None
    leftovers: Annotated[list[str] | None, doc("configuration to be merged, like .pacnew")] = None
    bundle: Annotated[str | None, doc("id of the evidence bundle")] = None
    report: Annotated[str | None, doc("path of its report on that host")] = None


class PackageBreakageSuspected(Payload, frozen=True, kw_only=True):
    """Something broke soon after a transaction; that is no proof."""

    transaction: Annotated[str, doc("id of the transaction's event")]
    broken: Annotated[str, doc("id of the event that tells what broke")]
    unit: Annotated[str | None, doc("unit that failed")] = None
    packages: Annotated[list[str] | None, doc("packages of the transaction")] = None


TOPICS: Final = (
    Topic(
        "package.txn.completed",
        payload=PackageTxnCompleted,
        owner="packages",
        severity="info",
        description="A transaction of the package manager came to its end.",
        example={
            "manager": "pacman",
            "command": "pacman -Syu",
            "packages": [
                {
                    "name": "hello",
                    "operation": "upgrade",
                    "version": "1.2-1",
                    "old_version": "1.0-1",
                }
            ],
        },
    ),
    Topic(
        "package.vuln.detected",
        payload=PackageVulnDetected,
        owner="packages",
        description="An installed package has a known vulnerability.",
        example={
            "manager": "pacman",
            "package": "openssl",
            "version": "3.3.1-1",
            "vuln_id": "AVG-2855",
            "issues": ["CVE-2024-5535"],
            "severity": "Medium",
            "status": "Fixed",
            "fixed": True,
            "fix_version": "3.3.1-2",
        },
    ),
    Topic(
        "package.check.completed",
        payload=PackageCheckCompleted,
        owner="opsmesh",
        severity="info",
        description="What works after a transaction, and what does not.",
        example={
            "problems": 1,
            "transaction": "01a205fc-ddc4-7221-a64d-3394619e70d8",
            "manager": "pacman",
            "libraries": 1,
            "leftovers": ["/etc/pacman.conf.pacnew"],
        },
    ),
    Topic(
        "package.breakage.suspected",
        payload=PackageBreakageSuspected,
        owner="opsmesh",
        severity="warn",
        description="Something broke soon after a transaction.",
        example={
            "transaction": "01a205fc-ddc4-7221-a64d-3394619e70d8",
            "broken": "01a205fd-12aa-7d01-8a44-0d6a6a0a3b11",
            "unit": "backup.service",
            "packages": ["openssl"],
        },
    ),
)
