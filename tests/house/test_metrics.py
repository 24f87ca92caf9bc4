"""The names of figures, and everything that refers to them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from opsmesh.cli.main import COMMANDS
from opsmesh.handlers.figures import HANDLERS, SINK
from opsmesh.handlers.metrics import outside
from opsmesh.router.metrics.figures import AGENT
from tests.house.checkout import TOP

FIGURES = [*AGENT.figures, *HANDLERS.figures, *SINK.figures, *outside.FIGURES]
KINDS = {figure.name: figure.kind for figure in FIGURES}
#: What a name may end with, before `_total`: units, and what is counted.
COUNTED = (
    *("events", "messages", "runs", "steps", "decisions", "letters", "retries", "changes"),
    *("restarts", "seals", "commits", "pauses", "connections", "followers", "files"),
)
UNITS = ("seconds", "bytes", "ratio", *COUNTED)
#: Gauges that are a state, an ordinal or a rate: nothing is counted there.
STATES = (
    *("opsmesh_agent_broker_open", "opsmesh_broker_up", "opsmesh_build_info"),
    *("opsmesh_component_up", "opsmesh_profile_owned", "opsmesh_slo_burn_rate"),
    *("opsmesh_evidence_last_sequence", "opsmesh_stream_last_sequence"),
    *("opsmesh_runs_under_way", "opsmesh_runs_waiting"),
)
#: Every label; each has values from a list that is known, or from what somebody configures.
LABELS = {
    *("component", "result", "source", "topic", "profile", "outcome", "state", "action"),
    *("objective", "stream", "version"),
}
RULES = TOP / "deploy" / "prometheus" / "opsmesh.rules.yaml"
DASHBOARD = TOP / "deploy" / "grafana" / "opsmesh.json"


def test_names_are_unique() -> None:
    """No name stands for two figures."""
    assert [name for name, count in Counter(f.name for f in FIGURES).items() if count > 1] == []


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_name_follows_the_rules(figure: Any) -> None:
    """A figure is called opsmesh_<what>_<unit>, with _total where it only goes up, and says what it
    is in one sentence."""
    assert re.fullmatch(r"opsmesh(_[a-z0-9]+)+", figure.name)
    assert figure.name.endswith("_total") == (figure.kind == "counter")
    if figure.name not in STATES:
        assert figure.name.removesuffix("_total").endswith(UNITS)
    if figure.kind == "histogram":
        assert figure.name.endswith("_seconds")
    assert set(figure.labels) <= LABELS
    assert figure.help.endswith(".")


def test_the_page_lists_every_figure() -> None:
    """docs/metrics.md has a line for each figure, with its kind, labels and meaning, and for no
    other."""
    page = (TOP / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(opsmesh_\w+)` \| (\w+) \| ([^|]*) \| (.+) \|$", page, re.MULTILINE)
    told = {(f.name, f.kind, ", ".join(f.labels), f.help) for f in FIGURES}
    assert {(a, b, c.strip(), d) for a, b, c, d in rows} == told


def expressions() -> Iterator[str]:
    """Every query of the alerts and of the dashboard."""
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_alerts_and_dashboard_ask_for_what_there_is() -> None:
    """Every figure that an alert or a panel names exists, and a histogram is asked by its parts."""
    named = {name for text in expressions() for name in re.findall(r"\bopsmesh_\w+", text)}
    histograms = {name for name, kind in KINDS.items() if kind == "histogram"}
    there = {name for name in KINDS if name not in histograms}
    there |= {name + part for name in histograms for part in ("_bucket", "_sum", "_count")}
    assert named - there == set()
    assert len(named) > 20


def test_every_label_in_a_query_is_the_figures_own() -> None:
    """A query groups and selects by labels that its figure has."""
    labels = {f.name: {*f.labels, "component", "instance", "le"} for f in FIGURES}
    for text in expressions():
        for name, chosen in re.findall(r"\b(opsmesh_\w+)\{([^}]*)\}", text):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            asked = set(re.findall(r"(\w+)\s*[=!]~?", chosen))
            assert asked <= labels.get(name, labels.get(base, set())), text


def test_every_alert_says_what_to_type() -> None:
    """An alert has a summary and a next step, and every command that it names is one."""
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            assert rule["alert"].startswith("Opsmesh")
            assert set(rule["annotations"]) == {"summary", "next"}
            assert rule["labels"]["severity"] in ("info", "warning", "critical")
            for words in re.findall(r"opsmesh ([a-z]+(?: [a-z]+)?)", rule["annotations"]["next"]):
                first, _, second = words.partition(" ")
                command = COMMANDS[first].load(first)
                if below := getattr(command, "commands", None):
                    assert second in below, words


def test_compose_mounts_what_there_is() -> None:
    """Prometheus and Grafana are given files of this checkout, listen on loopback alone, and come
    as images that can be named; those of compose.yaml are the same, in a network of their own."""
    compose = yaml.safe_load((TOP / "deploy" / "metrics.compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert service["image"].startswith(f"${{OPSMESH_{name.upper()}_IMAGE:-")
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
        assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
        assert service["healthcheck"]["test"][0] == "CMD"
        for mount in service["volumes"]:
            if mount.startswith("./"):
                assert (TOP / "deploy" / mount.partition(":")[0]).exists()
    told = json.dumps(compose)
    assert "--web.listen-address=${OPSMESH_PROMETHEUS_ADDRESS:-127.0.0.1}:9090" in told
    grafana = compose["services"]["grafana"]["environment"]
    assert grafana["GF_SERVER_HTTP_ADDR"] == "${OPSMESH_GRAFANA_ADDRESS:-127.0.0.1}"
    mine = yaml.safe_load((TOP / "deploy" / "compose.yaml").read_text())["services"]
    for name in compose["services"]:
        assert mine[name]["extends"] == {"file": "metrics.compose.yaml", "service": name}
        assert mine[name]["network_mode"] == "service:metrics"


@pytest.mark.parametrize(
    "argv",
    [
        ("check", "rules", "opsmesh.rules.yaml"),
        ("check", "config", "prometheus.yaml"),
        ("test", "rules", "opsmesh.rules.test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool(argv: tuple[str, ...]) -> None:
    """Prometheus' own tool finds nothing wrong with the rules, and its tests of them pass."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not on PATH (Debian: prometheus)")
    done = subprocess.run(
        [tool, *argv], cwd=Path(RULES).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
