"""Errors of the producers layer. Each keeps its facts as attributes.

ProducerError
├── Refused            the agent would not take an event
├── UnknownProducer    no entry point has this name
├── Unavailable        the producer cannot run on this machine
├── OptionError        an option of a producer is unknown, or its value is wrong
├── NotOurs            a file is not what `opsmesh install` wrote, and is left alone
├── Unusable           a file cannot be read or written for an installation
├── BrokenWiring       a wiring says what cannot be done
└── NotNow             a tool can be wired here, but something else has to happen first
"""

from __future__ import annotations

from collections.abc import Iterable


class ProducerError(Exception):
    """Something a producer, or the process that runs it, cannot go on with."""


class Refused(ProducerError):
    """The agent refused an event; sending it again would change nothing."""

    def __init__(self, topic: str, event_id: str, reason: str) -> None:
        super().__init__(f"{topic} ({event_id}) refused: {reason}")
        self.topic = topic
        self.event_id = event_id
        self.reason = reason


class UnknownProducer(ProducerError):
    """No entry point of group `opsmesh.producers` has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = sorted(known)
        super().__init__(f"no producer {name!r}; there are {', '.join(self.known) or 'none'}")


class Unavailable(ProducerError):
    """The producer says why it cannot run here."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"producer {name} cannot run here: {reason}")
        self.name = name
        self.reason = reason


class OptionError(ProducerError):
    """An option given to a producer is unknown, or its value is wrong."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"option {option}: {reason}")
        self.option = option
        self.reason = reason


class NotOurs(ProducerError):
    """A file that an installation would overwrite or delete is not as opsmesh wrote it; `diff` is
    what somebody has changed, where that is known."""

    def __init__(self, path: str, reason: str, *, diff: str = "") -> None:
        super().__init__(f"{path} {reason}; nothing was changed. --force goes on, and keeps a copy")
        self.path = path
        self.reason = reason
        self.diff = diff


class Unusable(ProducerError):
    """A file that an installation needs cannot be read or written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason


class BrokenWiring(ProducerError):
    """What a plug-in of the group `opsmesh.wirings` says makes no sense, or it raises."""

    def __init__(self, tool: str, reason: str) -> None:
        super().__init__(f"the wiring of {tool} is broken: {reason}")
        self.tool = tool
        self.reason = reason


class NotNow(ProducerError):
    """Something else has to happen first; `hint` says what."""

    def __init__(self, why: str, *, hint: str) -> None:
        super().__init__(why)
        self.hint = hint
