"""Changes of single keys in a TOML text, each within the section of its table.

A library that edits a whole document puts tables of one parent together, and users write theirs
between others. So the text is cut at its headers; a part is a document of its own, in which a
library changes values with comments and form kept; and the other parts stay as they are.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

#: A line that may be a header; one within an array of arrays looks like one, too.
_HEADER: Final = re.compile(r"^[ \t]*\[.*\][ \t]*(?:#.*)?\r?$", re.MULTILINE)


def split(text: str) -> list[str]:
    """The text in parts that are documents of their own: what stands before the first header, and
    each header with what follows it. ValueError where it cannot be cut so."""
    starts = [found.start() for found in _HEADER.finditer(text)]
    parts, begin = [], 0
    for end in [*starts, len(text)]:
        if _loads(text[begin:end]) is None:
            continue  # in the midst of a value: the next one may be a header
        parts.append(text[begin:end])
        begin = end
    if begin != len(text):
        raise ValueError("it cannot be cut into its tables")
    return parts


def edit(text: str, table: str, name: str, keys: Mapping[str, Any]) -> str | None:
    """The text with these keys of `[table.name]` set, or taken out where they are None; None when
    the table has no place of its own. ValueError as `split`."""
    parts = split(text)
    found = [n for n, part in enumerate(parts) if _entry(part, table, name) is not None]
    if not found:
        return None
    for key, value in keys.items():
        having = [n for n in found if key in (_entry(parts[n], table, name) or {})]
        if having:
            parts[having[0]] = _changed(parts[having[0]], table, name, key, value)
        elif value is not None:
            own = [n for n in found if _opens(parts[n], table, name)]
            if own:
                parts[own[0]] = _inserted(parts[own[0]], key, value)
            else:
                inline = [n for n in found if not _HEADER.match(parts[n]) or _is(parts[n], table)]
                if not inline:
                    return None
                parts[inline[0]] = _changed(parts[inline[0]], table, name, key, value)
    return "".join(parts)


def drop(text: str, table: str, name: str) -> str | None:
    """The text without a `[table.name]` that is empty; None when it has no header of its own."""
    parts = split(text)
    for number, part in enumerate(parts):
        if _opens(part, table, name) and _entry(part, table, name) == {}:
            parts[number] = part.partition("\n")[2]
            return "".join(parts)
    return None


def _changed(part: str, table: str, name: str, key: str, value: Any) -> str:
    import tomlkit

    document = tomlkit.parse(part)
    entry: Any = document[table]
    entry = entry[name]
    if value is None:
        del entry[key]
    else:
        entry[key] = value
    return tomlkit.dumps(document)


def _inserted(part: str, key: str, value: Any) -> str:
    """Right behind the header: behind the table's last line there may be a comment of the next."""
    import tomlkit

    head, _, rest = part.partition("\n")
    end = "\r\n" if head.endswith("\r") else "\n"
    line = tomlkit.dumps({key: value}).rstrip("\n")
    return f"{head.removesuffix(chr(13))}{end}{line}{end}{rest}"


def _entry(part: str, table: str, name: str) -> dict[str, Any] | None:
    found = (_loads(part) or {}).get(table)
    entry = found.get(name) if isinstance(found, dict) else None
    return entry if isinstance(entry, dict) else None


def _opens(part: str, table: str, name: str) -> bool:
    """Whether the part's header is that of this very table."""
    return _loads(part.partition("\n")[0]) == {table: {name: {}}}


def _is(part: str, table: str) -> bool:
    return _loads(part.partition("\n")[0]) == {table: {}}


def _loads(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
