"""The plugin in real headless Neovims: what is told of saves, errors, formatting and tests.

The agent is a stand-in over a real socket; `test_neovim_mesh.py` has the real one. The language
server that answers with errors is a stand-in within Neovim; ruff's is real.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.conftest import private_folders, until
from tests.producers.agent import StandInAgent, standing_in
from tests.producers.nvims import Nvim, neovim, topics, wire
from tests.router.test_session import TABLE, make

from opsmesh.producers.wiring import PROBED

RUFF: Final = Path(sys.executable).with_name("ruff")
#: A user's configuration: ruff's language server, and formatting by it before each save.
WITH_RUFF: Final = f"""
vim.lsp.config('ruff', {{
  cmd = {{ '{RUFF}', 'server' }}, filetypes = {{ 'python' }}, root_markers = {{ '.git' }},
}})
vim.lsp.enable('ruff')
vim.api.nvim_create_autocmd('BufWritePre', {{
  pattern = '*.py',
  callback = function() vim.lsp.buf.format({{ timeout_ms = 20000 }}) end,
}})
"""
#: A stand-in for a server: `answer` is called with the method and the callback of each request.
SERVER: Final = """
local answer = ...
_G.answer = loadstring(answer)()
_G.id = vim.lsp.start({
  name = 'fake',
  cmd = function()
    return {
      request = function(method, params, callback, notify)
        if method == 'initialize' then
          callback(nil, { capabilities = { documentFormattingProvider = true } })
        elseif method == 'shutdown' then
          callback(nil, vim.NIL)
        else
          _G.answer(method, callback)
        end
        return true, 1
      end,
      notify = function() return true end,
      is_closing = function() return false end,
      terminate = function() end,
    }
  end,
})
"""


class Desk:
    """A Neovim with a project, and what the agent has heard of it since it was last asked."""

    def __init__(self, root: Path, agent: StandInAgent, nvim: Nvim) -> None:
        self.root, self.agent, self.nvim = root, agent, nvim
        self._heard = 0

    def open(self, name: str, text: str) -> Path:
        """A new file of the project, in the window."""
        path = self.root / name
        path.write_text(text)
        self.nvim.command(f"edit! {path}")
        return path

    def ready(self) -> None:
        """Once ruff's server knows the file."""
        self.nvim.until(
            "local c = vim.lsp.get_clients({ bufnr = 0, name = 'ruff' })[1]"
            " return c and c:supports_method('textDocument/formatting')"
        )

    def replace(self, *lines: str) -> None:
        """Another text in the window."""
        self.nvim.lua("vim.api.nvim_buf_set_lines(0, 0, -1, false, ...)", list(lines))

    def hear(self, *wanted: str) -> list[dict[str, Any]]:
        """What is new, once one of each of these topics is among it."""
        start = self._heard
        events = self.agent.wait_for(lambda found: {*wanted} <= {*topics(found[start:])})
        self._heard = len(events)
        return events[start:]

    def new(self) -> list[dict[str, Any]]:
        """What is new up to an event that is sent now: it is the last to come."""
        self.nvim.lua("require('opsmesh').emit('demo.end', { x = 1 })")
        return self.hear("demo.end")[:-1]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One Neovim for many tests, in a git project, with ruff's language server."""
    home = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        wire()
        root = home / "app"
        (root / ".git").mkdir(parents=True)
        with standing_in(home) as agent, neovim(home, init=WITH_RUFF, cwd=root) as nvim:
            nvim.lua("require('opsmesh.inferred').PATIENCE = 20000")  # a busy machine
            yield Desk(root, agent, nvim)


def payloads(events: list[dict[str, Any]], topic: str) -> list[dict[str, Any]]:
    return [event["payload"] for event in events if event["topic"] == topic]


