"""Nothing of ours reaches the notebook: what goes wrong here is counted, and told by `health`."""

from __future__ import annotations

import contextlib
import functools
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Function = TypeVar("Function", bound=Callable[..., Any])

#: Failures after which we do nothing more in this process.
PATIENCE = 20


class Count:
    """The failures of this process, and the first one's words. `told` is called at the first."""

    def __init__(self) -> None:
        self.failures = 0
        self.first = ""
        self.told: Callable[[], None] = lambda: None

    def add(self, where: str, error: BaseException) -> None:
        """One more; never raises."""
        self.failures += 1
        if not self.first:
            self.first = f"{where}: {type(error).__name__}: {error}"[:500]
            with contextlib.suppress(Exception):
                self.told()


#: One for the process.
COUNT = Count()


def off() -> bool:
    """Whether somebody said that we do nothing, or we have failed too often."""
    return os.environ.get("OPSMESH_MARIMO") == "0" or COUNT.failures >= PATIENCE


def guarded(function: Function) -> Function:
    """The function, whose failures are counted and become None. What interrupts a notebook
    (KeyboardInterrupt) passes, as it would without us."""

    @functools.wraps(function)
    def inner(*arguments: Any, **named: Any) -> Any:
        if off():
            return None
        try:
            return function(*arguments, **named)
        except Exception as error:  # noqa: BLE001, RUF100 (whatever it is)
            COUNT.add(function.__name__, error)
            return None

    return inner  # type: ignore[return-value]
