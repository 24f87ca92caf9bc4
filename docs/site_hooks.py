"""What mkdocs is told about these pages: they are written to be read in the checkout as well.

A link that leads out of `docs` (to code, to the README) has no page on the site: its text stays.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


#: The page on which the site shows the examples themselves.
COOKBOOK = "examples/README.md"
_RECIPE = re.compile(r"^\| \[([a-z-]+)\]\(\1\.yaml\)", re.MULTILINE)


def slug(text: str, separator: str) -> str:
    """A heading's anchor as forges make it, so that one link works in both places."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", separator)


def on_config(config: Any) -> Any:
    """The table of contents with every decision in it, in their order."""
    found = sorted(path.name for path in Path(config["docs_dir"], "adr").glob("*.md"))
    for part in config["nav"]:
        if part.get("Decisions") == "adr/":
            part["Decisions"] = [f"adr/{name}" for name in found]
    return config


def on_page_markdown(markdown: str, *, page: Any, **more: Any) -> str:
    """A page's text as the site shows it."""
    folder = posixpath.dirname(page.file.src_uri)
    if page.file.src_uri == COOKBOOK:
        markdown = _with_recipes(markdown, Path(page.file.abs_src_path).parent)

    def inside(link: re.Match[str]) -> str:
        text, path, anchor = link.groups()
        leads = posixpath.normpath(posixpath.join(folder, path))
        if leads == "../README.md" and anchor == "#five-minutes":
            return f"[{text}]({posixpath.relpath('index.md', folder or '.')})"
        if leads.startswith("..") or not posixpath.splitext(leads)[1]:
            return str(text)
        return link.group()

    return _LINK.sub(inside, markdown)


def _with_recipes(markdown: str, folder: Path) -> str:
    """The page with each example below the list, as it is to be copied."""
    names = _RECIPE.findall(markdown)
    texts = [
        f"## {name}\n\n```yaml\n{(folder / name).with_suffix('.yaml').read_text('utf-8')}```\n"
        for name in names
    ]
    return "\n".join((_RECIPE.sub(r"| [\1](#\1)", markdown), *texts))
