"""Errors of the handlers layer. Each keeps its facts as attributes.

HandlersError
├── ConfigError     a place in a file that a person wrote is wrong
├── TemplateError   a `${{ … }}` placeholder cannot be read or answered
├── Unstartable     a program cannot be started at all
├── Retry           an action asks for another attempt of its run
├── NotRunnable     a profile that a step wants to run is not there
├── Ask             an action asks a person, and is run again with the answer
├── DesktopAway     nothing can be shown to a person here
├── SecretMissing   a secret that is referred to is nowhere
├── AgentFault      an agent beyond the mesh cannot be used, or does not keep to the protocol
├── CallFailed      a tool of an MCP server was not called, or not well
├── InputWanted     a tool of an MCP server asks a person
├── TakenOver       another handler has gone on with this step
├── ArchiveDamaged  the evidence archive cannot be continued where it ends
├── SegmentDamaged  a compressed file of the archive cannot be read
├── SealError       the archive cannot be sealed, or its keys are not what they should be
├── ExtraMissing    something was asked for that an extra of the package brings
└── QueryError      a question to the archive that has no answer
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsmesh.handlers.actions.contract import Question
    from opsmesh.handlers.mcp.answer import Answer
    from opsmesh.handlers.mcp.elicit import Wanted


class HandlersError(Exception):
    """Something about profiles, or about running them."""


class ConfigError(HandlersError, ValueError):
    """A place in a configuration file is wrong. `line` and `column` count from 1."""

    def __init__(self, file: str, line: int, column: int, message: str, *, hint: str = "") -> None:
        super().__init__(f"{file}:{line}:{column}: {message}{f'; {hint}' if hint else ''}")
        self.file = file
        self.line = line
        self.column = column
        self.message = message
        self.hint = hint


class TemplateError(HandlersError, ValueError):
    """The placeholder `${{ expression }}` cannot be read, or has no answer for these values."""

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(f"${{{{ {expression} }}}}: {reason}")
        self.expression = expression
        self.reason = reason


class Unstartable(HandlersError):
    """The program of `argv` cannot be started; another attempt would end the same way."""

    def __init__(self, argv: tuple[str, ...], reason: str) -> None:
        super().__init__(reason)
        self.argv = argv
        self.reason = reason


class Retry(HandlersError):
    """Raised by an action that wants another attempt after `delay_s` seconds.

    None leaves the delay to the profile's retry policy. The attempt counts like a failed one.
    """

    def __init__(self, reason: str = "", *, delay_s: float | None = None) -> None:
        super().__init__(reason or "the action asked for another attempt")
        self.delay_s = delay_s


class NotRunnable(HandlersError):
    """The profile cannot be run from a step."""

    def __init__(self, profile: str, reason: str) -> None:
        super().__init__(f"profile {profile!r} cannot be run: {reason}")
        self.profile = profile


class Ask(HandlersError):
    """Raised by an action that cannot go on without a person.

    The run waits, without a place of its own, and across restarts. When the question has ended the
    action is run again in the same attempt, with `StepContext.saved` and `StepContext.replies`.
    """

    def __init__(self, question: Question) -> None:
        super().__init__(question.prompt)
        self.question = question


class DesktopAway(HandlersError):
    """There is no desktop, or it does not answer; `retryable`: it may be there later."""

    def __init__(self, reason: str, *, retryable: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable


class SecretMissing(HandlersError):
    """No source has the secret `name`."""

    def __init__(self, name: str, reason: str = "") -> None:
        super().__init__(f"there is no secret {name!r}" + (f": {reason}" if reason else ""))
        self.name = name
        self.reason = reason


class AgentFault(HandlersError):
    """The agent `agent` cannot be used; `retryable`: another attempt could end differently."""

    def __init__(self, agent: str, reason: str, *, retryable: bool = False, hint: str = "") -> None:
        super().__init__(f"agent {agent}: {reason}" + (f"; {hint}" if hint else ""))
        self.agent = agent
        self.reason = reason
        self.retryable = retryable
        self.hint = hint


class CallFailed(HandlersError):
    """A call of an MCP tool; `kind` is a key of the action's `on`, `answer` what came, if any."""

    def __init__(self, kind: str, reason: str, *, answer: Answer | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.answer = answer


class InputWanted(HandlersError):
    """A tool of an MCP server cannot go on without a person; `wanted` is what it asks."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(wanted.questions[0][1])
        self.wanted = wanted


class TakenOver(HandlersError):
    """Nothing may be started for this step any more: another handler has gone on with its run."""

    def __init__(self, path: str) -> None:
        super().__init__("another handler has taken this step over; nothing is started for it here")
        self.path = path


class ArchiveDamaged(HandlersError):
    """The archive cannot be continued: the end of its last `file` cannot be read."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(
            f"evidence {file}: {reason}; move the file away to continue without it, "
            "and see what is wrong: opsmesh evidence verify"
        )
        self.file = file
        self.reason = reason


class SegmentDamaged(HandlersError):
    """The compressed `file` cannot be read to its end; what came before is what was written."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(
            f"evidence {file} is damaged: {reason}; restore it from a copy, "
            "and see what else is wrong: opsmesh evidence verify"
        )
        self.file = file
        self.reason = reason


class SealError(HandlersError):
    """Nothing can be sealed, or a key cannot be used; the text says what a person can do."""


class ExtraMissing(HandlersError):
    """The `extra` of the package is not installed."""

    def __init__(self, extra: str, reason: str) -> None:
        super().__init__(
            f"this needs the extra {extra!r}, which is not installed here ({reason}); "
            f"install it: {sys.executable} -m pip install 'opsmesh[{extra}]', "
            "or in a checkout: make extras"
        )
        self.extra = extra


class MetricsNotServed(HandlersError):
    """The endpoint cannot listen there."""

    def __init__(self, address: str, port: int, reason: str) -> None:
        super().__init__(f"metrics cannot be served at {address}:{port}: {reason}")
        self.address = address
        self.port = port
        self.reason = reason
        self.hint = f"who listens there: ss -ltnp 'sport = :{port}'; another port: metrics.port"


class QueryError(HandlersError):
    """The database refuses the question, or cannot answer it; `hint` is what a person can do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
