"""Spans from an event to its action, by the real SDK and exporter to a stand-in for a collector."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import run, until
from tests.handlers.collector import collector
from tests.handlers.mesh import mesh

from opsmesh.router import redaction, traces
from opsmesh.router.intake import Intake
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.settings_serving import Traces
from opsmesh.schemas import ids
from opsmesh.schemas.registry import load_registry

PROFILES = """
profiles:
  well:
    on: service.start.failed
    actions:
      - {id: first, command: ["true"]}
      - {id: second, command: ["false"], continue_on_error: true}
"""
#: A trace that a producer began.
FOREIGN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_an_event_is_followed_to_its_steps(nats_server: EmbeddedServer) -> None:
    """The decision and the run are spans under the one that the event's traceparent names, each
    step one under its run, with what became of it; the result event carries the same trace."""

    async def body(url: str) -> None:
        with traces.sent("handlers", "laptop", Traces(endpoint=url)):
            async with mesh(PROFILES) as one:
                await one.publish(traceparent=FOREIGN)
                (told,) = await one.wait("automation.run.succeeded")
                assert told.traceparent == FOREIGN

    with collector() as (kept, url):
        run(body(url))
    decided, ran = kept.span("decide well"), kept.span("run well")
    first, second = kept.span("step first"), kept.span("step second")
    assert {s.trace_id.hex() for s in kept.spans} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert decided.parent_span_id.hex() == ran.parent_span_id.hex() == "00f067aa0ba902b7"
    assert first.parent_span_id == second.parent_span_id == ran.span_id
    assert kept.facts(decided)["opsmesh.outcome"] == "fire"
    assert kept.facts(first)["opsmesh.outcome"] == "done"
    assert kept.facts(second)["opsmesh.exit_code"] == 1
    assert (first.status.code, second.status.code) == (0, 2)
    assert ran.start_time_unix_nano <= first.start_time_unix_nano <= first.end_time_unix_nano
    assert "backup.service" not in str(kept.spans)  # what an event holds


def test_an_event_without_a_trace_is_given_one(home: Path) -> None:
    """An event that brought no traceparent gets one that follows from its id, the same each time;
    one that a producer brought stays; and without traces nothing is added."""
    intake = Intake(Settings(), load_registry(), redaction.load(Settings()))
    bare = {"topic": "build.finished", "id": ids.uuid7()}

    def taken(**more: str) -> str | None:
        message = intake.message(json.dumps({**bare, **more}).encode())
        assert json.loads(message.data).get("traceparent") == message.traceparent
        return message.traceparent

    assert taken() is None
    with traces.sent("agent", "laptop", Traces(endpoint="console")):
        assert taken() == taken() == traces.given(bare["id"])
        assert taken(traceparent=FOREIGN) == FOREIGN
        assert traces.given("build-42") == traces.given("build-42") != traces.given("build-43")


def test_the_first_span_is_the_one_that_the_event_names(home: Path) -> None:
    """Where the trace begins with the event, taking it in is the root of all its spans."""
    name = traces.given("01a20af3-56e1-7a10-ae32-25df3fd288da")
    with collector() as (kept, url), traces.sent("agent", "laptop", Traces(endpoint=url)):
        traces.record("take in a.b", name, took_s=0.1, root=name_id(), kind="producer")
        traces.record("take in c.d", FOREIGN, took_s=0.1, root=name_id(), kind="producer")
    root, below = kept.span("take in a.b"), kept.span("take in c.d")
    assert f"00-{root.trace_id.hex()}-{root.span_id.hex()}-01" == name
    assert root.parent_span_id == b""
    assert below.parent_span_id.hex() == "00f067aa0ba902b7"


def name_id() -> str:
    """The event that the trace above follows from."""
    return "01a20af3-56e1-7a10-ae32-25df3fd288da"


def test_nothing_is_imported_while_they_are_off() -> None:
    """A process of whose traces nobody has heard imports nothing of OpenTelemetry's SDK."""
    code = (
        "import sys, opsmesh.router.agent\n"
        "from opsmesh.router import traces\n"
        "from opsmesh.router.settings_serving import Traces\n"
        "with traces.sent('agent', 'h', Traces()), traces.span('x', None): pass\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_collector_that_is_away_costs_spans_alone(nats_server: EmbeddedServer) -> None:
    """Runs go on while nobody takes their spans, and end in time."""

    async def body() -> None:
        with traces.sent("handlers", "laptop", Traces(endpoint="http://127.0.0.1:9")):
            async with mesh(PROFILES) as one:
                await one.publish()
                await one.wait("automation.run.succeeded")

    run(body())


@pytest.mark.parametrize(
    ("endpoint", "posted"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector.example.org/otlp/x", "https://collector.example.org/otlp/x"),
    ],
)
def test_where_spans_are_posted(endpoint: str, posted: str) -> None:
    """An address without a path gets the one that collectors have; any other stays."""
    assert traces.address(endpoint) == posted


@pytest.mark.slow
def test_the_whole_mesh_is_one_trace(home: Path) -> None:
    """An event that was emitted on the command line is one trace: the agent takes it in, the
    handlers decide and run it."""
    folder = home / "config" / "opsmesh"
    folder.mkdir()
    (folder / "profiles.yaml").write_text(PROFILES.replace("service.start.failed", "a.thing"))

    def types(*argv: str) -> str:
        call = [sys.executable, "-m", "opsmesh.cli.entry", *argv]
        return subprocess.run(call, capture_output=True, text=True, timeout=180, check=True).stdout

    with collector() as (kept, url):
        config = {"traces": {"endpoint": url}, "producers": {"enabled": []}}
        (folder / "config.yaml").write_text(json.dumps(config))
        types("up", "--detach")
        try:
            event_id = types("emit", "a.thing").strip()
            until(lambda: "run well" in [span.name for span in kept.spans])
            until(lambda: "take in a.thing" in [span.name for span in kept.spans])
        finally:
            types("down")
    root, ran = kept.span("take in a.thing"), kept.span("run well")
    assert root.trace_id.hex() == event_id.replace("-", "")
    assert (ran.trace_id, ran.parent_span_id) == (root.trace_id, root.span_id)
    assert kept.components["take in a.thing"] == "agent"
    assert kept.components["run well"] == "handlers"
