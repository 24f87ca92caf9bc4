"""What may be said of an agent's command, and how long a text may be.

The one rule: whoever makes an event of what an agent did asks here first. Standard library's
smallest parts only: `opsmesh agent-hook` imports this module.
"""

from __future__ import annotations

#: What is published of a command: all of it, its program, or nothing.
ARGV, PROGRAM, NONE = "argv", "program", "none"
POLICIES = (ARGV, PROGRAM, NONE)
#: Longest command and longest other text, in characters; what is longer is cut.
MAX_COMMAND, MAX_TEXT = 8192, 1024

#: Shells, by name: what follows their `-c` is the command that is meant.
_SHELLS = ("sh", "bash", "zsh", "fish", "dash", "ksh", "ash")
#: How Windows' and Unix' shells are told that a command follows, alone or with other letters.
_LOGIN = ("-c", "-lc", "-ic", "-lic", "-ilc")


def text(value: object, limit: int = MAX_TEXT) -> str | None:
    """A text that can be stored, cut; None for what is no text, or an empty one."""
    if not isinstance(value, str) or not value:
        return None
    value = value[:limit]
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may hold
        value = value.encode("utf-8", "replace").decode()
    return value


def command(value: object, policy: str) -> str | None:
    """What may be said of a shell's line."""
    line = text(value, MAX_COMMAND)
    if line is None or policy == NONE:
        return None
    return line if policy == ARGV else program(line)


def argv(words: object, policy: str) -> list[str]:
    """What may be said of a command as it was started."""
    made = [word for word in map(_word, words) if word] if isinstance(words, list) else []
    if policy == NONE or not made:
        return []
    if policy == PROGRAM:
        line = shell_line(made)
        return [made[0] if line is None else program(line) or made[0]]
    kept, room = [], MAX_COMMAND
    for word in made:
        if room <= 0:
            break
        kept.append(word[:room])
        room -= len(word)
    return kept


def shell_line(words: list[str]) -> str | None:
    """The text that a shell was given; None where no shell was."""
    if len(words) < 3 or words[1] not in _LOGIN:
        return None
    return words[2] if words[0].rpartition("/")[2] in _SHELLS else None


def program(line: str) -> str | None:
    """The first word of a shell's line that is no assignment: assignments hold secrets."""
    for word in line.split():
        name, equals, _ = word.partition("=")
        if not (equals and name.isidentifier()):
            return word.strip("'\"")
    return None


def _word(value: object) -> str | None:
    return text(value, MAX_COMMAND)
