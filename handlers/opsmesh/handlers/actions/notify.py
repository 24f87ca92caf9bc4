"""`notify`: tell a person, on the desktop with buttons, or anywhere else.

    notify: "${{ event.payload.unit }} failed"
    notify: {title: "${{ event.payload.unit }} failed", actions: [approve, deny, open_evidence]}

What an event holds is shown as text: without markup, controls and secrets, and cut to a size.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field

from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.spec import Duration, Spec, Text
from opsmesh.handlers.desktop import targets, text
from opsmesh.handlers.desktop.board import Board
from opsmesh.handlers.desktop.notice import ANSWERS, LABELS, Button, Notice, Urgency
from opsmesh.handlers.errors import DesktopAway, HandlersError, TemplateError
from opsmesh.handlers.template import Template
from opsmesh.router.settings_notify import TARGET_NAME, is_reference
from opsmesh.schemas.nearest import did_you_mean

#: The target that is not in the settings.
DESKTOP: Final = "desktop"
#: Under which key the board is shared by the steps of a process.
SHARED: Final = "desktop"
#: Buttons that are any use to a person.
MAX_BUTTONS: Final = 6

# a name of a theme, or a file that the profile names: never what an event says
_ICON = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}|/[^\x00\n]{1,1023}")
_PROFILE = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class OwnButton(Spec):
    """A button that runs another profile with this event."""

    label: Annotated[str, Field(min_length=1, max_length=40)]
    trigger: Annotated[str, Field(pattern=_PROFILE, description="A profile's name.")]


def _button(value: Any) -> Any:
    if isinstance(value, str) and value not in LABELS:
        known = ", ".join(LABELS)
        raise ValueError(
            f"{value!r} is no button{did_you_mean(value, LABELS)}; there are {known}, and "
            "{label: …, trigger: PROFILE}"
        )
    return value


def _icon(value: str) -> str:
    if not _ICON.fullmatch(value):
        raise ValueError(f"{value!r} is neither an icon's name nor an absolute path")
    return value


def _target(value: str) -> str:
    if re.fullmatch(TARGET_NAME, value) or is_reference(value):
        return value
    if "://" in value:
        raise ValueError(
            "an address holds secrets: name it under notify.targets in config.yaml, or write "
            '${{ secret("name") }}'
        )
    raise ValueError(f"{value!r} is no name of a target")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


#: One of the buttons that everybody knows, or one's own.
AnyButton = Annotated[str | OwnButton, BeforeValidator(_button)]


class NotifySpec(Spec):
    """The value of `notify`, written out."""

    title: Annotated[Text, Field(min_length=1)]
    body: Text = ""
    urgency: Urgency = "normal"
    actions: Annotated[
        list[AnyButton],
        BeforeValidator(_listed),
        Field(
            max_length=MAX_BUTTONS,
            description="Buttons: approve, deny, false_positive, open_evidence, or a mapping of "
            "`label` and `trigger`, a profile that is run with this event.",
        ),
    ] = Field(default_factory=list)
    group: Annotated[
        Text | None,
        Field(description="A later one takes the place of the one before. Default: the title."),
    ] = None
    timeout: Annotated[
        Duration | None, Field(ge=0, le=86400, description="0s: it stays. Default: the desktop's.")
    ] = None
    icon: Annotated[str, AfterValidator(_icon)] = "dialog-information"
    to: Annotated[
        list[Annotated[str, AfterValidator(_target)]],
        BeforeValidator(_listed),
        Field(min_length=1, description="`desktop`, or names of notify.targets in config.yaml."),
    ] = Field(default_factory=lambda: [DESKTOP])


class Notify:
    """Shows one notice; done when whoever shows it has it."""

    key: ClassVar[str] = "notify"
    spec: ClassVar[type[NotifySpec]] = NotifySpec

    def __init__(self, spec: NotifySpec) -> None:
        self._spec = spec
        self._title, self._body = Template(spec.title), Template(spec.body)
        self._group = None if spec.group is None else Template(spec.group)
        self._buttons = tuple(_made(n, one) for n, one in enumerate(spec.actions))

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a title alone, or a mapping with `title`."""
        return cls(NotifySpec.model_validate({"title": value} if isinstance(value, str) else value))

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults."""
        return self._spec.model_dump(mode="json")

    async def run(self, ctx: StepContext) -> StepResult:
        """Show it; where its profile has said too much of late it is counted, and no failure."""
        try:
            notice = self._notice(ctx)
        except TemplateError as error:
            return StepResult(ok=False, output={}, error=str(error), retryable=False)
        board = await shared(ctx)
        held = board.admit(notice)
        if held is None:
            return StepResult(ok=True, output={"shown": False, "held_back": True, "sent": []})
        output: dict[str, Any] = {"shown": False, "held_back": False, "sent": []}
        errors: list[str] = []
        retryable = False
        for target in dict.fromkeys(self._spec.to):
            try:
                if target == DESKTOP:
                    output |= await _on_desktop(board, notice, held)
                else:
                    await _elsewhere(ctx, board, notice, held, target)
                    output["sent"].append(_called(target))
            except DesktopAway as away:
                errors.append(f"{DESKTOP}: {away}")
                retryable |= away.retryable
            except HandlersError as error:
                errors.append(f"{_called(target)}: {error}")
                retryable |= getattr(error, "retryable", False)
        if not (output["shown"] or output["sent"]):
            board.take_back(notice, held)
        return StepResult(
            ok=not errors,
            output={**output, "failed": errors},
            error="; ".join(errors) or None,
            retryable=retryable,
        )

    def _notice(self, ctx: StepContext) -> Notice:
        def redact(path: str, value: str) -> str:
            return ctx.redactor.text(value, context=ctx.place, path=path)

        title = text.title(
            self._title.render_text(ctx.variables), lambda value: redact("$.title", value)
        )
        body = text.body(
            self._body.render_text(ctx.variables), lambda value: redact("$.body", value)
        )
        answers = any(button.does in ANSWERS for button in self._buttons)
        if self._group is not None:
            group = text.clean(self._group.render_text(ctx.variables))
        elif answers:  # another run's answer must not take the place of this one's
            group = f"{ctx.run_id}:{ctx.step_id}"
        else:
            group = f"{ctx.profile}:{title}"
        timeout = 0.0 if self._spec.timeout is None and answers else self._spec.timeout
        return Notice(
            title=title or ctx.profile,
            body=body,
            urgency=self._spec.urgency,
            icon=self._spec.icon,
            timeout_ms=-1 if timeout is None else round(timeout * 1000),
            group=group[:500],
            once=ctx.idempotency_key,
            profile=ctx.profile,
            run_id=ctx.run_id,
            step=ctx.step_id,
            buttons=self._buttons,
        )


async def shared(ctx: StepContext) -> Board:
    """The board of this process; in a rehearsal one without buttons."""

    async def make() -> Board:
        settings = await asyncio.to_thread(ctx.shared.settings.get)
        return await Board.plain(settings.notify.per_minute)

    return await ctx.shared.get(SHARED, make)


async def _on_desktop(board: Board, notice: Notice, held: int) -> dict[str, Any]:
    shown = await board.show(notice, held=held)
    return {
        "shown": True,
        "by": shown.by,
        "id": shown.id,
        "count": shown.count,
        "buttons": list(shown.buttons),
        "inhibited": shown.inhibited,
    }


async def _elsewhere(
    ctx: StepContext, board: Board, notice: Notice, held: int, target: str
) -> None:
    if board.was_sent(notice.once, target):
        return
    if is_reference(target):
        url = ctx.secrets.fill(target)
    else:
        known = (await asyncio.to_thread(ctx.shared.settings.get)).notify.targets
        if target not in known:
            near = did_you_mean(target, [DESKTOP, *known])
            raise targets.TargetFailed(f"notify.targets in config.yaml has no {target!r}{near}")
        url = ctx.secrets.fill(known[target])
    await targets.send(url, notice, held=held, redact=ctx.redactor)
    board.note_sent(notice.once, target)


def _called(target: str) -> str:
    """A target's name, and of one that is a secret that it is one."""
    return "a secret" if is_reference(target) else target


def _made(number: int, button: str | OwnButton) -> Button:
    if isinstance(button, OwnButton):
        return Button(
            key=f"trigger-{number}",
            label=text.clean(button.label),
            does="trigger",
            target=button.trigger,
        )
    return Button(key=button, label=LABELS[button], does=button)  # type: ignore[arg-type]
