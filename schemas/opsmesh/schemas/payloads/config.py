"""config.*: dotfiles and their managers (chezmoi, yadm, stow, git)."""

from __future__ import annotations

from typing import Annotated, Final

from opsmesh.schemas.topics import Payload, Topic, doc

_Tool = Annotated[str, doc("dotfile manager: chezmoi, yadm, stow, git")]
_Argv = Annotated[list[str] | None, doc("the command as it was started")]
_Duration = Annotated[float | None, doc("run time, milliseconds")]


class ConfigChangeDetected(Payload, frozen=True, kw_only=True):
    """Files of the dotfiles' source changed."""

    paths: Annotated[list[str], doc("files that changed")]
    tool: Annotated[str | None, doc("manager of the source folder")] = None
    source_dir: Annotated[str | None, doc("the source folder")] = None
    changes: Annotated[int | None, doc("changes seen while the folder was quiet again")] = None


class ConfigApplyStarted(Payload, frozen=True, kw_only=True):
    """The manager begins to write the configuration."""

    tool: _Tool
    argv: _Argv = None
    source_dir: Annotated[str | None, doc("the source folder")] = None
    revision: Annotated[str | None, doc("commit of the source")] = None


class ConfigApplyCompleted(Payload, frozen=True, kw_only=True):
    """The manager has written the configuration."""

    tool: _Tool
    argv: _Argv = None
    paths: Annotated[list[str] | None, doc("files that were written, where the tool says")] = None
    revision: Annotated[str | None, doc("commit of the source")] = None
    duration_ms: _Duration = None


class ConfigApplyFailed(Payload, frozen=True, kw_only=True):
    """The manager could not write the configuration."""

    tool: _Tool
    exit_code: Annotated[int | None, doc("exit status; absent when a signal ended it")] = None
    signal: Annotated[str | None, doc("signal that ended it")] = None
    argv: _Argv = None
    message: Annotated[str | None, doc("what the tool said")] = None
    output_tail: Annotated[str | None, doc("end of its output")] = None
    paths: Annotated[list[str] | None, doc("files in conflict, where the tool says")] = None
    phase: Annotated[
        str | None, doc("validation: a check failed, and nothing was applied; apply: the command")
    ] = None
    check: Annotated[list[str] | None, doc("the check that failed")] = None
    duration_ms: _Duration = None


class ConfigDriftDetected(Payload, frozen=True, kw_only=True):
    """What lies in the home folder is no longer what the source says."""

    tool: _Tool
    paths: Annotated[list[str], doc("files that differ; empty: none does any more")]
    source_dir: Annotated[str | None, doc("the source folder")] = None
    states: Annotated[dict[str, str] | None, doc("the tool's state letters by file")] = None


class ConfigFailureRecorded(Payload, frozen=True, kw_only=True):
    """What explains a failed apply is collected."""

    tool: _Tool
    phase: Annotated[str | None, doc("validation: nothing was applied; apply")] = None
    good: Annotated[str | None, doc("commit that was applied well last")] = None
    changed: Annotated[list[str] | None, doc("files that were changed since")] = None
    bundle: Annotated[str | None, doc("id of the evidence bundle")] = None
    report: Annotated[str | None, doc("path of its report on that host")] = None


class ConfigRollbackDecided(Payload, frozen=True, kw_only=True):
    """What became of a rollback that was offered."""

    tool: _Tool
    verdict: Annotated[str, doc("what the person said: granted, denied, expired")]
    rolled_back: Annotated[bool, doc("whether the files were put back")] = False
    verified: Annotated[bool, doc("whether they are what was applied well, and checks pass")] = (
        False
    )
    to: Annotated[str | None, doc("commit that they are of")] = None
    before: Annotated[str | None, doc("ref that keeps what was there before")] = None
    why: Annotated[str | None, doc("why not, where it was not")] = None


TOPICS: Final = (
    Topic(
        "config.change.detected",
        payload=ConfigChangeDetected,
        owner="dotfiles",
        severity="info",
        description="Files of the dotfiles' source changed.",
        example={
            "paths": ["/home/dev/dots/bash/.bashrc"],
            "tool": "stow",
            "source_dir": "/home/dev/dots",
        },
    ),
    Topic(
        "config.apply.started",
        payload=ConfigApplyStarted,
        owner="dotfiles",
        severity="info",
        description="The dotfile manager begins to apply.",
        example={"tool": "chezmoi", "argv": ["chezmoi", "apply"]},
    ),
    Topic(
        "config.apply.completed",
        payload=ConfigApplyCompleted,
        owner="dotfiles",
        severity="info",
        description="The dotfile manager has applied the configuration.",
        example={"tool": "chezmoi", "argv": ["chezmoi", "apply"], "duration_ms": 412.5},
    ),
    Topic(
        "config.apply.failed",
        payload=ConfigApplyFailed,
        owner="dotfiles",
        description="The dotfile manager could not apply the configuration.",
        example={
            "tool": "stow",
            "exit_code": 1,
            "argv": ["stow", "-v", "zsh"],
            "output_tail": "WARNING! stowing zsh would cause conflicts:\n"
            "  * existing target is neither a link nor a directory: .zshrc\n",
            "paths": [".zshrc"],
        },
    ),
    Topic(
        "config.drift.detected",
        payload=ConfigDriftDetected,
        owner="dotfiles",
        severity="warn",
        description="The home folder differs from the dotfiles' source.",
        example={"tool": "yadm", "paths": [".vimrc"], "states": {".vimrc": " M"}},
    ),
    Topic(
        "config.failure.recorded",
        payload=ConfigFailureRecorded,
        owner="opsmesh",
        severity="info",
        description="What explains a failed apply is collected.",
        example={"tool": "chezmoi", "phase": "apply", "changed": ["dot_zshrc"]},
    ),
    Topic(
        "config.rollback.decided",
        payload=ConfigRollbackDecided,
        owner="opsmesh",
        severity="info",
        description="What became of a rollback that was offered.",
        example={
            "tool": "chezmoi",
            "verdict": "granted",
            "rolled_back": True,
            "verified": True,
            "before": "refs/opsmesh/before/01a205fc-ddc4-7221-a64d-3394619e70d8",
        },
    ),
)
