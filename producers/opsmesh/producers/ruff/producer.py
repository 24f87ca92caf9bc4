"""The ruff producer: the projects of the configuration, each with what was found there last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opsmesh.producers import folders
from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, ProducerError
from opsmesh.producers.remembered import Remembered
from opsmesh.producers.ruff import program, telling
from opsmesh.producers.ruff.findings import FAILED, PASSED
from opsmesh.producers.ruff.watching import MAX_WAIT, SETTLE, Watching
from opsmesh.producers.troubles import Troubles
from opsmesh.router import paths
from opsmesh.schemas import durations


class Ruff:
    """See `contract.Producer`."""

    name = "ruff"
    description = "what ruff finds in the Python projects that you name"
    topics: Sequence[str] = (FAILED, PASSED)

    def __init__(
        self,
        *,
        path: str = "",
        settle: str = durations.text(SETTLE),
        max_wait: str = durations.text(MAX_WAIT),
    ) -> None:
        """Options as text.

        `path`: folders to watch, several with commas. `settle` and `max_wait`: when a burst of
        saves is over.
        """
        self._paths = folders.chosen(path)
        self._settle = _seconds("settle", settle)
        self._max_wait = _seconds("max_wait", max_wait)

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if not self._paths:
            return folders.unset(self.name)
        try:
            for path in self._paths:
                program.find(path)
        except program.NoRuff as error:
            return f"{error}"
        return None

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        remembered, troubles = Remembered(self.name), Troubles(self.name)
        remembered.resume(emit)

        def look(path: Path) -> None:
            self._look(path, remembered, emit)
            troubles.over(str(path))

        def failed(path: Path, error: ProducerError) -> None:
            why = f"{path} was not looked at, which does not mean clean: {error}"
            troubles.note(str(path), why)

        Watching(
            self._paths,
            look=look,
            failed=failed,
            settle=self._settle,
            max_wait=self._max_wait,
        ).run()

    def _look(self, path: Path, remembered: Remembered, emit: Emit) -> None:
        if not path.exists():
            raise ProducerError(f"{path} is not there")
        cache = Path(paths.state_dir(), "producers", self.name, "cache")
        found, _ = program.look([path], folder=path if path.is_dir() else path.parent, cache=cache)
        before = _keys(remembered.facts(str(path)))
        if found.keys() == before:
            return
        news = telling.news(before, found, path)
        remembered.keep(str(path), found=found.keys())
        if news:
            remembered.tell(news, emit)
        else:
            remembered.store()


def _keys(facts: Mapping[str, Any]) -> dict[str, int] | None:
    found = facts.get("found")
    if not isinstance(found, dict):
        return None
    return {str(key): count for key, count in found.items() if isinstance(count, int)}


def _seconds(option: str, value: str) -> float:
    try:
        return durations.parse(value)
    except ValueError as error:
        raise OptionError(option, str(error)) from error
