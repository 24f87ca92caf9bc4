"""`notebook_run`: what a notebook's run depended on, and what differs from the run before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import run
from tests.handlers.collecting import Context, collect
from tests.handlers.conftest import EVENT
from tests.handlers.mesh import mesh
from tests.producers import marimos
from tests.producers.agent import standing_in

from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas.envelope import Event

RUN: dict[str, Any] = {
    "notebook": "/home/dev/analysis/sales.py",
    "failed": 0,
    "code_sha256": "ab" * 32,
    "seeds": {"random.seed": 42},
    "ran": [{"cell": "Hbol", "sha256": "cd" * 32}, {"cell": "MJUe", "sha256": "ef" * 32}],
    "environment": {"python": "3.13.5", "packages": {"numpy": "2.3.1", "pandas": "3.0.0"}},
}


def completed(**changes: Any) -> Event:
    """The event of a run."""
    return msgspec.structs.replace(
        EVENT, topic="notebook.run.completed", payload={**RUN, **changes}
    )


def test_a_run_is_a_fact_a_line(context: Context) -> None:
    """Python, seeds, cells in their order and packages stand in lines that can be compared."""
    made = collect(context, ["notebook_run"], event=completed())
    lines = made.text("notebook_run").splitlines()
    assert lines[0] == "notebook: /home/dev/analysis/sales.py"
    assert "seed random.seed: 42" in lines
    assert lines[-2:] == ["package numpy: 2.3.1", "package pandas: 3.0.0"]
    assert f"cell 2 MJUe: {'ef' * 32}" in lines
    facts = made.facts("notebook_run")
    assert (facts["python"], facts["packages"], facts["changed"]) == ("3.13.5", 2, False)


def test_a_run_is_compared_with_the_last_of_its_notebook(context: Context) -> None:
    """Another seed and another package are the difference, and another notebook's run is none."""
    collect(context, ["notebook_run"], event=completed(), run_id="run1")
    other = completed(notebook="/home/dev/analysis/costs.py", seeds={})
    between = collect(context, ["notebook_run"], event=other, run_id="run2")
    assert not between.facts("notebook_run")["changed"]
    now = completed(
        seeds={"random.seed": 7},
        environment={"python": "3.13.5", "packages": {"numpy": "2.4.0", "pandas": "3.0.0"}},
    )
    made = collect(context, ["notebook_run"], event=now, run_id="run3")
    assert made.facts("notebook_run")["changed"]
    changed = [line for line in made.text("notebook_run_diff").splitlines()[2:] if line[0] in "+-"]
    assert changed == [
        "-seed random.seed: 42",
        "+seed random.seed: 7",
        "-package numpy: 2.3.1",
        "+package numpy: 2.4.0",
    ]


def test_a_strangers_event_stays_in_its_lines(context: Context) -> None:
    """Line ends and escapes of a payload make no line of their own; what is no table is left."""
    event = completed(seeds={"a\nnotebook: /etc": "\x1b[31m"}, ran="x", environment=[1])
    text = collect(context, ["notebook_run"], event=event).text("notebook_run")
    assert "seed a notebook: /etc:  [31m\n" in text
    assert text.count("\nnotebook:") == 0


def test_another_event_has_no_run(context: Context) -> None:
    """For an event of another topic the piece says why it is not there."""
    assert "no notebook.run.completed" in collect(context, ["notebook_run"]).error("notebook_run")


@pytest.mark.slow
@pytest.mark.skipif(bool(marimos.missing()), reason=marimos.missing())
@pytest.mark.xdist_group("marimo")
def test_the_example_with_real_runs(
    nats_server: EmbeddedServer, home: Path, tmp_path: Path
) -> None:
    """Two exports of a notebook whose seed was changed in between are two bundles, and the second
    one's report names the seed and the cell."""
    example = Path(__file__).parents[2] / "docs/examples/notebook-reproducibility.yaml"
    text = example.read_text().replace("window: 5s", "window: 50ms")
    told: list[dict[str, Any]] = []
    with standing_in(home) as agent:
        for seed in (1, 2):
            code = {"draw": f"import random\nrandom.seed({seed})\nx = random.random()\nreturn x,"}
            path = marimos.notebook(tmp_path / "draw.py", **code)
            assert marimos.export(path).returncode == 0
            events = agent.wait_for(lambda events: len(events) == len(told) + 1)
            told.append(events[-1])

    async def body() -> None:
        async with mesh(text) as m:
            for number, event in enumerate(told, 1):
                await m.publish(
                    event["topic"], workspace=event["workspace"], payload=event["payload"]
                )
                done = await m.wait("automation.run.succeeded", number)
            assert done[-1].evidence_path is not None
            report = Path(done[-1].evidence_path, "report.md").read_text()
            assert {"-seed random.seed: 1", "+seed random.seed: 2"} <= set(report.splitlines())
            assert "\n+cell 1 " in report
            assert "package marimo: " in report

    run(body())
