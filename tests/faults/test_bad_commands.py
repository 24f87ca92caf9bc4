"""Commands that hang, fork, flood and ignore TERM, among good ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checks import check, rest
from tests.faults.load import load
from tests.faults.meshes import PROFILES, Mesh
from tests.faults.sizes import SLOW_SIZES

#: Numbers that nothing else on this machine sleeps for: what is left of a command is found by them.
HANG, FORK, DEAF = "86417", "86418", "86419"
#: Resident at most, in kB, of a handler process that had to read a flood.
MOST_KB = 150 * 1024

BAD = (
    PROFILES
    + f"""\
  hangs:
    on: [load.test]
    where: event.payload.n == 10
    retry: {{{{attempts: 1}}}}
    concurrency: {{{{limit: 4}}}}
    actions: [{{{{command: [sleep, '{HANG}'], timeout: 1s}}}}]
  forks:
    on: [load.test]
    where: event.payload.n == 11
    retry: {{{{attempts: 1}}}}
    concurrency: {{{{limit: 4}}}}
    actions: [{{{{command: [sh, -c, 'sleep {FORK} & sleep {FORK} & exit 0'], timeout: 10s}}}}]
  floods:
    on: [load.test]
    where: event.payload.n == 12
    retry: {{{{attempts: 1}}}}
    concurrency: {{{{limit: 4}}}}
    actions: [{{{{command: ['yes'], timeout: 1s}}}}]
  deaf:
    on: [load.test]
    where: event.payload.n == 13
    retry: {{{{attempts: 1}}}}
    concurrency: {{{{limit: 4}}}}
    actions: [{{{{command: [sh, -c, 'trap "" TERM; while :; do sleep {DEAF}; done'], timeout: 1s}}}}]
"""  # noqa: E501
)
ENDS = {"hangs": "deadlettered", "forks": "succeeded", "floods": "deadlettered"} | {
    "deaf": "deadlettered"
}


def left() -> list[str]:
    """Command lines of what still runs of the commands above."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.decode(errors="replace") in (HANG, FORK, DEAF) for word in words):
            found.append(b" ".join(words).decode(errors="replace"))
    return found


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_bad_commands(fault: Mesh, count: int) -> None:
    """Each of them comes to the end that its time limit sets, nothing of it runs on, its output is
    bounded, and no other run waits for it."""
    fault.profiles(BAD)
    fault.start_all()
    with load(fault.home, count) as events:
        events.finish()
        rest(fault)
        found = check(fault, events)
    for name, state in ENDS.items():
        mine = [run for run in found.runs if run.profile == name]
        assert [run.state for run in mine] == [state] * 4, name
    assert left() == []
    (flood, *_) = [letter for letter in found.letters if letter.profile == "floods"]
    assert "time limit" in flood.reason
    peak = Path(f"/proc/{fault.pid('handlers')}/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(peak) < MOST_KB
