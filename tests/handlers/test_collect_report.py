"""The report of a bundle: Markdown that is text alone, whatever was collected."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from tests.handlers.collecting import Context, collect

from opsmesh.handlers.bundles import report
from opsmesh.handlers.bundles.report import ReportTemplate
from opsmesh.handlers.collectors.contract import Piece

LINES = "one\ntwo\nthree error\n"


def render(text: str, *pieces: Piece, **variables: object) -> str:
    """A report of these pieces."""
    return ReportTemplate(text).render(pieces, variables)[0]


def piece(text: str | None = LINES, **facts: object) -> Piece:
    data = None if text is None else text.encode()
    error = None if "error" not in facts else str(facts.pop("error"))
    return Piece(name="p.txt", source="journal", key="journal", data=data, facts=facts, error=error)


def test_report_in_the_bundle(context: Context) -> None:
    """The report is a file of the bundle, without the secrets of the pieces it quotes."""
    token = "ghp_" + "a1B2" * 9
    items = [{"name": "said.log", "command": ["printf", f"one\\ntoken {token}\\n"]}]
    text = "# ${{ event.payload.unit }}\n\n${{ pieces.said.tail(1) }}\n"
    made = collect(context, {"items": items, "report": text})
    written = made.text("report")
    assert written.startswith("# `backup.service`\n\n```text\ntoken [redacted:github_token]\n```\n")
    assert made.result.output["report"] == str(made.folder / "report.md")
    assert made.manifest["files"][1]["name"] == "report.md"


def test_secret_that_is_cut(context: Context) -> None:
    """Of a secret in the event, nothing is in the report, however short the template cuts it."""
    token = "ghp_" + "a1B2" * 9
    payload = {"unit": "x" * 280 + " " + token}
    made = collect(context, {"items": ["disk"], "report": "a ${{ event.payload.unit }}"}, payload)
    assert "ghp_" not in made.text("report")


def test_report_of_everything(context: Context) -> None:
    """`report: true` has a section for each piece, also for one that is not there."""
    items = [{"name": "good", "command": ["echo", "x"]}, {"name": "bad", "file": "/no/such"}]
    text = collect(context, {"items": items, "report": True}).text("report")
    assert "# `service.start.failed`\n" in text
    assert "## good\n\n```text\nx\n```" in text
    assert "## bad\n\n*not there: `/no/such: No such file or directory`*" in text


def test_functions() -> None:
    """tail, head and matching take a piece, a text or a list, called either way."""
    assert render("${{ pieces.journal.tail(1) }}", piece()) == "```text\nthree error\n```\n"
    assert render("${{ head(pieces.journal, 1) }}", piece()) == "```text\none\n```\n"
    found = render('${{ pieces.journal.matching("ERROR").tail(5) }}', piece())
    assert found == "```text\nthree error\n```\n"
    assert "two" in render('${{ pieces.journal.lines.filter(l, l.startsWith("tw")) }}', piece())


def test_inline() -> None:
    """Within a line an answer is one line: words as they are, or a code span."""
    assert render("a ${{ vars }} b", vars="two words") == "a two words b\n"
    assert render("a ${{ vars }} b", vars="a\nb*c*") == "a `a b*c*` b\n"
    assert render("${{ vars }} of ${{ vars }}", vars=3) == "3 of 3\n"
    assert render("a ${{ vars }}.", vars="") == "a –.\n"
    assert render("a ${{ vars }}", vars="`") == "a `` ` ``\n"


def test_piece_that_is_not_there() -> None:
    """A piece that could not be had shows its error where it should stand."""
    text = render("${{ pieces.journal }}", piece(None, error="no journalctl"))
    assert text == "*not there: no journalctl*\n"


def test_no_answer() -> None:
    """A placeholder without an answer says so, and costs no other."""
    template = ReportTemplate("${{ pieces.nope }} and ${{ vars }}")
    text, unanswered = template.render([], {"vars": "good"})
    assert text.startswith("*no answer: `no field pieces.nope")
    assert text.endswith("and good\n")
    assert len(unanswered) == 1


def test_facts() -> None:
    """Facts of a piece are values of CEL."""
    text = render('${{ pieces.journal.facts.n > 2 ? "many" : "few" }}', piece(n=3))
    assert "many" in text


@given(st.text(alphabet=st.sampled_from("`#*_[]()<>!|\\-~ \n\t\x1b\x07abhttps:/."), max_size=60))
def test_block_is_not_left(text: str) -> None:
    """Nothing in a block ends it: the fence is longer than any within."""
    shown = report.show(text, block=True)
    if shown == "*nothing*":
        return
    first, *_, last = lines = shown.split("\n")
    fence = first.removesuffix("text")
    assert last == fence
    assert not any(line.strip().startswith(fence) for line in lines[1:-1])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", shown)


@given(st.text(alphabet=st.sampled_from("`#*_[]()<>!|\\-~ \n\t\x1b\x07abhttps:/."), max_size=60))
def test_span_is_not_left(text: str) -> None:
    """Nothing in a code span ends it, and it is one line."""
    shown = report.span(text)
    assert "\n" not in shown
    if shown == "–" or re.fullmatch(r"[A-Za-z0-9 ,%]+", shown):
        return
    ticks = re.match(r"`+", shown)
    assert ticks is not None
    inside = shown[len(ticks[0]) : -len(ticks[0])]
    assert shown.endswith(ticks[0])
    assert ticks[0] not in re.findall(r"`+", inside)


def test_bounded() -> None:
    """A block has a bounded number of lines, and each a bounded width."""
    text = render("${{ vars }}", vars="y" * 5000 + "\n" + "z\n" * 1000)
    assert len(text.splitlines()) <= report.BLOCK_LINES + 3
    assert max(map(len, text.splitlines())) <= report.BLOCK_WIDTH
