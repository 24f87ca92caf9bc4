"""Helix's languages.toml with its language servers behind the proxy, and without it again.

Pure: texts in, texts out. Helix lays the user's file over its own, key by key down to a server's
`command` and `args` (`merge_toml_values`, depth 3): so these two keys are all that is written, and
what the user configures beside them stays in force. The one rule: what comes out is read again, and
has to say exactly what was meant, or nothing is written.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from opsmesh.producers.errors import Unusable
from opsmesh.producers.helix import sections
from opsmesh.producers.helix.servers import DEFAULTS

_Way = Callable[[str], str | None]

#: The table of servers in languages.toml.
TABLE: Final = "language-server"
#: How the proxy's path ends, wherever the user's data are.
PROXY: Final = "/opsmesh/helix-lsp"
#: Stands before the servers that are written at the end of the file.
HEADING: Final = "# Behind the proxy of opsmesh: opsmesh install helix"


def put(text: str, *, path: str, proxy: str, wanted: Collection[str]) -> str:
    """The file with these servers, and no others, behind `proxy`, a program."""
    if set(behind(text, path=path)) - set(wanted):
        text = take(text, "", path=path)
    meant = parse(text, path)
    users = servers(parse(text, path), path)
    for name in wanted:
        command = command_of(users, name)
        if not command or command[0] == proxy:
            continue
        made: dict[str, Any] = {"command": proxy}
        if not command[0].endswith(PROXY):  # else it is ours, and has moved
            made["args"] = ["--name", name, "--", *command]
        meant.setdefault(TABLE, {}).setdefault(name, {}).update(made)
        ways = (
            lambda text, name=name, made=made: sections.edit(text, TABLE, name, made),
            lambda text, name=name, made=made: _appended(text, name, made),
            lambda text, name=name, made=made: _anyhow(text, name, made),
        )
        text = _first(text, ways, meant, path)
    return text


def take(now: str, before: str, *, path: str) -> str:
    """The file without the proxy; `before` is what it was put into."""
    meant, old = parse(now, path), parse(before, path)
    users, text = servers(old, path), now
    for name in behind(now, path=path):
        entry = dict(meant[TABLE][name])
        keys = _theirs(name, entry, users)
        made = {**entry, **keys}
        meant[TABLE][name] = {key: value for key, value in made.items() if value is not None}
        gone = not meant[TABLE][name] and name not in users
        if gone:
            del meant[TABLE][name]
            if not meant[TABLE] and TABLE not in old:
                del meant[TABLE]
        ways = (
            lambda text, name=name, entry=entry: _without_block(text, name, entry),
            lambda text, name=name, keys=keys, gone=gone: _without_keys(text, name, keys, gone),
            lambda text, name=name, keys=keys: _anyhow(text, name, keys),
        )
        text = _first(text, ways, meant, path)
    text = _without_heading(text)
    if _comments(now) - {HEADING} - _comments(text):
        raise _unsafe(path)  # it would take a comment of the user's with it
    return text


def _theirs(
    name: str, entry: Mapping[str, Any], users: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What `command` and `args` are to be without us; None: absent."""
    command, known, old = _unwrapped(entry), users.get(name), command_of(users, name)
    if known is None:
        if not command or tuple(command) == DEFAULTS.get(name):
            return {"command": None, "args": None}
        return {"command": command[0], "args": command[1:]}  # it has been written since
    if command == old or not command:
        return {"command": known.get("command"), "args": known.get("args")}
    return {
        "command": command[0] if "command" in known or command[:1] != old[:1] else None,
        "args": command[1:],
    }


def _without_block(text: str, name: str, entry: Mapping[str, Any]) -> str:
    """Without the lines that we wrote for a server, where they stand as we wrote them."""
    end = "\r\n" if "\r\n" in text else "\n"
    block = end.join(_block(name, entry)) + end
    head, found, rest = text.partition(block)
    if not found or not (not head or head.endswith(end)):
        return text
    # the empty line behind a block is ours, too
    return head + (
        rest.removeprefix(end) if not head or head.endswith(end * 2) or not rest else rest
    )


