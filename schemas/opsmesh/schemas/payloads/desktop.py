"""desktop.*: what the compositor and the session tell. Ground: Hyprland's socket2, logind."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc


class DesktopWorkspaceChanged(Payload, frozen=True, kw_only=True):
    """Another workspace is in front."""

    workspace: Annotated[str, doc("name of the workspace now in front")]
    workspace_id: Annotated[int | None, doc("the compositor's number; negative for named ones")] = (
        None
    )
    monitor: Annotated[str | None, doc("monitor that shows it, like DP-1")] = None
    special: Annotated[bool | None, doc("whether it is a special (scratchpad) workspace")] = None
    previous: Annotated[str | None, doc("name of the workspace left")] = None


class DesktopWindowFocusChanged(Payload, frozen=True, kw_only=True):
    """Another window, or none, has the keyboard."""

    window_class: Annotated[str, doc("application class; empty when no window has the focus")]
    title: Annotated[str | None, doc("window title, as far as the compositor sends it")] = None
    address: Annotated[str | None, doc("the compositor's window address, hexadecimal")] = None
    workspace: Annotated[str | None, doc("workspace of the window")] = None


class DesktopMonitorLayoutChanged(Payload, frozen=True, kw_only=True):
    """A monitor came, went, moved or changed its mode."""

    change: Annotated[
        Literal["added", "removed", "moved", "reconfigured"], doc("what happened to the monitor")
    ]
    monitor: Annotated[str, doc("output name, like HDMI-A-1")]
    description: Annotated[str | None, doc("make, model and serial as the monitor says")] = None
    monitor_id: Annotated[int | None, doc("the compositor's number")] = None
    workspace: Annotated[str | None, doc("workspace that moved to the monitor")] = None
    width: Annotated[int | None, doc("pixels")] = None
    height: Annotated[int | None, doc("pixels")] = None
    refresh_hz: Annotated[float | None, doc("refresh rate, hertz")] = None
    scale: Annotated[float | None, doc("scale factor")] = None
    x: Annotated[int | None, doc("left edge in the layout, pixels")] = None
    y: Annotated[int | None, doc("top edge in the layout, pixels")] = None
    transform: Annotated[
        int | None, doc("rotation: wl_output's number, 0 to 3 for 0 to 270 degrees, 4 to 7 flipped")
    ] = None


class DesktopIdleLocked(Payload, frozen=True, kw_only=True):
    """The session was locked or unlocked, or the machine went to sleep or woke up."""

    locked: Annotated[bool, doc("whether the session is locked now")] = True
    state: Annotated[
        Literal["locked", "unlocked", "sleeping", "woke"] | None,
        doc("what happened; sleeping and woke leave `locked` as it was"),
    ] = None
    cause: Annotated[str | None, doc("who saw it first: hypridle, logind, sleep")] = None
    session: Annotated[str | None, doc("logind session, like c1")] = None
    idle_s: Annotated[float | None, doc("seconds without input before the lock")] = None


class DesktopSessionReloaded(Payload, frozen=True, kw_only=True):
    """The compositor read its configuration again."""

    compositor: Annotated[str, doc("name of the compositor")] = "hyprland"
    errors: Annotated[list[str] | None, doc("configuration errors that it reports")] = None
    restarted: Annotated[
        bool | None, doc("whether it is another run of the compositor, not a reload by the same")
    ] = None


TOPICS: Final = (
    Topic(
        "desktop.workspace.changed",
        payload=DesktopWorkspaceChanged,
        owner="hyprland",
        severity="info",
        description="Another workspace is in front.",
        example={"workspace": "2", "workspace_id": 2, "monitor": "DP-1", "previous": "1"},
    ),
    Topic(
        "desktop.window.focus.changed",
        payload=DesktopWindowFocusChanged,
        owner="hyprland",
        severity="info",
        description="Another window has the keyboard.",
        example={"window_class": "kitty", "title": "nvim app.py", "address": "55c1f6a4c2d0"},
    ),
    Topic(
        "desktop.monitor.layout.changed",
        payload=DesktopMonitorLayoutChanged,
        owner="hyprland",
        severity="info",
        description="A monitor was added, removed, moved or changed its mode.",
        example={
            "change": "added",
            "monitor": "HDMI-A-1",
            "monitor_id": 1,
            "description": "Dell Inc. DELL U2720Q",
        },
    ),
    Topic(
        "desktop.idle.locked",
        payload=DesktopIdleLocked,
        owner="hypridle",
        severity="info",
        description="The session was locked or unlocked, or the machine slept or woke.",
        example={"locked": True, "state": "locked", "cause": "hypridle", "session": "c1"},
    ),
    Topic(
        "desktop.session.reloaded",
        payload=DesktopSessionReloaded,
        owner="hyprland",
        severity="info",
        description="The compositor read its configuration again.",
        example={"compositor": "hyprland"},
    ),
)