def test_a_save(desk: Desk) -> None:
    """A save is told with its file, project and session, and its number."""
    path = desk.open("notes.txt", "one\ntwo\n")
    desk.nvim.command("write", "write")
    first, second = desk.new()
    assert first["topic"] == "editor.save"
    assert first["payload"] == {
        "path": str(path), "language": "text", "lines": 2, "bytes": 8, "editor": "neovim",
    }  # fmt: skip
    assert (first["source"], first["workspace"]) == ("neovim", str(desk.root))
    assert first["session_id"] == f"neovim:{desk.nvim.process.pid}"
    assert second["seq"] == first["seq"] + 1
    assert second["boot_id"] == first["boot_id"]
    assert second["id"] > first["id"]


def test_what_is_no_file_of_a_project_is_not_told(desk: Desk) -> None:
    """A name with a scheme, a buffer of a plugin and a file in .git tell nothing."""
    desk.open("x.txt", "x\n")
    desk.nvim.command("write! .git/COMMIT_EDITMSG")
    desk.nvim.command("new", "setlocal buftype=acwrite", "file x://y")
    desk.nvim.command("autocmd BufWriteCmd <buffer> setlocal nomodified", "write", "bwipeout!")
    assert desk.new() == []


def test_another_name_than_the_buffers(desk: Desk) -> None:
    """`:w other` tells the other file, without what is only known of the buffer."""
    desk.open("mine.txt", "x\n")
    desk.nvim.command(f"write! {desk.root}/other.md")
    [event] = desk.new()
    assert event["payload"] == {
        "path": str(desk.root / "other.md"), "bytes": 2, "editor": "neovim",
    }  # fmt: skip


def test_bytes_that_are_no_text(desk: Desk) -> None:
    """A name that is no UTF-8 makes an event all the same."""
    desk.open("x.txt", "x\n")
    desk.nvim.lua("vim.cmd.write({ args = { vim.fn.getcwd() .. '/a\\xff\\xed\\xa0\\x80b' } })")
    [event] = desk.new()
    assert event["payload"]["path"] == f"{desk.root}/a\ufffd\ufffd\ufffd\ufffdb"


def test_a_broken_file_is_saved(desk: Desk) -> None:
    """Ruff's errors of a file that is saved are told, and that it could not be formatted; once."""
    path = desk.open("a.py", "x = 1\n")
    desk.ready()
    desk.replace("def f(:", "  return 1")
    desk.nvim.command("write")
    # the save too: where ruff takes long, the others are told while it is formatted, before it
    heard = desk.hear("editor.lsp.diagnostic.error", "editor.format.failed", "editor.save")
    [error] = payloads(heard, "editor.lsp.diagnostic.error")
    assert error == {
        "path": str(path), "count": error["count"], "line": 1, "column": 7, "server": "ruff",
        "message": "Expected a parameter or the end of the parameter list",
        "code": "invalid-syntax", "editor": "neovim",
    }  # fmt: skip
    [failed] = payloads(heard, "editor.format.failed")
    assert failed == {
        "path": str(path), "method": "textDocument/formatting", "server": "ruff",
        "inferred": True, "message": error["message"], "editor": "neovim",
    }  # fmt: skip
    # the same text again: its formatting fails again, its errors are known
    desk.nvim.command("write")
    again = desk.hear("editor.format.failed") + desk.new()
    assert sorted(topics(again)) == ["editor.format.failed", "editor.save"]


def test_errors_that_are_fixed(desk: Desk) -> None:
    """A file that has no errors any more is told as cleared, after the errors it had before."""
    path = desk.open("b.py", "print(unknown)\n")
    heard = desk.hear("editor.lsp.diagnostic.error")
    assert payloads(heard, "editor.lsp.diagnostic.error")[0]["code"] == "F821"
    desk.replace("print(1)")
    desk.nvim.command("write")
    heard = desk.hear("editor.lsp.diagnostic.cleared")
    assert payloads(heard, "editor.lsp.diagnostic.cleared") == [
        {"path": str(path), "server": "ruff", "editor": "neovim"}
    ]
    assert payloads(heard, "editor.format.failed") == []


