"""The whole mesh with `metrics.port` set, and a real Prometheus that asks it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import free_ports, until
from tests.house.checkout import TOP

pytestmark = pytest.mark.slow

PROFILES = """
version: 1
profiles:
  counted: {on: build.finished, actions: [command: ["true"]]}
"""


def types(*argv: str) -> str:
    """`opsmesh ARGV`; its standard output."""
    call = [sys.executable, "-m", "opsmesh.cli.entry", *argv]
    done = subprocess.run(call, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def endpoint(home: Path) -> Iterator[str]:
    """A mesh with the endpoint as a component; host and port of it."""
    (port,) = free_ports(1)
    folder = home / "config" / "opsmesh"
    folder.mkdir()
    config = {"metrics": {"port": port}, "producers": {"enabled": []}}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "profiles.yaml").write_text(PROFILES)
    types("up", "--detach")
    yield f"127.0.0.1:{port}"
    types("down")


def get(url: str) -> str:
    """What the address answers."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A Prometheus of this test's own, with our configuration and our rules; its address."""
    tool = shutil.which("prometheus")
    if tool is None:
        pytest.skip("prometheus is not on PATH (Debian: prometheus)")
    rules = TOP / "deploy" / "prometheus"
    config = yaml.safe_load((rules / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules / "opsmesh.rules.yaml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    process = subprocess.Popen(
        [
            tool,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(60)


def ask(server: str, query: str) -> list[dict[str, Any]]:
    """What Prometheus knows; nothing while it does not answer yet."""
    try:
        told = json.loads(get(f"{server}/api/v1/query?query={urllib.parse.quote(query)}"))
    except OSError:
        return []
    found: list[dict[str, Any]] = told["data"]["result"]
    return found


def test_prometheus_has_every_component(endpoint: str, tmp_path: Path) -> None:
    """A real Prometheus that scrapes one port knows of an event that was emitted, of the run that
    it began, of every component, and evaluates every alert without an error; none fires."""
    with prometheus(tmp_path, endpoint) as server:
        until(lambda: ask(server, 'up{job="opsmesh"} == 1'))
        types("emit", "build.finished", "target=it")
        ran = 'opsmesh_runs_total{profile="counted",state="succeeded"} == 1'
        until(lambda: ask(server, ran))
        up = {one["metric"]["component"] for one in ask(server, "opsmesh_component_up == 1")}
        assert up == {"broker", "agent", "handlers", "sink", "metrics"}
        assert ask(server, 'opsmesh_source_events_total{source="emit",topic="build.finished"} == 1')
        assert ask(server, "opsmesh_evidence_events_total > 0")
        shown = json.loads(types("metrics", "show", "runs_total", "--json"))["opsmesh_runs_total"]
        assert {row["labels"]["state"]: row["value"] for row in shown}["succeeded"] == 1

        def evaluated() -> list[dict[str, Any]]:
            (group,) = json.loads(get(f"{server}/api/v1/rules"))["data"]["groups"]
            rules: list[dict[str, Any]] = group["rules"]
            return rules if all(rule["health"] == "ok" for rule in rules) else []

        rules = until(evaluated)
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_promtool_finds_nothing_to_say(endpoint: str) -> None:
    """What is served passes Prometheus' own check of names and types."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not on PATH (Debian: prometheus)")
    served = get(f"http://{endpoint}/metrics")
    done = subprocess.run(
        [tool, "check", "metrics"], input=served, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
