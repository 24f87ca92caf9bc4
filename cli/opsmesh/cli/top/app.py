"""The screen of `top`: the list of the view that is looked at, the lines around it, and the keys.

The one rule: events come as fast as they like, the screen is drawn ten times a second at most, and
only what is seen of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult, ScreenStackError
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Input, Static

from opsmesh.cli.dlq.settle import Act
from opsmesh.cli.dlq.text import numbers
from opsmesh.cli.top import head, keys, themes
from opsmesh.cli.top.doing import Doing, NotDone
from opsmesh.cli.top.filters import Filter
from opsmesh.cli.top.listing import Listing
from opsmesh.cli.top.lists.approvals import Approvals
from opsmesh.cli.top.lists.events import Events
from opsmesh.cli.top.lists.letters import Letters
from opsmesh.cli.top.lists.mesh import Mesh
from opsmesh.cli.top.lists.producers import Producers
from opsmesh.cli.top.lists.profiles import Profiles
from opsmesh.cli.top.lists.runs import Runs
from opsmesh.cli.top.rows import Rows
from opsmesh.cli.top.screens import Ask, Details, Help, Said
from opsmesh.cli.top.sieve import Sieve
from opsmesh.cli.view.model import View
from opsmesh.handlers.runs.approvals import Open, Verdict
from opsmesh.router.deadletter import Letter
from opsmesh.schemas import times

#: Looks a second at whether something has changed: the screen is drawn no more often.
LOOKS: Final = 10
#: Seconds before following is begun anew after a fault that nobody foresaw.
AGAIN_S: Final = 1.0
#: Seconds for which a person is told what became of something; what went wrong stays longer.
SAID_S, WRONG_S = 4.0, 12.0


class Top(App[None]):
    """All of it. `follow` keeps the view, for ever; `look` has it look at once what was done."""

    CSS = """
    Screen { layout: vertical; }
    #state, #trouble, #tabs, #foot { height: 1; }
    #trouble { display: none; }
    #prompt { display: none; border: none; height: 1; padding: 0 1; background: $background; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(n), f"view({n - 1})", show=False) for n in range(1, 8)),
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("ctrl+d,pagedown,ctrl+f", "page(1)", show=False),
        Binding("ctrl+u,pageup,ctrl+b", "page(-1)", show=False),
        Binding("g,home", "first", show=False),
        Binding("G,end", "last", show=False),
        Binding("enter,l", "open", show=False),
        Binding("escape", "leave", show=False),
        Binding("slash", "prompt('/')", show=False),
        Binding("colon", "prompt(':')", show=False),
        Binding("space", "pause", show=False),
        Binding("y", "answer('granted')", show=False),
        Binding("n", "answer('denied')", show=False),
        Binding("r", "settle('retry')", show=False),
        Binding("d", "settle('drop')", show=False),
        Binding("R", "settle('retry', True)", show=False),
        Binding("D", "settle('drop', True)", show=False),
        Binding("f", "lead", show=False),
        Binding("question_mark", "help", show=False),
        Binding("q", "quit", show=False),
        Binding("ctrl+z", "suspend_process", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(
        self,
        view: View,
        doing: Doing,
        *,
        follow: Callable[[], Awaitable[None]] | None = None,
        look: Callable[[], None] = lambda: None,
        theme: str = "ansi-dark",
        start: str = "events",
        wanted: str = "",
    ) -> None:
        super().__init__()
        for own in themes.OWN:
            self.register_theme(own)
        self.ansi_theme_light, self.ansi_theme_dark = themes.WHITE, themes.BLACK
        self.theme = theme
        self.view = view
        self.listings: Sequence[Listing] = (
            *(Events(), Profiles(), Runs(), Letters(), Approvals(), Producers(), Mesh()),
        )
        self.listing: Listing = next(one for one in self.listings if one.name == start)
        self._wanted = {one.name: Filter() for one in self.listings}
        self._wanted[start] = Filter(wanted)
        self._doing, self._follow, self._look = doing, follow, look
        self._drawn = (-1, -1)
        self._before = Filter()
        self._seen_seq = 0
        self._sieve = Sieve()

    def compose(self) -> ComposeResult:
        yield Static(id="state")
        yield Static(id="trouble")
        yield Static(id="tabs")
        yield Rows(self.listing)
        yield Static(id="foot")
        yield Input(id="prompt", select_on_focus=False)

    def on_mount(self) -> None:
        self.rows.focus()
        self.set_interval(1 / LOOKS, self.look)
        if self._follow is not None:
            self.run_worker(self._followed(self._follow), exit_on_error=False)
        self.draw()

    def on_resize(self) -> None:
        self.draw()

    async def _followed(self, follow: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await follow()
            except Exception as error:
                self.notify(
                    f"{type(error).__name__}: {error}; looking again",
                    severity="error",
                    markup=False,
                )
            await asyncio.sleep(AGAIN_S)

    @property
    def rows(self) -> Rows:
        """The list."""
        return self._base.query_one(Rows)

    @property
    def _base(self) -> Screen[Any]:
        return self.screen_stack[0]

    @property
    def wanted(self) -> Filter:
        """The filter of the view that is looked at."""
        return self._wanted[self.listing.name]

    def look(self) -> None:
        """Draw, when there is something else to be seen."""
        now = (self.view.version, times.now_us() // 1_000_000)
        with contextlib.suppress(NoMatches, ScreenStackError):  # a timer ends after its screen
            if now != self._drawn and not isinstance(self.screen, Details):
                self.draw()

    def draw(self, *, anew: bool = False) -> None:
        """Draw all of it; with `anew` also a list that is paused."""
        view, rows, now_us = self.view, self.rows, times.now_us()
        self._drawn = (view.version, now_us // 1_000_000)
        width = self.size.width
        self._line("state", head.state(view, width=width, now_us=now_us))
        trouble = head.trouble(view, width=width)
        self._line("trouble", trouble)
        self._base.query_one("#trouble").display = bool(trouble)
        self._line("tabs", head.tabs(self.listings, self.listing, view))
        every = self.listing.items(view)
        changed = rows.listing is not self.listing
        paused = self._pauses and not rows.following and not changed and bool(rows.items)
        if not paused or anew:
            items = self._sieve.through(self.listing, every, self.wanted)
            said = f"nothing matches {self.wanted.text}" if self.wanted and every else ""
            rows.show(self.listing, items, said=said)
            self._seen_seq = view.events[-1].seq if view.events else 0
        new = max(0, view.events[-1].seq - self._seen_seq) if paused and view.events else 0
        of = (len(rows.items), len(every))
        foot = head.foot(self.listing, self.wanted, of=of, width=width, new=new, paused=paused)
        self._line("foot", foot)

    @property
    def _pauses(self) -> bool:
        """Whether the view stands still while somebody reads in it: events run away otherwise."""
        return isinstance(self.listing, Events)

    def _line(self, name: str, text: Text) -> None:
        self._base.query_one(f"#{name}", Static).update(text)

    # Moving

    def action_view(self, number: int) -> None:
        """Look at the view of that number, from wherever."""
        if isinstance(self.screen, Details):
            self.pop_screen()
        self.listing = self.listings[number]
        self.draw(anew=True)

    def action_turn(self, by: int) -> None:
        self.action_view((self.listings.index(self.listing) + by) % len(self.listings))

    def action_move(self, by: int) -> None:
        self.rows.move(by)

    def action_page(self, by: int) -> None:
        self.rows.move(by * self.rows.page)

    def action_first(self) -> None:
        self.rows.to(0)

    def action_last(self) -> None:
        self.rows.to(len(self.rows.items))

    def action_pause(self) -> None:
        """Stand still, or go on with the newest."""
        if not self.rows.following:
            self.action_last()
        elif self._pauses:
            self.rows.following = False
            self.draw()

    def on_rows_moved(self) -> None:
        self.draw()

    def on_rows_opened(self) -> None:
        self.action_open()

    def action_leave(self) -> None:
        """Take the filter away; go on with the newest."""
        if self.wanted:
            self._want("")
        elif not self.rows.following:
            self.action_last()

    # Looking

    def action_open(self) -> None:
        """Tell all of the row at the cursor."""
        if (item := self.rows.current) is not None:
            self.run_worker(self._open(self.listing, item))

    async def _open(self, listing: Listing, item: Any) -> None:
        if isinstance(item, Letter):
            item = await self._doing.whole(item)
        key = listing.key(item)
        newest = [item]

        def tell(writer: Any) -> None:
            if not isinstance(item, Letter):
                found = (one for one in listing.items(self.view) if listing.key(one) == key)
                newest[0] = next(found, newest[0])
            listing.tell(writer, newest[0], self.view)

        own = [pair for pair in listing.keys if pair[0] != "space"]
        pairs = (*own, ("j k", "move"), ("esc", "back"))
        line = Text()
        for name, does in pairs:
            line.append_text(Text.assemble("  ", (name, "bold"), (f" {does}", "dim")))
        self.push_screen(Details(f"{listing.name} · {listing.title(item)}", tell, keys=line))

    def action_lead(self) -> None:
        """Look at what belongs to the row, in the view that has it."""
        item = self.rows.current
        if item is None:
            return
        name, words = self.listing.leads(item)
        if words:
            self._wanted[name] = Filter(words)
            self.action_view([one.name for one in self.listings].index(name))

    def action_help(self) -> None:
        self.push_screen(Help(keys.text()))

    def action_prompt(self, kind: str) -> None:
        """Take a filter, or a view's name."""
        if isinstance(self.screen, Details):
            self.pop_screen()
        prompt = self._base.query_one("#prompt", Input)
        self._before = self.wanted
        with self.prevent(Input.Changed):
            prompt.value = kind + (self.wanted.text if kind == "/" else "")
        prompt.cursor_position = len(prompt.value)
        prompt.display = True
        self._base.query_one("#foot").display = False
        prompt.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id != "prompt":
            return
        if not event.value:  # its first character was taken away
            self._close()
        elif event.value.startswith("/"):
            self._want(event.value[1:])

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id != "prompt":
            return
        said = event.value
        self._close()
        if said.startswith(":"):
            self._command(said[1:].strip().lower())

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape" and self._base.query_one("#prompt").has_focus:
            event.stop()
            event.prevent_default()
            self._close()
            self._want(self._before.text)

    def _close(self) -> None:
        self._base.query_one("#prompt").display = False
        self._base.query_one("#foot").display = True
        self.rows.focus()

    def _command(self, name: str) -> None:
        if name in ("q", "quit"):
            self.exit()
            return
        found = [n for n, one in enumerate(self.listings) if name and one.name.startswith(name)]
        if found:
            self.action_view(found[0])
        elif name:
            names = ", ".join(one.name for one in self.listings)
            self._wrong(f"no view {name!r}; there are {names}")

    def _want(self, text: str) -> None:
        self._wanted[self.listing.name] = Filter(text)
        self.draw(anew=True)

    # Doing

    def action_answer(self, verdict: Verdict) -> None:
        """Ask for a comment, then answer the question at the cursor."""
        item = self.rows.current
        if not isinstance(item, Open):
            return
        yes = verdict == "granted"
        ask = Ask(
            f"{'Yes' if yes else 'No'} to {item.run.profile}?",
            item.asked.prompt,
            does="says yes" if yes else "says no",
            schema=item.asked.schema if yes else None,
        )

        def said(what: Said | None) -> None:
            if what is not None:
                self._do(
                    self._doing.answer(
                        item.asked.id, verdict, comment=what.comment, value=what.value
                    )
                )

        self.push_screen(ask, said)

    def action_settle(self, act: Act, every: bool = False) -> None:
        """Ask whether it is meant, then send the letter at the cursor again, or give it up; or
        every letter that the filter shows."""
        item = self.rows.current
        if not isinstance(item, Letter):
            return
        letters: Sequence[Letter] = list(self.rows.items) if every else [item]
        again = act == "retry"
        which = numbers([one.seq for one in letters])
        names = sorted({one.profile for one in letters})
        of = names[0] if len(names) == 1 else f"{len(names)} profiles"
        ask = Ask(
            f"Send {which} to {of} again?" if again else f"Give {which} of {of} up?",
            f"{item.topic}: {item.reason}" if len(letters) == 1 else "all that are shown",
            does="sends again, as the profile is today" if again else "gives up",
        )

        def said(what: Said | None) -> None:
            if what is not None:
                seqs = [one.seq for one in letters]
                self._do(self._doing.settle(seqs, act, comment=what.comment))

        self.push_screen(ask, said)

    def _do(self, work: Coroutine[Any, Any, str]) -> None:
        async def done() -> None:
            try:
                self.notify(await work, timeout=SAID_S, markup=False)
            except NotDone as error:
                self._wrong(str(error))
            self._look()

        if isinstance(self.screen, Details):
            self.pop_screen()
        self.run_worker(done())

    def _wrong(self, text: str) -> None:
        self.notify(text, severity="error", timeout=WRONG_S, markup=False)
