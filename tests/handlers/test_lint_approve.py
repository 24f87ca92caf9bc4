"""What lint says of steps that ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.handlers.test_lint import said

from opsmesh.schemas.registry import load_registry

TEXT = """
profiles:
  p:
    on: service.start.failed
    {more}
    actions:
      - {{id: first, {first}, emit: {{topic: demo.first}}}}
      - {{id: second, {second} emit: {{topic: demo.second, payload: {{a: "{reads}"}}}}}}
"""


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"more": "concurrency: {mode: queued}"}, "later runs wait behind it"),
        ({"more": "concurrency: {mode: single}"}, "later runs are skipped"),
        ({"first": "approve: {prompt: x, expires: 40d}"}, "more than 30 days"),
        (
            {"first": "approve: {prompt: x, expires: 1h, otherwise: run, by: [ann]}"},
            "without the yes of ann",
        ),
        ({"first": "approve: {prompt: x, otherwise: run}"}, "never comes"),
        (
            {"first": "timeout: 5s", "reads": "${{ steps.first.approval.verdict }}"},
            "step 'first' (emit) gives no 'approval'",
        ),
        ({"first": "approve: '${{ evnt.id }}'"}, "evnt"),
        ({"second": "approve: {prompt: '${{ steps.frist.ok }}'},"}, "frist"),
    ],
)
def test_surprises(tmp_path: Path, how: dict[str, str], expected: str) -> None:
    """What a user would not expect is said."""
    facts = {"more": "", "first": "approve: x", "second": "", "reads": "x", **how}
    found = [
        one for one in said(tmp_path, TEXT.format(**facts), load_registry()) if expected in one
    ]
    assert len(found) == 1


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"reads": "${{ steps.first.approval.verdict }}"},
        {
            "more": "concurrency: {mode: queued}",
            "first": "approve: {prompt: x, expires: 1h}",
        },
    ],
)
def test_nothing_to_say(tmp_path: Path, how: dict[str, str]) -> None:
    """A step that asks as it should is no finding."""
    facts = {"more": "", "first": "approve: x", "second": "", "reads": "x", **how}
    found = said(tmp_path, TEXT.format(**facts), load_registry())
    assert [one for one in found if "approv" in one or "answer" in one] == []


def test_an_action_that_may_give_anything(tmp_path: Path) -> None:
    """What such a step gives nobody knows, but that it asks nobody."""
    text = """
profiles:
  p:
    on: service.start.failed
    actions:
      - {id: first, notify: {title: failed}}
      - command: [echo, "${{ steps.first.approval.verdict }}"]
"""
    found = said(tmp_path, text, load_registry())
    assert [one for one in found if "step 'first' has no approve" in one]
