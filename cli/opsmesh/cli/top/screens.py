"""What lies over the list: one item whole, a question before something is done, the keys."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, Static

from opsmesh.cli.output import Screen as Writer
from opsmesh.cli.output import shown

#: Seconds between looks at whether what is shown whole has changed.
LOOK_S: Final = 1.0
#: Keys by which a page is moved, as in less and in vi.
MOVES: Final[list[BindingType]] = [
    Binding("j,down", "move('down')", show=False),
    Binding("k,up", "move('up')", show=False),
    Binding("ctrl+d,pagedown,space,ctrl+f", "move('page_down')", show=False),
    Binding("ctrl+u,pageup,ctrl+b", "move('page_up')", show=False),
    Binding("g,home", "move('home')", show=False),
    Binding("G,end", "move('end')", show=False),
]


class Page(VerticalScroll):
    """Text that is moved by the keys of the screen it is on."""


class Details(Screen[None]):
    """One item, as the command that shows it prints it; told anew while it changes."""

    CSS = "Details Page { padding: 0 1; } Details .line { height: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        *MOVES,
        Binding("escape,q,h,left,backspace", "app.pop_screen", "back", show=False),
    ]

    def __init__(self, title: str, tell: Callable[[Writer], None], *, keys: Text) -> None:
        super().__init__()
        self._titled, self._tell, self._keys = title, tell, keys
        self._told = ""

    def compose(self) -> ComposeResult:
        yield Static(Text(f" {self._titled} ", "bold reverse"), classes="line")
        with Page():
            yield Static(id="told")
        yield Static(self._keys, classes="line")

    def on_mount(self) -> None:
        self.query_one(Page).focus()
        self.set_interval(LOOK_S, self.again)

    def on_resize(self) -> None:
        self.again()

    def again(self) -> None:
        """Tell it once more."""
        width = max(20, self.size.width - 4)
        writer = Writer(
            file=io.StringIO(),
            force_terminal=True,
            color_system="standard",
            no_color=False,
            width=width,
            highlight=False,
            legacy_windows=False,
        )
        self._tell(writer)
        told = writer.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
        if told != self._told:
            self._told = told
            self.query_one("#told", Static).update(Text.from_ansi(told))

    def action_move(self, where: str) -> None:
        getattr(self.query_one(Page), f"scroll_{where}")(animate=False)


@dataclass(frozen=True)
class Said:
    """What a person has said in a dialog."""

    comment: str
    value: Any = None


class Ask(ModalScreen[Said | None]):
    """Whether it is meant. Enter does it, Esc does not; None for no."""

    CSS = """
    Ask { align: center middle; }
    Ask > Vertical { width: 72; max-width: 95%; height: auto; max-height: 90%;
                     border: round $primary; padding: 0 1; background: $background; }
    Ask Static { height: auto; }
    Ask Input { border: none; height: 1; padding: 0; margin: 0 0 1 0; background: $panel; }
    Ask .hint { text-style: dim; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "no", show=False)]

    def __init__(
        self, title: str, text: str, *, does: str, schema: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self._titled, self._text, self._does, self._schema = title, text, does, schema

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(shown(self._titled), "bold"))
            yield Static(Text(f"{shown(self._text)}\n"))
            if self._schema is not None:
                told = json.dumps(self._schema, ensure_ascii=False)
                yield Static(Text(f"the value that is asked for, as JSON: {shown(told)}", "dim"))
                yield Input(id="value", placeholder='"main"')
            yield Static(Text("comment, for the record", "dim"))
            yield Input(id="comment", placeholder="may be empty")
            yield Static(id="wrong")
            yield Static(Text(f"enter {self._does} · esc back", "dim"))

    def on_mount(self) -> None:
        self.query(Input).first().focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        comment = self.query_one("#comment", Input)
        if event.input.id == "value" and not comment.value:
            comment.focus()
            return
        value = None
        if self._schema is not None:
            try:
                value = json.loads(self.query_one("#value", Input).value)
            except ValueError as error:
                wrong = Text(f'no JSON: {error}; a text stands in quotes: "main"', "red")
                self.query_one("#wrong", Static).update(wrong)
                self.query_one("#value", Input).focus()
                return
        self.dismiss(Said(comment.value.strip(), value))

    def action_no(self) -> None:
        self.dismiss(None)


class Help(ModalScreen[None]):
    """The keys."""

    CSS = """
    Help { align: center middle; }
    Help Page { width: 80; max-width: 100%; height: auto; max-height: 100%;
                border: round $primary; padding: 0 1; background: $background; }
    Help Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *MOVES,
        Binding("escape,q,question_mark,enter", "app.pop_screen", show=False),
    ]

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Page():
            yield Static(self._text)

    def on_mount(self) -> None:
        self.query_one(Page).focus()

    def action_move(self, where: str) -> None:
        getattr(self.query_one(Page), f"scroll_{where}")(animate=False)
