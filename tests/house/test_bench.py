"""The benchmarks: every figure can still be measured, and what is written has its form.

No number is judged here; the amounts are the smallest that make one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.house.checkout import TOP

#: Each figure's name on the command line, and the rows that it gives.
FIGURES = {
    "publish_many": ["publish_many"],
    "publish_one": ["publish_one"],
    "redact": ["redact", "redact_hint", "redact_found"],
    "engine": ["engine_miss", "engine_match", "engine_debounce"],
    "dispatch": ["dispatch", "decide_fire", "decide_burst"],
    "dispatch_runner": ["dispatch_runner"],
    "sink": ["sink"],
    "latency": ["latency_p50", "latency_p99"],
    "growth_profiles": ["latency_profiles_1"],
    "growth_stored": ["latency_stored_100"],
    "emit": ["emit", "emit_spool"],
    "agent_hook": ["agent_hook", "agent_hook_spool"],
    "shell_prompt": [
        f"shell_prompt_{shell}_{end}"
        for shell in ("bash", "zsh", "fish")
        for end in ("success", "failure")
    ],
    "lsp": ["lsp_echo", "lsp_ruff", "lsp_big", "lsp_start"],
    "pytest": ["pytest_pass", "pytest_fail", "pytest_spool", "unittest_fail", "below_exec"],
    "marimo": ["marimo_run", "marimo_export"],
    "neovim": [f"neovim_{what}" for what in ("start", "save", "typing", "emit", "broken")],
    "lint": ["lint_watched"],
    "replay": ["replay_stream", "replay_jsonl"],
    "backtest": ["backtest"],
    "mcp": ["mcp_open", "mcp_call"],
    "idle": ["idle_rss", "idle_pss", "idle_cpu"],
}
#: Rows that stand alone: nats-py has nothing like them.
ALONE = {
    "redact",
    "redact_hint",
    "redact_found",
    "engine_miss",
    "engine_match",
    "engine_debounce",
    "lsp_echo",
    "lsp_ruff",
    "lint_watched",
    "replay_jsonl",
    "idle_rss",
    "idle_pss",
    "idle_cpu",
    "neovim_save",
    "neovim_emit",
    "neovim_broken",
    *FIGURES["shell_prompt"],
}


#: Figures that are measured in `make test`: with a broker, and without; the others in `test-all`.
SHORT = {"publish_one", "engine"}


def command(*arguments: str) -> list[str]:
    """`bench/run.py` with these arguments."""
    return [sys.executable, str(TOP / "bench" / "run.py"), *arguments]


def measure(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run it with the smallest amounts; what it said, and the JSON that it wrote."""
    result, stores = folder / "result.json", folder / "stores"
    stores.mkdir()
    smallest = ("--rounds", "2", "--scale", "0.00001")
    ran = subprocess.run(
        command(*smallest, "--folder", str(stores), "--json", str(result), *arguments),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert list(stores.iterdir()) == []
    return ran, json.loads(result.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in FIGURES],
)
def test_figure(tmp_path: Path, name: str) -> None:
    """The figure gives a number for each round, beside nats-py's where there is one, in table and
    JSON."""
    ran, report = measure(tmp_path, "--only", name)
    assert [row["name"] for row in report["figures"]] == FIGURES[name]
    for row in report["figures"]:
        assert row["name"] in ran.stdout
        once = name == "idle"  # a mesh at rest is looked at once
        assert len(row["ours"]["rounds"]) == (1 if once else 2)
        assert (row["plain"] is None) == (row["name"] in ALONE)
        if row["plain"] is not None:
            assert len(row["plain"]["rounds"]) == len(row["ratio"]["rounds"]) == 2
            assert row["plain"]["what"]
            assert row["ratio"]["min"] <= row["ratio"]["max"]
        if row["target"] is not None:
            assert row["target"]["of"] in ("ratio", "value")
            assert row["target"]["met"] in (True, False, None)


def test_report(tmp_path: Path) -> None:
    """The JSON tells what the numbers depend on, and names neither machine nor folder."""
    _, report = measure(tmp_path, "--only", "publish_one")
    assert report["format"] == 1
    assert report["failed"] == {}
    assert {"cores", "python", "nats_server", "filesystem", "load_1m"} <= report["machine"].keys()
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert str(TOP) not in text
    assert f'"{socket.gethostname()}"' not in text


def test_every_figure_is_tested() -> None:
    """What `--help` offers is what is tested here."""
    ran = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    assert ", ".join(FIGURES) in " ".join(ran.stdout.split())


def test_wrong_call() -> None:
    """An unknown figure is a wrong call, and nothing is measured."""
    ran = subprocess.run(command("--only", "speed"), capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "invalid choice: 'speed'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_not_measured(tmp_path: Path) -> None:
    """A figure that cannot be measured is named with its reason, and the exit code is 1."""
    binary = tmp_path / "nats-server"
    binary.write_text('#!/bin/sh\ntest "$1" = --version && echo "nats-server: v0.0.0"\n')
    binary.chmod(0o755)
    # An installation of its own: a Python beside which another nats-server lies.
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    result = tmp_path / "result.json"
    ran = subprocess.run(
        [
            *(str(tmp_path / "python"), str(TOP / "bench" / "run.py")),
            *("--only", "publish_one", "--json", str(result)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "publish_one: not measured" in ran.stdout
    failed = json.loads(result.read_text(encoding="utf-8"))["failed"]
    assert "nats-server ended" in failed["publish_one"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C ends the broker, removes the stores, and gives exit code 130."""
    result, stores = tmp_path / "result.json", tmp_path / "stores"
    stores.mkdir()
    running = subprocess.Popen(
        command(
            *("--only", "publish_many", "--rounds", "1000"),
            *("--folder", str(stores), "--json", str(result)),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        url = _broker(stores, running)
        running.send_signal(number)
        said, _ = running.communicate(timeout=60)
    finally:
        running.terminate()  # kindly: killed at once, it would leave its broker behind
        try:
            running.wait(60)
        finally:
            running.kill()
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert list(stores.iterdir()) == []
    with pytest.raises(ConnectionRefusedError), socket.create_connection(url, timeout=5):
        pass


def _broker(stores: Path, running: subprocess.Popen[str]) -> tuple[str, int]:
    """Where the benchmark's broker listens, once it has a stream."""
    deadline = time.monotonic() + 60
    while not list(stores.glob("*/state/opsmesh/jetstream/jetstream/*/streams/EVENTS")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (kept,) = stores.glob("*/state/opsmesh/server.json")
    return "127.0.0.1", json.loads(kept.read_text())["port"]


@pytest.mark.slow
def test_every_wall_can_be_measured(tmp_path: Path) -> None:
    """`bench/scale.py` gives a row of each wall with its smallest amount."""
    result = tmp_path / "scale.json"
    where = ("--folder", str(tmp_path), "--json", str(result), "--first")
    ran = subprocess.run(
        [sys.executable, str(TOP / "bench" / "scale.py"), *where],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    walls = json.loads(result.read_text())["walls"]
    assert len(walls) >= 11
    assert all(wall["rows"] for wall in walls.values()), walls
