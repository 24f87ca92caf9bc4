"""The plugin beside real other plugins, and in a real terminal.

Plugins of Neovim are in no package registry: their checkouts are taken from OPSMESH_NVIM_PLUGINS.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, standing_in, until
from tests.producers.nvims import Nvim, environment, having, neovim, program, topics, wire
from tests.producers.shells import need

pytestmark = pytest.mark.slow


def plugins(*names: str) -> str:
    """A list of their folders in Lua; skips where one is not there, also in CI."""
    folder = Path(os.environ.get("OPSMESH_NVIM_PLUGINS", "/nonexistent"))
    for name in names:
        if not (folder / name).is_dir():
            pytest.skip(f"no {name} in OPSMESH_NVIM_PLUGINS")
    return ", ".join(f"[[{folder / name}]]" for name in names)


@contextmanager
def heard(home: Path, init: str) -> Iterator[tuple[StandInAgent, Nvim, Path]]:
    """A Neovim of a user with this init.lua, and a file of a project in it."""
    wire()
    (home / "app/.git").mkdir(parents=True)
    file = home / "app/a.txt"
    file.write_text("one\ntwo\nthree\n")
    with standing_in(home) as agent, neovim(home, file, init=init, cwd=file.parent) as nvim:
        yield agent, nvim, file


def payload(agent: StandInAgent, topic: str) -> dict[str, Any]:
    """That of the last event of a topic, once there is one."""
    events = agent.wait_for(having(topic))
    found: dict[str, Any] = [e["payload"] for e in events if e["topic"] == topic][-1]
    return found


def test_conform(home: Path) -> None:
    """The real conform.nvim: a formatter that fails on save, one that is too slow; not one that is
    not there."""
    init = f"""
    vim.opt.rtp:append({plugins("conform.nvim")})
    require('conform').setup({{
      formatters = {{
        bad = {{ command = 'sh', args = {{ '-c', 'echo oops >&2; exit 3' }} }},
        slow = {{ command = 'sleep', args = {{ '5' }} }},
      }},
      formatters_by_ft = {{ text = {{ 'bad' }} }},
      format_on_save = {{ timeout_ms = 2000 }},
    }})
    """
    with heard(home, init) as (agent, nvim, file):
        nvim.command("write")
        agent.wait_for(having("editor.save"))
        assert payload(agent, "editor.format.failed") == {
            "path": str(file), "message": "Formatter 'bad' error: oops", "command": "bad",
            "editor": "neovim",
        }  # fmt: skip
        tried = "return require('conform').format({ formatters = { ... }, timeout_ms = 100 })"
        assert nvim.lua(tried, "slow") is True
        agent.wait_for(having("editor.format.failed", 2))
        assert payload(agent, "editor.format.failed")["message"] == "Formatter 'slow' timeout"
        assert nvim.lua(tried, "nosuch") is False
        nvim.command("OpsMesh emit demo.end x=1")
        assert topics(agent.wait_for(having("demo.end"))).count("editor.format.failed") == 2


def test_conform_with_a_language_server(home: Path) -> None:
    """A server's error that comes through conform.nvim is told once, as the server's."""
    init = f"""
    vim.opt.rtp:append({plugins("conform.nvim")})
    require('conform').setup({{ default_format_opts = {{ lsp_format = 'fallback' }} }})
    """
    from tests.producers.test_neovim import FAILS, SERVER

    with heard(home, init) as (agent, nvim, _):
        nvim.lua(SERVER, FAILS)
        nvim.lua("require('conform').format()")
        nvim.lua("require('conform').format({ async = true })")
        agent.wait_for(having("editor.format.failed", 2))
        nvim.lua("vim.wait(200)")
        nvim.command("OpsMesh emit demo.end x=1")
        events = agent.wait_for(having("demo.end"))
        failed = [e["payload"] for e in events if e["topic"] == "editor.format.failed"]
        assert [(one["server"], one["message"]) for one in failed] == [("fake", "no")] * 2


#: An adapter of neotest for a file whose second test fails.
ADAPTER = """
local adapter = {
  name = 'demo',
  root = function(dir) return dir end,
  is_test_file = function(path) return path:match('%.txt$') ~= nil end,
  discover_positions = function(path)
    local function test(name, line)
      return { type = 'test', path = path, name = name, id = path .. '::' .. name,
        range = { line, 0, line, 3 } }
    end
    return require('neotest.types').Tree.from_list({
      { type = 'file', path = path, name = 'a.txt', id = path, range = { 0, 0, 3, 0 } },
      { test('good', 0) }, { test('bad', 1) },
    }, function(position) return position.id end)
  end,
  build_spec = function() return { command = { 'sh', '-c', 'exit 1' } } end,
  results = function(_, _, tree)
    local id = tree:data().path
    return {
      [id] = { status = 'failed' },
      [id .. '::good'] = { status = 'passed' },
      [id .. '::bad'] = { status = 'failed', errors = { { message = 'assert 1 == 2', line = 1 } } },
    }
  end,
}
require('neotest').setup({
  adapters = { adapter },
  consumers = { opsmesh = require('opsmesh.neotest') },
})
"""


def test_neotest(home: Path) -> None:
    """The real neotest: the test that failed is told, with its place."""
    found = plugins("neotest", "nvim-nio", "plenary.nvim")
    init = f"for _, p in ipairs({{ {found} }}) do vim.opt.rtp:append(p) end\n{ADAPTER}"
    with heard(home, init) as (agent, nvim, file):
        nvim.lua("require('neotest').run.run(...)", str(file))
        assert payload(agent, "editor.test.failed") == {
            "path": str(file), "nodeid": f"{file}::bad", "message": "assert 1 == 2", "line": 2,
            "failed": 1, "editor": "neovim",
        }  # fmt: skip


def test_overseer(home: Path) -> None:
    """The real overseer.nvim: a task that runs tests and fails is told, another one is not."""
    init = f"""
    vim.opt.rtp:append({plugins("overseer.nvim")})
    require('overseer').setup({{
      component_aliases = {{ default = {{ 'on_exit_set_status', 'opsmesh' }} }},
    }})
    """
    task = "require('overseer').new_task({ cmd = { ... } }):start()"
    with heard(home, init) as (agent, nvim, _):
        nvim.lua(task, "sh", "-c", "exit 3")
        nvim.lua(task, "python3", "-m", "unittest", "nosuch")
        told = payload(agent, "editor.test.failed")
        assert (told["command"], told["exit_code"]) == ("python3 -m unittest nosuch", 1)
        assert told["output_tail"].endswith("FAILED (errors=1)")
        assert topics(agent.events) == ["editor.test.failed"]


def test_lazy(home: Path) -> None:
    """The real lazy.nvim loads no packages, and loads ours by the spec of the page."""
    lazy = plugins("lazy.nvim")
    init = f"""
    vim.opt.rtp:prepend({lazy})
    require('lazy').setup({{
      spec = {{
        {{ dir = vim.fn.stdpath('data') .. '/site/pack/opsmesh/start/opsmesh', lazy = false }},
      }},
      change_detection = {{ enabled = false }},
    }})
    """
    with heard(home, init) as (agent, nvim, _):
        nvim.command("write")
        agent.wait_for(having("editor.save"))
        assert nvim.lua("return vim.fn.exists(':OpsMesh')") == 2
        nvim.command("help opsmesh-options")


def test_packer(home: Path) -> None:
    """The real packer.nvim leaves our package alone."""
    init = f"""
    vim.opt.rtp:append({plugins("packer.nvim")})
    require('packer').startup(function() end)
    """
    with heard(home, init) as (agent, nvim, _):
        nvim.command("write")
        agent.wait_for(having("editor.save"))


def test_the_window_in_a_terminal(home: Path) -> None:
    """In a terminal of tmux the window is drawn within its border, and the session is tmux's."""
    need("tmux")
    wire()
    socket = home / "tmux.sock"

    def tmux(*words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(socket), *words],
            env=environment(home, {}), check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout

    start = ("new-session", "-d", "-x", "100", "-y", "30")
    tmux("-f", "/dev/null", *start, f"{program()} -n -i NONE a.txt")
    try:
        until(lambda: "a.txt" in tmux("capture-pane", "-p"))
        tmux("send-keys", "-l", ":OpsMesh")
        tmux("send-keys", "Enter")
        until(lambda: "opsmesh up --detach" in tmux("capture-pane", "-p"))
        shown = tmux("capture-pane", "-p")
        assert "Session    tmux:tmux.sock:$0" in shown
        [top] = [line for line in shown.splitlines() if "╭" in line]
        assert " opsmesh " in top
        tmux("send-keys", "q")
        until(lambda: "╭" not in tmux("capture-pane", "-p"))
    finally:
        tmux("kill-server")
