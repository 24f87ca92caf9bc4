"""shell.*: the desktop shell (Quickshell), and commands under `opsmesh exec`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from opsmesh.schemas.topics import Payload, Topic, doc


class ShellActionInvoked(Payload, frozen=True, kw_only=True):
    """Someone used a control of the desktop shell."""

    action: Annotated[str, doc("name of the action, as the shell's configuration calls it")]
    detail: Annotated[str | dict[str, Any] | None, doc("what the control passed along")] = None
    widget: Annotated[str | None, doc("control that was used")] = None


class ShellWorkflowTriggered(Payload, frozen=True, kw_only=True):
    """Someone asked the shell for a workflow; profiles listen for its name."""

    workflow: Annotated[str, doc("name of the workflow")]
    args: Annotated[dict[str, Any] | None, doc("arguments by name")] = None


class ShellWidgetError(Payload, frozen=True, kw_only=True):
    """A widget of the desktop shell failed to load or threw."""

    widget: Annotated[str, doc("component or file of the widget")]
    message: Annotated[str, doc("error text")]
    path: Annotated[str | None, doc("QML file")] = None
    line: Annotated[int | None, doc("line in the file, from 1")] = None


class ShellCommandFailed(Payload, frozen=True, kw_only=True):
    """A command under `opsmesh exec` ended badly."""

    argv: Annotated[list[str], doc("the command as it was started")]
    exit_code: Annotated[int | None, doc("exit status; absent when a signal ended it")] = None
    signal: Annotated[str | None, doc("signal that ended it, like SIGSEGV")] = None
    cwd: Annotated[str | None, doc("folder it ran in")] = None
    duration_ms: Annotated[float | None, doc("run time, milliseconds")] = None
    output_tail: Annotated[str | None, doc("end of its output, both streams as they came")] = None


TOPICS: Final = (
    Topic(
        "shell.action.invoked",
        payload=ShellActionInvoked,
        owner="quickshell",
        severity="info",
        description="A control of the desktop shell was used.",
        example={"action": "audio.mute", "detail": "toggle", "widget": "VolumeButton"},
    ),
    Topic(
        "shell.workflow.triggered",
        payload=ShellWorkflowTriggered,
        owner="quickshell",
        severity="info",
        description="A workflow was asked for from the desktop shell.",
        example={"workflow": "focus", "args": {"minutes": 50}},
    ),
    Topic(
        "shell.widget.error",
        payload=ShellWidgetError,
        owner="quickshell",
        description="A widget of the desktop shell failed to load or threw.",
        example={
            "widget": "BatteryWidget",
            "message": "TypeError: Cannot read property 'percentage' of null",
            "path": "/home/dev/.config/quickshell/Battery.qml",
            "line": 42,
        },
    ),
    Topic(
        "shell.command.failed",
        payload=ShellCommandFailed,
        owner="exec",
        description="A command under `opsmesh exec` exited with a status other than 0.",
        example={
            "argv": ["make", "release"],
            "cwd": "/home/dev/app",
            "exit_code": 2,
            "duration_ms": 5310.2,
            "output_tail": "make: *** [Makefile:12: release] Error 1\n",
        },
    ),
)