def test_a_syntax_error_that_is_fixed_and_saved_at_once(desk: Desk) -> None:
    """Its formatting has not failed, although the error is still shown when the answer comes."""
    desk.open("ba.py", "def f(:\n  return 1\n")
    desk.hear("editor.lsp.diagnostic.error")
    desk.replace("x = 1")
    desk.nvim.command("write")
    heard = desk.hear("editor.lsp.diagnostic.cleared") + desk.new()
    assert payloads(heard, "editor.format.failed") == []


def test_errors_while_somebody_types(desk: Desk) -> None:
    """What is wrong only until the line is finished is never told; what remains is, once."""
    desk.open("c.py", "x = 1\n")
    desk.ready()
    desk.nvim.keys("oprint(half")
    desk.nvim.until("return #vim.diagnostic.get(0) > 0")
    desk.nvim.keys(")")
    desk.nvim.until(
        "local d = vim.diagnostic.get(0)[1]; return d and d.message:find('half', 1, true)"
    )
    desk.nvim.keys("<Esc>")
    [error] = payloads(desk.hear("editor.lsp.diagnostic.error"), "editor.lsp.diagnostic.error")
    assert (error["message"], error["count"]) == ("Undefined name `half`", 1)


def test_a_server_that_starts_anew(desk: Desk) -> None:
    """Neither its end nor its start is a fix, and errors that are as before are no news."""
    desk.open("d.py", "print(gone)\n")
    desk.hear("editor.lsp.diagnostic.error")
    desk.nvim.lua("for _, c in ipairs(vim.lsp.get_clients({ bufnr = 0 })) do c:stop(true) end")
    desk.nvim.until("return #vim.diagnostic.get(0) == 0")
    desk.nvim.until("return #vim.lsp.get_clients() == 0")
    desk.nvim.command("doautocmd FileType")
    desk.nvim.until("return #vim.diagnostic.get(0) > 0")
    # longer than it takes to tell either
    desk.nvim.lua("vim.wait(400)")
    assert desk.new() == []


FAILS = "return function(_, callback) callback({ code = -32603, message = 'no' }) end"


def test_formatting_that_a_server_refuses(desk: Desk) -> None:
    """Its error is told, asynchronously and not, and reaches whoever asked as it was."""
    path = desk.open("e.txt", "x\n")
    desk.nvim.lua(SERVER, FAILS)
    format = "vim.lsp.buf.format({ id = _G.id, async = ... })"
    desk.nvim.lua(format, False)
    desk.nvim.lua(format, True)
    desk.nvim.until("return vim.fn.execute('messages'):find('no') ~= nil")
    [result] = desk.nvim.lua(
        "local c = vim.lsp.get_client_by_id(_G.id);"
        "local p = vim.lsp.util.make_formatting_params();"
        "return { c:request_sync('textDocument/formatting', p, 500, 0) }"
    )
    assert result == {"err": {"code": -32603, "message": "no"}}
    told = payloads(desk.new(), "editor.format.failed")
    assert told == [
        {
            "path": str(path), "message": "no", "code": -32603, "server": "fake",
            "method": "textDocument/formatting", "editor": "neovim",
        }
    ] * 3  # fmt: skip


def test_formatting_that_comes_too_late(desk: Desk) -> None:
    """A server that does not answer in time is told, and `request_sync` says so as ever."""
    desk.open("f.txt", "x\n")
    desk.nvim.lua(SERVER, "return function() end")
    result = desk.nvim.lua(
        "local c = vim.lsp.get_client_by_id(_G.id);"
        "local p = vim.lsp.util.make_formatting_params();"
        "local r, err = c:request_sync('textDocument/formatting', p, 10, 0);"
        "return { r == nil, err }"
    )
    assert result == [True, "timeout"]
    [failed] = payloads(desk.new(), "editor.format.failed")
    assert failed["message"] == "no answer: timeout"


