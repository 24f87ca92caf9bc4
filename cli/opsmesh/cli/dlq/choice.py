"""Which letters: numbers, or filters that all have to let a letter through."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import typer
from nats.aio.client import Client

from opsmesh.cli.dlq import groups
from opsmesh.cli.events import moment
from opsmesh.router import deadletter
from opsmesh.router.deadletter import Letter
from opsmesh.router.topic_patterns import topic_matches


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the options of a command say; a reason in slashes is a regular expression."""

    profile: str | None = None
    topic: str | None = None
    host: str | None = None
    since: str | None = None
    until: str | None = None
    reason: str | None = None
    event: str | None = None
    run: str | None = None
    group_key: str | None = None

    @property
    def filters(self) -> bool:
        """Whether anything is left out."""
        return self != Choice()

    async def letters(self, client: Client, *, bodies: bool = False) -> AsyncIterator[Letter]:
        """The letters that all filters let through, oldest first."""
        until_us = moment(self.until)
        tests = self._tests()
        async for letter in deadletter.letters(
            client, profile=self.profile, since_us=moment(self.since), bodies=bodies
        ):
            if until_us is not None and letter.stored_us >= until_us:
                return
            if all(test(letter) for test in tests):
                yield letter

    def _tests(self) -> list[Callable[[Letter], bool]]:
        topic, host, event, run, group_key = (
            self.topic,
            self.host,
            self.event,
            self.run,
            self.group_key,
        )
        tests: list[Callable[[Letter], bool]] = []
        if topic is not None:
            tests.append(lambda letter: topic_matches(topic, letter.topic))
        if host is not None:
            tests.append(lambda letter: letter.host == host)
        if self.reason is not None:
            tests.append(_says(self.reason))
        if event is not None:
            tests.append(lambda letter: letter.event_id.startswith(event))
        if run is not None:
            tests.append(lambda letter: letter.run_id.startswith(run))
        if group_key is not None:
            tests.append(lambda letter: groups.key(letter) == group_key)
        return tests


def _says(reason: str) -> Callable[[Letter], bool]:
    """A test of the reason: text, in any case, or `/regular expression/`."""
    if len(reason) > 1 and reason.startswith("/") and reason.endswith("/"):
        try:
            pattern = re.compile(reason[1:-1])
        except re.error as error:
            raise typer.BadParameter(
                f"--reason {reason} is no regular expression: {error}"
            ) from error
        return lambda letter: pattern.search(letter.reason) is not None
    wanted = reason.casefold()
    return lambda letter: wanted in letter.reason.casefold()
