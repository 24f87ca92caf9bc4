"""A backtest over the evidence archive, shared between processes by profiles.

Every process reads the whole archive, which is cheap, and decides for its own profiles: windows
need their events in order, so a profile is never shared.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from opsmesh.handlers.backtest.backtest import Backtest
from opsmesh.handlers.backtest.result import Result
from opsmesh.handlers.backtest.source import Source
from opsmesh.router.conditions import Expression
from opsmesh.router.rule import Rule
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas.registry import load_registry

if TYPE_CHECKING:
    from opsmesh.handlers.profiles.profile import Profile

#: Seconds between looks at what the processes have done.
LOOK: Final = 0.1
#: What a decision costs, about, without a condition and with one.
PLAIN: Final = 2
CONDITION: Final = 3

#: Told how much is done, of how much.
Progress = Callable[[int, int], None]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one process decides. Compiled conditions cannot be sent: they go as text beside."""

    folder: Path
    rules: tuple[tuple[Rule, str | None, str | None], ...]
    since_us: int | None
    until_us: int | None
    host: str | None
    topics: Path | None


def over_archive(
    folder: Path,
    profiles: Sequence[Profile],
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    topics: Path | None = None,
    host: str | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Result:
    """`backtest.backtest` over what the archive has from `since_us` on and before `until_us`.

    `topics` is the user's topics file. With more than one job the result is the same; a script that
    calls it then needs the usual `if __name__ == "__main__"`, since its processes are spawned.
    """
    source = Source(folder, since_us=since_us, until_us=until_us)
    rules = [profile.rule for profile in profiles]
    shares = _shares(rules, source, jobs)
    tasks = [
        Task(
            folder=folder,
            rules=tuple(_packed(rules[n]) for n in share),
            since_us=since_us,
            until_us=until_us,
            host=host,
            topics=topics,
        )
        for share in shares
    ]
    if len(tasks) <= 1:
        tell = None if progress is None else lambda done: progress(done, source.size)
        return _decide(tasks[0], tell)
    parts = _in_processes(tasks, progress, total=source.size * len(tasks))
    found = {
        n: tested
        for share, part in zip(shares, parts, strict=True)
        for n, tested in zip(share, part.profiles, strict=True)
    }
    merged = [found[n] for n in range(len(rules))]
    return msgspec.structs.replace(parts[0], profiles=merged)


def _in_processes(tasks: list[Task], progress: Progress | None, *, total: int) -> list[Result]:
    # spawn: a fork would copy whatever threads and locks the caller has
    context = multiprocessing.get_context("spawn")
    done = context.Array("q", len(tasks), lock=False)
    ended = context.Value("b", 0, lock=False)
    pool = ProcessPoolExecutor(
        len(tasks), mp_context=context, initializer=_begin, initargs=(done, ended)
    )
    with pool:
        futures = [pool.submit(_work, n, task) for n, task in enumerate(tasks)]
        try:
            waiting = set(futures)
            while waiting:
                waiting = wait(waiting, timeout=LOOK).not_done
                if progress is not None:
                    progress(sum(done), total)
            return [msgspec.msgpack.decode(future.result(), type=Result) for future in futures]
        except BaseException:
            ended.value = 1  # a worker looks at it; without that, leaving the pool waits for all
            raise


_shared: tuple[Any, Any]


def _begin(done: Any, ended: Any) -> None:
    global _shared
    _shared = (done, ended)


def _work(number: int, task: Task) -> bytes:
    """In a process of its own."""
    done, ended = _shared

    def tell(count: int) -> None:
        done[number] = count
        if ended.value:
            raise InterruptedError

    # what a decision makes has no cycles, and looking for some costs a tenth of the time
    gc.freeze()
    gc.disable()
    return msgspec.msgpack.encode(_decide(task, tell))


def _decide(task: Task, tell: Callable[[int], None] | None) -> Result:
    rules = [
        msgspec.structs.replace(rule, where=_compiled(where), unless_where=_compiled(unless))
        for rule, where, unless in task.rules
    ]
    run = Backtest(rules, host=task.host, upcast=load_registry(task.topics).upcast)
    source = Source(task.folder, since_us=task.since_us, until_us=task.until_us)
    for message in source.read(run.wants, tell=tell):
        run.take(message)
    result = run.end(source.last_us if task.until_us is None else task.until_us)
    return msgspec.structs.replace(result, messages=source.messages)


def _shares(rules: Sequence[Rule], source: Source, jobs: int) -> list[list[int]]:
    """The rules' numbers for each process, so that each has about as much to do."""
    jobs = min(jobs, len(rules))
    if jobs <= 1:
        return [list(range(len(rules)))]
    topics = source.frequent()
    costs = []
    for rule in rules:
        shown = sum(count for topic, count in topics.items() if listens(rule.decided, topic))
        costs.append(1 + shown * (PLAIN if rule.where is None else CONDITION))
    shares: list[list[int]] = [[] for _ in range(jobs)]
    loads = [0] * jobs
    for n in sorted(range(len(rules)), key=lambda n: -costs[n]):
        least = loads.index(min(loads))
        shares[least].append(n)
        loads[least] += costs[n]
    return shares


def _packed(rule: Rule) -> tuple[Rule, str | None, str | None]:
    plain = msgspec.structs.replace(rule, where=None, unless_where=None)
    return plain, _text(rule.where), _text(rule.unless_where)


def _text(expression: Expression | None) -> str | None:
    return None if expression is None else expression.text


def _compiled(text: str | None) -> Expression | None:
    return None if text is None else Expression(text)