def test_formatting_that_is_cancelled_or_has_nothing_to_do(desk: Desk) -> None:
    """Neither is a failure, of a text without a syntax error."""
    desk.open("g.txt", "x\n")
    desk.nvim.lua("require('opsmesh.inferred').PATIENCE = 50")
    answers = "return function(_, callback) callback({ code = -32801, message = 'x' }) end"
    desk.nvim.lua(SERVER, answers)
    desk.nvim.lua("vim.lsp.buf.format({ id = _G.id })")
    desk.nvim.lua("_G.answer = function(_, callback) callback(nil, nil) end")
    desk.nvim.lua("vim.lsp.buf.format({ id = _G.id })")
    desk.nvim.lua("vim.wait(150)")  # longer than a syntax error is waited for
    desk.nvim.lua("require('opsmesh.inferred').PATIENCE = 20000")
    assert desk.new() == []


def test_an_error_in_the_askers_own_code_is_still_theirs(desk: Desk) -> None:
    """A callback of somebody's that raises, raises."""
    desk.open("h.txt", "x\n")
    desk.nvim.lua(SERVER, FAILS)
    raised = desk.nvim.lua(
        "local c = vim.lsp.get_client_by_id(_G.id);"
        "local ok, err = pcall(c.request, c, 'textDocument/formatting',"
        " vim.lsp.util.make_formatting_params(), function() error('mine') end, 0);"
        "return { ok, err:match('mine') }"
    )
    assert raised == [False, "mine"]
    assert topics(desk.new()) == ["editor.format.failed"]


def test_filters(desk: Desk) -> None:
    """A filter that fails is told, typed, by `gq` and by a script; `:r !` and `:w !` are none."""
    desk.open("i.txt", "x\ny\n")
    desk.nvim.keys(':%!sh -c "cat; sleep 0.2; exit 4"<CR>')
    [failed] = payloads(desk.hear("editor.format.failed"), "editor.format.failed")
    assert (failed["command"], failed["exit_code"]) == ('sh -c "cat; sleep 0.2; exit 4"', 4)
    desk.nvim.command(r"set formatprg=sh\ -c\ 'cat;exit\ 5'")
    desk.nvim.keys("gggqG")
    [event] = desk.hear("editor.format.failed")
    assert event["payload"]["command"] == "sh -c 'cat;exit 5'"
    assert event["exit_code"] == 5
    desk.nvim.command('silent! %!sh -c "cat; exit 6"')
    desk.nvim.command(
        'silent! r !sh -c "exit 7"', 'silent! w !sh -c "cat; exit 8"', "silent! %!cat"
    )
    [failed] = payloads(desk.new(), "editor.format.failed")
    assert failed["exit_code"] == 6


def test_tests_that_fail(desk: Desk) -> None:
    """`:OpsMeshTest` tells a failure with the end of its output, which is in the quickfix list."""
    path = desk.open("j.py", "x = 1\n")
    desk.nvim.command(r'OpsMeshTest printf "%s:3: boo\n" % ; exit 3')
    [event] = desk.hear("editor.test.failed")
    told = event["payload"]
    assert told["output_tail"] == f"{path}:3: boo\n"
    assert (told["exit_code"], event["workspace"]) == (3, str(desk.root))
    assert told["duration_ms"] == event["duration_ms"]
    assert desk.nvim.lua("local q = vim.fn.getqflist()[1]; return { q.lnum, q.text }") == [
        3,
        " boo",
    ]
    desk.nvim.command("OpsMeshTest true")
    desk.nvim.until("return vim.fn.execute('messages'):find('passed in') ~= nil")
    assert desk.new() == []


def endless(nvim: Nvim, told: Path, before: str = "true") -> Path:
    """Tests that run: their shell, in /proc. It has a child, because something comes after it."""
    nvim.command(f"OpsMeshTest {before}; echo $$ > {told}; sleep 60; true")
    until(lambda: told.exists() and told.read_text().endswith("\n"))
    return Path("/proc", told.read_text().strip())


