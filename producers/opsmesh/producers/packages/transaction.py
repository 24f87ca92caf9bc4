"""A transaction, as every package manager's log tells it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Protocol

Operation = Literal["install", "upgrade", "downgrade", "reinstall", "remove", "purge"]
#: `cut`: the log goes on without its end; the package manager died.
Outcome = Literal["completed", "failed", "interrupted", "cut"]
#: Packages of one event, at most: it has to stay below a megabyte. The rest is counted.
MOST_PACKAGES: Final = 4000


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was done to one package."""

    name: str
    operation: Operation
    version: str | None = None
    old_version: str | None = None
    arch: str | None = None
    automatic: bool | None = None


@dataclass(kw_only=True)
class Transaction:
    """What was done at once. Times are RFC 3339."""

    manager: str
    outcome: Outcome = "completed"
    packages: list[Change] = field(default_factory=list)
    command: str | None = None
    requested_by: str | None = None
    error: str | None = None
    started_at: str | None = None
    completed_at: str | None = None

    @property
    def at(self) -> str | None:
        """When it was over, as far as the log says it."""
        return self.completed_at or self.started_at

    def payload(self) -> dict[str, Any]:
        """As PackageTxnCompleted has it."""
        packages = [_known(asdict(change)) for change in self.packages[:MOST_PACKAGES]]
        omitted = len(self.packages) - len(packages) or None
        return _known({**vars(self), "packages": packages, "omitted": omitted})


class Parser(Protocol):
    """Makes transactions out of a log's lines."""

    @property
    def manager(self) -> str:
        """Whose log it is."""
        ...

    @property
    def open(self) -> bool:
        """A transaction has begun, and not ended."""
        ...

    @property
    def resting(self) -> bool:
        """Nothing of what was fed matters for what comes."""
        ...

    def feed(self, line: str) -> Transaction | None:
        """Take the next line; the transaction that ends with it, or that it shows to be cut."""
        ...


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
