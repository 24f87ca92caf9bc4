"""What `doctor` says of marimo's plug-in: whether its hooks are in, and what failed. A notebook
runs on either way."""

from __future__ import annotations

from collections.abc import Iterator

from opsmesh.cli.doctor.checks import Check
from opsmesh.producers.marimo import health

NAME = "marimo's plug-in"
FIX = "another marimo than it knows: watch it from outside, docs/producers/marimo.md"


def plugin() -> Iterator[Check]:
    """A line for the newest kernel and the newest server that had it; none where no one had."""
    for one in health.newest():
        name, at = f"{NAME}: {one.kind}", f"marimo {one.marimo or 'of no version'} at {one.time}"
        if one.wrong:
            yield Check(check=name, ok=False, detail=f"{at}: {one.wrong}", fix=FIX)
        elif not one.known:
            detail = f"{at}: its hooks are in; it is tested with {one.tested}"
            yield Check(check=name, ok=None, detail=detail)
        else:
            yield Check(check=name, ok=True, detail=f"{at}: its hooks are in")