def test_tests_that_are_stopped(desk: Desk, tmp_path: Path) -> None:
    """`:OpsMeshTest!` ends them and what they started, and that is no failure."""
    endless(desk.nvim, tmp_path / "pid")
    desk.nvim.command("OpsMeshTest!")
    desk.nvim.until("return vim.fn.execute('messages'):find('stopped: true') ~= nil")
    assert desk.new() == []


def test_tests_that_will_not_stop(desk: Desk, tmp_path: Path) -> None:
    """A second `:OpsMeshTest!` kills those that the first did not end."""
    endless(desk.nvim, tmp_path / "pid", "trap '' TERM")
    desk.nvim.command("OpsMeshTest!", "OpsMeshTest!")
    desk.nvim.until("return vim.fn.execute('messages'):find('stopped: trap') ~= nil")


def test_tests_left_behind(desk: Desk, tmp_path: Path) -> None:
    """Tests end with the Neovim that ran them."""
    with neovim(desk.root.parent, cwd=desk.root) as nvim:
        shell = endless(nvim, tmp_path / "pid")
        assert nvim.quit() == 0
    until(lambda: not shell.exists())


def test_terminals(desk: Desk) -> None:
    """A terminal that ran tests tells their failure; one that ran something else does not."""
    desk.nvim.command("terminal python3 -m unittest -q nosuch")
    [event] = desk.hear("editor.test.failed")
    told = event["payload"]
    assert told["command"].endswith("python3 -m unittest -q nosuch")
    assert told["exit_code"] == 1
    assert told["output_tail"].endswith("FAILED (errors=1)")
    desk.nvim.command("bwipeout!", 'terminal sh -c "exit 3"')
    desk.nvim.until("return vim.fn.jobwait({ vim.b.terminal_job_id }, 0)[1] ~= -1")
    desk.nvim.command("bwipeout!")
    assert desk.new() == []


@pytest.mark.parametrize(
    ("command", "tests"),
    [
        ("pytest -q", True), ("/bin/bash -c python3 -m pytest", True), ("uv run pytest", True),
        ("cd x && go test ./...", True), ("npm run test:unit", True), ("make -j4 check", True),
        ("env A=1 cargo nextest run", True), ("timeout 5 npx jest", True),
        ("cargo build", False), ("npm run build", False), ("vim test.py", False),
        ("make all", False), ("python3 test.py", False), ("cat pytest.ini", False), ("", False),
    ],
)  # fmt: skip
def test_what_runs_tests(desk: Desk, command: str, tests: bool) -> None:
    """A command line runs tests, or not."""
    found = desk.nvim.lua("return require('opsmesh.testlike').is_test(...)", command)
    assert found is tests


def test_neotest_and_overseer(desk: Desk) -> None:
    """Their results are told: stand-ins that call us as the two document it."""
    path = str(desk.root / "k.py")
    desk.nvim.lua(
        """
        local path = ...
        local function node(kind, line)
          local data = { type = kind, path = path, range = { line, 0, line, 9 } }
          return { data = function() return data end }
        end
        local tree = { [path] = node('file', 0), [path .. '::good'] = node('test', 1),
          [path .. '::bad'] = node('test', 5) }
        local client = { listeners = {} }
        function client:get_position() return { get_key = function(_, id) return tree[id] end } end
        require('opsmesh.neotest')(client)
        client.listeners.results('adapter', { [path .. '::bad'] = { status = 'failed' } }, true)
        client.listeners.results('adapter', {
          [path] = { status = 'failed' },
          [path .. '::good'] = { status = 'passed' },
          [path .. '::bad'] = { status = 'failed', short = 'E x\\27[31m', errors =
            { { message = 'assert 1 == 2', line = 6 } } },
        }, false)
        """,
        path,
    )
    [failed] = payloads(desk.hear("editor.test.failed"), "editor.test.failed")
    assert failed == {
        "nodeid": f"{path}::bad", "message": "assert 1 == 2", "path": path, "line": 7, "failed": 1,
        "output_tail": "E x", "editor": "neovim",
    }  # fmt: skip
    desk.nvim.lua(
        """
        local c = require('overseer.component.opsmesh').constructor({})
        local function ended(task, status)
          c:on_start(task)
          c:on_complete(task, status, {})
        end
        ended({ cmd = { 'go', 'test' }, exit_code = 2, cwd = vim.fn.getcwd() }, 'FAILURE')
        ended({ cmd = { 'go', 'test' }, exit_code = 0 }, 'SUCCESS')
        ended({ cmd = { 'go', 'build' }, exit_code = 2 }, 'FAILURE')
        """
    )
    [failed] = payloads(desk.new(), "editor.test.failed")
    assert (failed["command"], failed["exit_code"]) == ("go test", 2)


