"""Where a program was when it crashed: gdb over its core, with nothing of the program's run.

gdb reads a stranger's core and program: no start-up file, no script that a program brings along
(auto-load), no download (debuginfod). Values of arguments and variables are left out unless they
are asked for: a password is an argument too.
"""

from __future__ import annotations

import asyncio
import lzma
import tempfile
from pathlib import Path
from typing import BinaryIO, Final, cast

from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable, said, why
from opsmesh.handlers.evidence import zst

#: Frames of each thread.
FRAMES: Final = 64
#: Bytes that a compressed core may become; a larger one is not unpacked.
MAX_CORE: Final = 2 * 2**30
#: Bytes that are unpacked at once.
BLOCK: Final = 2**20


async def of_core(
    request: Request, *, exe: str | None, core: Path, name: str, arguments: bool
) -> Piece:
    """The backtrace of every thread; Unavailable when the core cannot be read."""
    if exe is None:
        raise Unavailable("the event names no program (exe), and without it a core says little")
    if core.suffix not in (".zst", ".xz", ".lz4"):
        return await _gdb(request, exe, core, name, arguments)
    if core.suffix == ".lz4":
        raise Unavailable(f"{core}: a core in lz4 is unpacked by coredumpctl alone")
    with tempfile.TemporaryDirectory(prefix="core-", dir=request.ctx.workdir) as folder:
        plain = Path(folder, "core")
        await asyncio.to_thread(_unpack, core, plain)
        return await _gdb(request, exe, plain, name, arguments)


async def _gdb(request: Request, exe: str, core: Path, name: str, arguments: bool) -> Piece:
    # -iex: before the program is read, which is when it would load what it brings along
    argv = ["gdb", "-nx", "-nh", "-batch", "-quiet"]
    for command in ("set auto-load off", "set debuginfod enabled off", "set confirm off"):
        argv += ["-iex", command]
    shown = "all" if arguments else "none"
    for command in (
        "set pagination off",
        "set width 0",
        f"set print frame-arguments {shown}",
        "set print entry-values no",
        f"thread apply all backtrace {FRAMES}",
    ):
        argv += ["-ex", command]
    argv += [exe, str(core)]
    env = {**request.env, "DEBUGINFOD_URLS": "", "HOME": str(request.ctx.workdir)}
    limit = max(1.0, request.timeout_s * 0.8)
    ended = await request.run(argv, env=env, timeout_s=limit)
    data = said(ended)
    error = why(ended, limit)
    if error is None and b"\n#0 " not in data:
        error = "gdb found no frame in this core"
    return request.piece(
        data,
        name=name,
        command=tuple(argv),
        exit_code=ended.exit_code,
        truncated=ended.truncated,
        error=error,
        facts={"frames": _top(data)},
    )


def _top(data: bytes) -> list[str]:
    """The innermost frames of the thread that crashed, which gdb prints last or alone."""
    lines = data.decode(errors="replace").splitlines()
    threads = [n for n, line in enumerate(lines) if line.startswith("Thread 1 ")]
    begin = threads[0] + 1 if threads else 0
    frames = []
    for line in lines[begin:]:
        if line.startswith("#"):
            frames.append(" ".join(line.split())[:200])
        elif frames:
            break
    return frames[:8]


def _unpack(core: Path, plain: Path) -> None:
    total = 0
    with plain.open("xb") as target, _opened(core) as source:
        try:
            while block := source.read(BLOCK):
                total += len(block)
                if total > MAX_CORE:
                    raise Unavailable(f"{core}: unpacked it is larger than {MAX_CORE} bytes")
                target.write(block)
        except (EOFError, lzma.LZMAError, zst.library().ZstdError) as error:
            raise Unavailable(f"{core}: {error}") from None


def _opened(core: Path) -> BinaryIO:
    if core.suffix == ".xz":
        return cast(BinaryIO, lzma.open(core, "rb"))
    return cast(BinaryIO, zst.library().open(core, "rb"))