def behind(text: str, *, path: str) -> list[str]:
    """The servers that are behind the proxy."""
    found = servers(parse(text, path), path)
    return [name for name, one in found.items() if str(one.get("command")).endswith(PROXY)]


def parse(text: str, path: str) -> dict[str, Any]:
    """What the file says; Unusable where it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unusable(path, f"is no TOML: {error}") from error


def servers(document: Mapping[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """The servers that the file names."""
    found = document.get(TABLE, {})
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise Unusable(path, f"has a {TABLE} that is not what Helix knows by this name")
    return found


def command_of(users: Mapping[str, Mapping[str, Any]], name: str) -> list[str]:
    """How Helix starts this server; empty when nobody says."""
    entry, default = users.get(name, {}), DEFAULTS.get(name, ())
    command = entry.get("command", default[0] if default else "")
    args = entry.get("args", list(default[1:]))
    if not isinstance(command, str) or not command or not isinstance(args, list):
        return []
    return [command, *(str(one) for one in args)]


def _unwrapped(entry: Mapping[str, Any]) -> list[str]:
    args = [str(one) for one in entry.get("args", [])]
    return args[args.index("--") + 1 :] if "--" in args else []


def _first(text: str, ways: Sequence[_Way], meant: Mapping[str, Any], path: str) -> str:
    """The text as the first way makes it whose outcome says what is meant."""
    for way in ways:
        try:
            made = way(text)
        except (ValueError, LookupError, TypeError):  # a form that it is not for
            continue
        if made is not None and _says(made, meant):
            return made
    raise _unsafe(path)


def _without_keys(text: str, name: str, keys: Mapping[str, Any], gone: bool) -> str | None:
    made = sections.edit(text, TABLE, name, keys)
    return sections.drop(made, TABLE, name) if made is not None and gone else made


def _anyhow(text: str, name: str, keys: Mapping[str, Any]) -> str:
    """For forms that nobody writes: tables may change their places."""
    import tomlkit  # at an installation only

    document: Any = tomlkit.parse(text)
    table = document.setdefault(TABLE, {})
    entry = table.setdefault(name, {})
    for key, value in keys.items():
        if value is not None:
            entry[key] = value
        elif key in entry:
            del entry[key]
    if not entry:
        del table[name]
    if not table:
        del document[TABLE]
    return tomlkit.dumps(document)


def _appended(text: str, name: str, keys: Mapping[str, Any]) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    gap = "" if not text else end if text.endswith("\n") else end * 2
    heading = "" if HEADING in text else HEADING + end
    return text + gap + heading + end.join(_block(name, keys)) + end


def _block(name: str, keys: Mapping[str, Any]) -> list[str]:
    """A server as we write it, line by line."""
    import tomlkit

    shown = ", ".join(tomlkit.string(one).as_string() for one in keys["args"])
    return [
        f"[{TABLE}.{tomlkit.key(name).as_string()}]",
        f"command = {tomlkit.string(keys['command']).as_string()}",
        f"args = [{shown}]",
    ]


def _comments(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.lstrip().startswith("#")}


def _without_heading(text: str) -> str:
    """Our comment goes with the servers below it, and the empty line that was put before it."""
    head, found, rest = text.partition(HEADING)
    if not found:
        return text
    if rest.strip():
        return head + rest.lstrip("\r").removeprefix("\n")
    return head.rstrip() + ("\n" if head.strip() else "")


def _says(text: str, meant: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == meant
    except tomllib.TOMLDecodeError:
        return False


def _unsafe(path: str) -> Unusable:
    return Unusable(
        path, f"is written in a way that cannot be edited safely; its {TABLE} can by hand"
    )


def names(users: Mapping[str, Any], runs: Callable[[str], bool]) -> Sequence[str]:
    """Who goes behind the proxy when nobody chooses: the servers that the user's file starts, and
    those of Helix's own that are here."""
    theirs = [name for name, entry in users.items() if "command" in entry]
    return [*theirs, *(one for one, it in DEFAULTS.items() if one not in theirs and runs(it[0]))]
