"""What is shown to a person, and what its buttons are to do."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Urgency = Literal["low", "normal", "critical"]
#: What a button does.
Does = Literal["approve", "deny", "false_positive", "open_evidence", "trigger"]
#: Buttons that answer a question: their notice is done with then.
ANSWERS: Final[tuple[Does, ...]] = ("approve", "deny")
#: What stands on the buttons that everybody knows.
LABELS: Final[dict[str, str]] = {
    "approve": "Approve",
    "deny": "Deny",
    "false_positive": "False positive",
    "open_evidence": "Open evidence",
}


class Button(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One button; `key` is what the daemon says of it, `target` the profile that it triggers."""

    key: str
    label: str
    does: Does
    target: str = ""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to show, its texts cleaned and redacted. A later one of the same `group` takes its
    place; one with the same `once` is the same one again. `question` is the approval that it asks
    for, where it asks for one."""

    title: str
    body: str = ""
    urgency: Urgency = "normal"
    icon: str = ""
    timeout_ms: int = -1
    group: str
    once: str
    profile: str
    run_id: str = ""
    step: str = ""
    question: str = ""
    buttons: tuple[Button, ...] = ()

    @property
    def resident(self) -> bool:
        """Whether it has to stay when a button is pressed: the answer is another one."""
        kinds = {button.does in ANSWERS for button in self.buttons}
        return len(kinds) > 1


class Shown(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A notice that was put on the screen `at_us`, under an id of that bus's daemon, and how many
    of its group there were. One that `expired` left it by itself: nobody has waved it away."""

    notice: Notice
    id: int = 0
    at_us: int = 0
    expired: bool = False
    bus: str = ""
    owner: str = ""
    count: int = 1
