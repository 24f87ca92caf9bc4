"""A nats-server whose wall clock can be moved while it runs.

A static Go program takes the time from the kernel's vDSO, which nothing can be put in front of. So
its copy here looks for the vDSO's function under a name that is not there, and falls back to the
system call; a seccomp filter hands that call, for CLOCK_REALTIME alone, to a process beside it,
which answers with the true time and an offset. Monotonic time stays true.

Run as a program it is the server's launcher: `broker_clock.py OFFSET_FILE NATS_SERVER ARGS…`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import shlex
import socket
import struct
import sys
import time
from pathlib import Path
from typing import NoReturn

#: The name that Go's runtime looks for, and one of the same length that no vDSO has.
VDSO_NAME, NO_NAME = b"__vdso_clock_gettime", b"__vdso_clock_nothere"

# linux/seccomp.h, linux/filter.h and asm/unistd_64.h
_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP, _SYS_CLOCK_GETTIME = 317, 228
_SECCOMP_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE_RECV = 1 << 3, 1 << 5
_RET_USER_NOTIF, _RET_ALLOW = 0x7FC00000, 0x7FFF0000
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_AUDIT_ARCH_X86_64 = 0xC000003E
#: Where seccomp_data holds the call's number, the architecture and the first argument.
_AT_NR, _AT_ARCH, _AT_ARG0 = 0, 4, 16
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
#: struct seccomp_notif: id, pid, flags, and of seccomp_data what comes before the arguments.
_NOTIF = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")


def patched(binary: Path, folder: Path) -> Path | None:
    """A copy that asks the kernel for the time; None when this is not the program we know."""
    data = binary.read_bytes()
    if data.count(VDSO_NAME) != 1:
        return None
    copy = folder / "nats-server-asks"
    copy.write_bytes(data.replace(VDSO_NAME, NO_NAME))
    copy.chmod(0o700)
    return copy


def launcher(binary: Path, offset: Path, folder: Path) -> Path:
    """A program to be run in the place of nats-server; `offset` holds microseconds as text."""
    script = folder / "nats-server-with-a-clock"
    words = [sys.executable, __file__, str(offset), str(binary)]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o700)
    return script


def _filter() -> int:
    """Put the filter on this process; the descriptor on which its calls can be heard."""
    program = [
        (_LOAD, 0, 0, _AT_ARCH),
        (_IF_EQUAL, 0, 5, _AUDIT_ARCH_X86_64),
        (_LOAD, 0, 0, _AT_NR),
        (_IF_EQUAL, 0, 3, _SYS_CLOCK_GETTIME),
        (_LOAD, 0, 0, _AT_ARG0),
        (_IF_EQUAL, 0, 1, time.CLOCK_REALTIME),
        (_RETURN, 0, 0, _RET_USER_NOTIF),
        (_RETURN, 0, 0, _RET_ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    flags = _NEW_LISTENER | _WAIT_KILLABLE_RECV
    listener: int = libc.syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, flags, described)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def _answer_all(listener: int, offset: Path) -> None:
    """Answer every call until nobody is left who could make one."""
    memory: dict[int, int] = {}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        ((_, what),) = poll.poll()
        if not what & select.POLLIN:
            return
        buffer = bytearray(_NOTIF.size)
        try:
            fcntl.ioctl(listener, _NOTIF_RECV, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # whoever asked is gone
                continue
            raise
        id, thread, _, _, _, _, _, address, *_ = _NOTIF.unpack(buffer)
        ns = time.time_ns() + int(offset.read_text() or 0) * 1000
        try:
            if thread not in memory:
                memory[thread] = os.open(f"/proc/{thread}/mem", os.O_RDWR)
            os.pwrite(memory[thread], struct.pack("=qq", *divmod(ns, 10**9)), address)
            fcntl.ioctl(listener, _NOTIF_SEND, _ANSWER.pack(id, 0, 0, 0))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EIO):
                raise


def main(offset: Path, argv: list[str]) -> NoReturn:
    """Become nats-server, with a clock beside it."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _, (listener, *_), _, _ = socket.recv_fds(theirs, 1, 1)
        _answer_all(listener, offset)
        os._exit(0)
    listener = _filter()
    socket.send_fds(ours, [b"."], [listener])
    os.close(listener)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