def test_conform(desk: Desk) -> None:
    """conform.nvim's errors are told, and go on to whoever asked: a stand-in as it documents it."""
    path = desk.open("l.txt", "x\n")
    answers = desk.nvim.lua(
        """
        local conform = { format = function(opts, callback)
          callback(opts.err)
          return opts.err == nil, 'more'
        end }
        package.loaded['conform'] = conform
        vim.cmd('doautocmd BufReadPost')
        local heard = {}
        local function note(err) heard[#heard + 1] = err or 'fine' end
        local first = { conform.format({ err = 'Formatter x error', formatters = { 'x' } }, note) }
        local second = { conform.format({}, note) }
        conform.format({ err = 'No formatters available for buffer' }, note)
        package.loaded['conform'] = nil
        return { first, second, heard }
        """
    )
    assert answers == [
        [False, "more"],
        [True, "more"],
        ["Formatter x error", "fine", "No formatters available for buffer"],
    ]
    assert payloads(desk.new(), "editor.format.failed") == [
        {"path": str(path), "message": "Formatter x error", "command": "x", "editor": "neovim"}
    ]


def test_a_mistake_of_ours_never_reaches_the_editor(desk: Desk) -> None:
    """A hook that raises is counted and shown by the health check; the save goes on in silence."""
    path = desk.open("m.txt", "x\n")
    desk.nvim.command("messages clear")
    desk.nvim.lua(
        "local saves = require('opsmesh.saves'); _G.was = saves.written;"
        "saves.written = function() error('broken') end"
    )
    desk.replace("after")
    desk.nvim.command("silent write")
    assert path.read_text() == "after\n"
    assert desk.nvim.lua("return vim.fn.execute('messages')").strip() == ""
    failures = desk.nvim.told()["failures"]
    assert (failures["count"], failures["last"].endswith("broken")) == (1, True)
    assert "the plugin failed 1 times" in health(desk.nvim)
    desk.nvim.lua(
        "require('opsmesh.saves').written = _G.was; require('opsmesh.hooks').failures.count = 0"
    )
    assert desk.new() == []


def health(nvim: Nvim) -> str:
    """What :checkhealth opsmesh says."""
    nvim.command("silent OpsMesh health")
    text: str = nvim.lua("return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\\n')")
    nvim.command("bwipeout!")
    return text


def test_options(desk: Desk) -> None:
    """What is switched off or ignored is not told; what is no option is named, and harmless."""
    desk.open("n.log", "x\n")
    desk.nvim.lua(
        "require('opsmesh').setup({ ignore = { '*.log' }, evnts = 1, events = { save = 'yes' } })"
    )
    desk.nvim.command("write")
    said = health(desk.nvim)
    assert "option evnts is no option" in said
    assert "option events.save is a string, not a boolean" in said
    desk.nvim.lua("require('opsmesh').setup({ events = { save = false } })")
    desk.nvim.command("write")
    desk.nvim.lua("require('opsmesh').setup({}); vim.g.opsmesh = { enabled = false }")
    desk.nvim.lua("require('opsmesh.config').set({ enabled = false })")
    desk.nvim.command("write")
    desk.nvim.lua("require('opsmesh.config').set(nil); vim.g.opsmesh = nil")
    assert desk.new() == []
    desk.nvim.command("write")
    assert topics(desk.new()) == ["editor.save"]


