"""Commands that documents and messages name, held against docs/cli.md."""

from __future__ import annotations

import re
import shlex

from opsmesh.cli.main import COMMANDS
from tests.house.checkout import TOP, files

#: Each command's section of docs/cli.md, by its name.
SECTIONS = {
    section.partition("\n")[0]: section.partition("\n")[2]
    for section in re.split(
        r"^#{3,5} (?=opsmesh)", (TOP / "docs" / "cli.md").read_text(), flags=re.MULTILINE
    )[1:]
}
GROUPS = {name for name, text in SECTIONS.items() if "COMMAND [ARGS]" in text}
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")

#: A call as documents show one: in a code span, after a prompt, or in an indented block.
CALL = re.compile(r"(?:`|\$ +|^    )(opsmesh(?: --hub)? [a-z][^`|;&#<>\n]*)", re.MULTILINE)


def wrong(call: str) -> str | None:
    """What of this call does not exist."""
    try:
        words = shlex.split(call)
    except ValueError:  # a quote that the document does not close
        words = call.split()
    words = [word for word in words[: [*words, "--"].index("--")] if word != "--hub"]
    name, rest = words[0], words[1:]
    while rest and f"{name} {rest[0]}" in SECTIONS:
        name = f"{name} {rest.pop(0)}"
    if name == "opsmesh":  # what only components call is in no help
        return None if COMMANDS[rest[0]].hidden else "the command"
    if name in GROUPS and rest and re.fullmatch(r"[a-z][a-z-]+", rest[0]):
        return f"the command {name} {rest[0]}"
    there = {
        option
        for section, text in SECTIONS.items()
        if section.startswith(name)
        for option in OPTION.findall(text)
    }
    shown = {found[0] for word in rest if (found := OPTION.match(word))}
    return ", ".join(sorted(shown - there - {"--help"})) or None


def test_commands_of_the_documents() -> None:
    """Every `opsmesh …` in the documents is a command that there is, with options that it has."""
    named = [
        (str(path.relative_to(TOP)), call)
        for path in files(".md")
        for call in CALL.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 500
    assert [(*pair, wrong(pair[1])) for pair in named if wrong(pair[1])] == []


def test_commands_of_the_messages() -> None:
    """Every subcommand that a message, a plug-in or a profile of ours names is there."""
    groups = sorted((group.removeprefix("opsmesh ") for group in GROUPS), key=len, reverse=True)
    call = re.compile(rf"(?<!let )opsmesh ({'|'.join(groups)}) ([a-z][a-z-]+)")
    named = [
        (str(path.relative_to(TOP)), *pair)
        for kind in (".py", ".lua", ".js", ".qml", ".yaml", ".yml", ".html")
        for path in files(kind)
        for pair in call.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 200
    assert [one for one in named if "opsmesh {} {}".format(*one[1:]) not in SECTIONS] == []
