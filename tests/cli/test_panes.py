"""`opsmesh panes`: what it writes, and that Zellij and tmux make of it what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.conftest import until

from opsmesh.cli.panes import plan
from opsmesh.router import paths

TMUX = shutil.which("tmux")
ZELLIJ = os.environ.get("OPSMESH_ZELLIJ") or shutil.which("zellij")
#: Says its arguments, and stays.
STAYS = ("sh", "-c", 'echo "$*"; exec sleep 600', "sh")
SHELLED = ("ZELLIJ", "ZELLIJ_CONFIG_DIR", "TMUX")


@pytest.fixture(autouse=True)
def folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which no dashboard is, and no multiplexer around."""
    monkeypatch.setenv("HOME", str(home))
    for variable in SHELLED:
        monkeypatch.delenv(variable, raising=False)
    return home


def written(cli: Cli, *more: str) -> dict[str, Any]:
    """What `panes --write --json` says."""
    done = cli("panes", "--write", "--json", *more)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def config(text: str) -> None:
    """Write config.yaml."""
    Path(paths.config_dir()).mkdir(parents=True, exist_ok=True)
    Path(paths.config_dir(), "config.yaml").write_text(text)


def test_lies_where_zellij_looks(cli: Cli, home: Path) -> None:
    """The layout is written into Zellij's folder, and begins with who wrote it."""
    found = written(cli)
    assert found["path"] == str(home / "config/zellij/layouts/ops-event-mesh.kdl")
    assert Path(found["path"]).read_text().startswith("// written by `opsmesh panes`")
    assert [one["name"] for one in found["panes"]] == ["control", "status oracle", "alerts"]


@pytest.mark.parametrize(
    ("there", "command"), [(True, ["top"]), (False, ["tail", "--since", "1h"])]
)
def test_control_is_top_where_it_can_be(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, there: bool, command: list[str]
) -> None:
    """The control pane is `opsmesh top` with its extra installed, and the events without."""
    monkeypatch.setattr(plan, "find_spec", lambda name: there or None)
    assert written(cli)["panes"][0]["command"][1:] == command


def test_dashboard_is_found(cli: Cli, home: Path) -> None:
    """A program in ~/src/opsctrl is a pane, in that folder."""
    program = home / "src/opsctrl/bin/opsctrl"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    assert len(written(cli)["panes"]) == 3  # no program yet
    program.chmod(0o755)
    found = written(cli)
    assert found["panes"][2] == {"name": "ops dashboard", "command": [str(program)]}
    assert f'cwd="{home}/src/opsctrl"' in Path(found["path"]).read_text()


@pytest.mark.parametrize(
    ("setting", "command"),
    [
        ("[btop, -p, '2']", ["btop", "-p", "2"]),
        ("ssh web1 'top -c'", ["ssh", "web1", "top -c"]),
        ("[]", None),
    ],
)
def test_dashboard_is_what_is_set(cli: Cli, setting: str, command: list[str] | None) -> None:
    """panes.dashboard is a list of words or a line; an empty one is no pane."""
    config(
        f"panes: {{dashboard: {setting}}}\n"
        if "[" in setting
        else f"panes:\n  dashboard: {setting}\n"
    )
    found = {one["name"]: one["command"] for one in written(cli)["panes"]}
    assert found.get("ops dashboard") == command


def test_quotes_reach_zellij(cli: Cli) -> None:
    """A quote and a backslash in a command are written as KDL wants them."""
    config("panes: {dashboard: [sh, -c, 'echo \"a\\b\"']}\n")
    assert r'args "-c" "echo \"a\\b\""' in Path(written(cli)["path"]).read_text()


def test_what_was_edited_stays(cli: Cli) -> None:
    """A file that somebody changed is left alone, until --force, which keeps a copy."""
    path = Path(written(cli)["path"])
    mine = path.read_text().replace("60%", "50%")
    path.write_text(mine)
    assert written(cli)["edited"]
    assert path.read_text() == mine
    assert not written(cli, "--force")["edited"]
    assert "60%" in path.read_text()
    assert path.with_name(f"{path.name}.before-opsmesh").read_text() == mine


def test_no_multiplexer(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Zellij and tmux it says so, and what it can do instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cli("panes")
    assert done.exit_code == 1
    assert "neither zellij nor tmux" in done.stderr
    assert "--write" in done.stderr


@pytest.fixture
def tmux(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A tmux server of this test's own."""
    if TMUX is None:
        pytest.skip("tmux is not installed")
    monkeypatch.setenv("TMUX_TMPDIR", str(home))
    monkeypatch.setenv("TERM", "xterm-256color")

    def call(*arguments: str) -> str:
        argv = [TMUX, "-f", "/dev/null", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    yield call
    call("kill-server")


def test_tmux_makes_the_panes(
    cli: Cli, tmux: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """tmux has four panes with their titles, each runs its command, and a second call makes no
    other."""
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    monkeypatch.setattr(plan, "ours", lambda *words: [*STAYS, "it's", *words])
    mine = json.dumps([*STAYS, 'mine "$HOME"'])
    config(f"panes: {{dashboard: {mine}}}\n")
    for _ in range(2):
        done = cli("panes", "--tmux")
        assert "tmux attach -t opsmesh" in done.stderr, done.output
    titles = tmux("list-panes", "-s", "-t", "opsmesh", "-F", "#{pane_title} #{pane_id}").split("\n")
    panes = dict(line.rsplit(" ", 1) for line in titles if line)
    wanted = {
        "control": "it's tail --since 1h",
        "status oracle": "it's status --watch",
        "alerts": "it's tail --severity error --since 1h",
        "ops dashboard": 'mine "$HOME"',
    }
    assert panes.keys() == wanted.keys()
    for title, text in wanted.items():
        until(
            partial(
                lambda pane, text: text in tmux("capture-pane", "-p", "-t", pane),
                panes[title],
                text,
            )
        )


@pytest.mark.slow
def test_zellij_makes_the_panes(
    cli: Cli, tmux: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real Zellij takes the layout, shows every pane by its title, and runs the dashboard."""
    if ZELLIJ is None:
        pytest.skip("zellij is not installed: cargo install --locked zellij")
    with tempfile.TemporaryDirectory(prefix="z") as folder:  # a socket's path must be short
        monkeypatch.setenv("ZELLIJ_SOCKET_DIR", folder)
        config(f"panes: {{dashboard: {json.dumps([*STAYS, 'it runs'])}}}\n")
        path = written(cli)["path"]
        command = f"exec {ZELLIJ} --layout {path}"
        tmux("new-session", "-d", "-s", "z", "-x", "180", "-y", "45", command)

        def screen() -> str:
            return tmux("capture-pane", "-p", "-t", "z")

        try:
            until(lambda: "it runs" in screen())
            for title in ("control", "status oracle", "alerts", "ops dashboard"):
                assert title in screen()
        finally:  # its server outlives the terminal; it is this home's alone
            subprocess.run([ZELLIJ, "kill-all-sessions", "-y"], capture_output=True, check=False)