def test_events_of_ones_own(desk: Desk) -> None:
    """`:OpsMesh emit` and `require('opsmesh').emit` tell what a user likes."""
    desk.nvim.command("OpsMesh emit deploy.requested target=staging tries=3")
    desk.nvim.lua("require('opsmesh').emit('demo.it', { list = { 1, 2 } }, { severity = 'warn' })")
    desk.nvim.lua(
        "local t = vim.uv.new_timer(); _G.fast = 0;"
        "t:start(0, 0, function()"
        " require('opsmesh').emit('demo.fast', { n = 1 }); _G.fast = 1 end);"
        "vim.wait(60000, function() return _G.fast == 1 end, 1)"
    )
    first, second, third = desk.new()
    assert third["topic"] == "demo.fast"
    assert (first["topic"], first["payload"]) == (
        "deploy.requested",
        {"target": "staging", "tries": 3},
    )
    assert (second["severity"], second["payload"]) == ("warn", {"list": [1, 2]})


def test_what_cannot_be_an_event(desk: Desk) -> None:
    """It raises nothing, gives no id, and is counted."""
    code = "return { require('opsmesh').emit('demo.it', { f = print, n = math.huge }) == nil }"
    assert desk.nvim.lua(code) == [True]
    assert desk.nvim.told()["failures"]["count"] == 1
    desk.nvim.lua("require('opsmesh.hooks').failures.count = 0")
    assert desk.new() == []


def test_a_probe_fires_nothing(desk: Desk) -> None:
    """What `doctor --probe` saves is told as no news, with more hops than profiles allow."""
    desk.open("o.txt", "x\n")
    desk.nvim.lua("require('opsmesh').setup({ events = { save = false } })")
    desk.nvim.command(f"silent! write! {desk.root}/{PROBED}1")
    desk.nvim.lua("require('opsmesh.config').set(nil)")
    [event] = desk.new()
    assert (event["severity"], event["hops"] > 64) == ("info", True)


def test_completion(desk: Desk) -> None:
    """`:OpsMesh` completes what may follow."""
    complete = "return vim.fn.getcompletion(..., 'cmdline')"
    assert desk.nvim.lua(complete, "OpsMesh e") == ["emit", "enable"]
    desk.nvim.lua("require('opsmesh.view').questions = { { id = '01a2-x' }, { id = '01b' } }")
    assert desk.nvim.lua(complete, "OpsMesh approve 01a") == ["01a2-x"]


def test_sessions(desk: Desk, tmp_path: Path) -> None:
    """The rule in Lua gives what the table of all its ports says."""
    found = desk.nvim.lua(
        "return vim.tbl_map(require('opsmesh.session').of_environment, ...)",
        [{**case["env"], "_": ""} for case in TABLE["session"]],
    )
    assert found == [case["is"] for case in TABLE["session"]]
    for number, case in enumerate(TABLE["workspace"]):
        root = tmp_path / str(number)
        root.mkdir()
        make(root, case["made"])
        env = {"HOME": str(root / "home"), **case["env"]}
        wanted = case["is"]
        expected = wanted[1:] if wanted.startswith("=") else str(root / wanted)
        code = "return require('opsmesh.session').workspace(...)"
        assert desk.nvim.lua(code, str(root / case["path"]), env) == expected, case["what"]


