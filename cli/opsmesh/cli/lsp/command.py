"""`opsmesh lsp`: a language server behind a proxy, at the price of starting Python.

An editor calls it instead of the server, and waits: so its arguments are read here, and the
standard library's smallest parts alone are imported before the server starts.
"""

from __future__ import annotations

import os

from opsmesh.producers.lsp import relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

#: The call is wrong, as every command says it.
USAGE = 2
_SWITCHES = {"--list": "list", "--json": "json", "--no-save": "no_save", "-h": "help"}
_SWITCHES |= {"--help": "help"}
_VALUED = {"--editor": "editor", "--name": "name"}


class Wrong(Exception):
    """The call makes no sense; the text says why."""


class Call:
    """The arguments of one call, taken apart."""

    def __init__(self) -> None:
        self.texts = {"editor": "", "name": ""}
        self.said: set[str] = set()
        self.server: list[str] = []


def main(argv: Sequence[str]) -> int:
    """Run `opsmesh lsp`; returns only where there is no server to become."""
    try:
        call = parse(argv)
    except Wrong as wrong:
        _say(2, f"error: {wrong}\nopsmesh lsp --help\n")
        return USAGE
    if "help" in call.said:
        from opsmesh.cli.lsp.help import HELP

        _say(1, HELP)
        return 0
    if "list" in call.said:
        from opsmesh.cli.lsp.listing import show

        return show(json="json" in call.said)
    command, parent = call.server[0], os.getppid()

    def observe(records: int) -> None:
        from opsmesh.producers.lsp import observer

        observer.main(
            records,
            editor=call.texts["editor"],
            server=call.texts["name"],
            command=command,
            parent=parent,
        )

    return relay.begin(call.server, ask_for_saves="no_save" not in call.said, observe=observe)


def run(argv: Sequence[str]) -> NoReturn:
    """Run `opsmesh lsp`, and end the process."""
    os._exit(main(argv))


def parse(argv: Sequence[str]) -> Call:
    """Take the arguments apart; Wrong."""
    call = Call()
    rest = list(reversed(argv))
    while rest:
        argument = rest.pop()
        name, equals, value = argument.partition("=")
        if argument == "--":
            call.server = list(reversed(rest))
            break
        if argument in _SWITCHES:
            call.said.add(_SWITCHES[argument])
        elif name in _VALUED:
            if not equals:
                if not rest:
                    raise Wrong(f"{name} wants a value")
                value = rest.pop()
            call.texts[_VALUED[name]] = value
        elif argument.startswith("-"):
            raise Wrong(f"no option {name}")
        else:
            raise Wrong(f"the server goes behind --: opsmesh lsp -- {argument} …")
    if call.said & {"help", "list"}:
        return call
    if "json" in call.said:
        raise Wrong("--json goes with --list")
    if not call.server:
        raise Wrong("SERVER is missing: opsmesh lsp -- SERVER [ARGS ...]")
    return call


def _say(file: int, text: str) -> None:
    try:
        os.write(file, text.encode(errors="replace"))
    except OSError:
        return