@pytest.mark.parametrize(
    ("variables", "session", "exported"),
    [
        ({}, "neovim:PID", "neovim:PID"),
        ({"KITTY_WINDOW_ID": "5", "XDG_SESSION_ID": "3"}, "neovim:PID", "neovim:PID"),
        ({"ZELLIJ_SESSION_NAME": "dev"}, "zellij:dev", ""),
        ({"OPSMESH_EDITOR_SESSION": "vscode:1"}, "vscode:1", "vscode:1"),
    ],
)
def test_the_session_of_a_neovim(
    home: Path, variables: dict[str, str], session: str, exported: str
) -> None:
    """Outside of a multiplexer it is one of its own, and so is what it starts."""
    wire()
    with neovim(home, env=variables) as nvim:
        own = nvim.lua("return require('opsmesh.session').own()")
        started = nvim.lua("return vim.fn.system('printf %s \"$OPSMESH_EDITOR_SESSION\"')")
        pid = str(nvim.process.pid)
    assert (own, started) == (session.replace("PID", pid), exported.replace("PID", pid))


def test_it_loads_little_at_the_start(home: Path) -> None:
    """A Neovim that has nothing to tell has loaded three of its modules."""
    wire()
    with neovim(home) as nvim:
        loaded = nvim.lua(
            "return vim.tbl_filter(function(n) return vim.startswith(n, 'opsmesh') end,"
            " vim.tbl_keys(package.loaded))"
        )
    assert set(loaded) == {"opsmesh.hooks", "opsmesh.session", "opsmesh.commands"}


def test_the_tags_of_the_help_are_its_own(home: Path) -> None:
    """`:help opsmesh` is found, and `:helptags` would write the file that is there."""
    folder = wire() / "doc"
    before = (folder / "tags").read_text()
    with neovim(home) as nvim:
        nvim.command("help opsmesh-options", f"helptags {folder}")
    assert (folder / "tags").read_text() == before


@pytest.mark.parametrize(
    ("code", "message", "syntax"),
    [
        ("invalid-syntax", "Expected `:`", True),
        (None, '"(" was not closed: unclosed', True),
        (1005, "';' expected.", True),
        ("SC1073", "Couldn't parse this test expression.", True),
        ("parse", "expected `)` but instead found `}`", True),
        ("E1", "SyntaxError: bad", True),
        ("F821", "Undefined name `expected`", False),
        (2304, "Cannot find name 'x'.", False),
        (None, "Undefined variable x", False),
    ],
)
def test_what_is_an_error_of_syntax(
    desk: Desk, code: str | int | None, message: str, syntax: bool
) -> None:
    """An error says that the text cannot be parsed, or not."""
    found = desk.nvim.lua(
        "local code, message = ...;"
        "if code == vim.NIL then code = nil end;"
        "return require('opsmesh.inferred').is_syntax({ code = code, message = message })",
        code,
        message,
    )
    assert found is syntax


def test_reports_of_the_text_before(desk: Desk) -> None:
    """Of a text that was just changed a late report without errors hides no syntax error, and one
    with an error makes none: a stand-in for a slow server."""
    desk.open("p.txt", "x\n")
    desk.nvim.lua(SERVER, "return function(_, callback) callback(nil, nil) end")
    # both in one go: an error is taken for one that stays after CONFIRM, 60 ms
    reports = (
        "for _, broken in ipairs({ ... }) do"
        " vim.diagnostic.set(vim.api.nvim_create_namespace('vim.lsp.fake.1'), 0, broken"
        " and { { lnum = 0, col = 0, severity = 1, message = 'invalid syntax', code = 'x' } }"
        " or {}) end"
    )
    format = "vim.lsp.buf.format({ id = _G.id })"
    desk.replace("broken")
    desk.nvim.lua(format)
    desk.nvim.lua(reports, False, True)
    assert payloads(desk.hear("editor.format.failed"), "editor.format.failed")[0]["inferred"]
    desk.replace("mended")
    desk.nvim.lua(format)
    desk.nvim.lua(reports, True, False)
    desk.nvim.lua("vim.wait(150)")  # longer than it is looked at again
    assert payloads(desk.new(), "editor.format.failed") == []
