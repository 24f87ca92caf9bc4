"""`collect`: an evidence bundle, which is a folder with a manifest of SHA-256 sums.

    collect: [unit_status, journal, {file: "~/.config/app.conf"}, {command: [git, status]}]
    collect: {items: [coredump, package_versions], report: true}

A bundle is there as a whole or not at all. What a collector could not get is written into the
manifest, and the bundle stands all the same: half of the evidence is better than none.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self, cast

import msgspec
from pydantic import (
    BaseModel,
    Field,
    StringConstraints,
    create_model,
    field_validator,
    model_validator,
)

from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.environment import step_environment, write_event
from opsmesh.handlers.actions.spec import Duration, Spec
from opsmesh.handlers.bundles import folders, write
from opsmesh.handlers.bundles.report import ReportTemplate
from opsmesh.handlers.collectors import registry
from opsmesh.handlers.collectors.contract import Collector, Piece, Request
from opsmesh.handlers.errors import HandlersError
from opsmesh.schemas import times
from opsmesh.schemas.nearest import did_you_mean

#: Seconds that an item may take: one that hangs must not cost the other pieces.
TIMEOUT_S: Final = 10.0
#: Bytes of a piece, unless its item says otherwise, and the most that it may say.
DEFAULT_BYTES: Final = 1024 * 1024
MAX_BYTES: Final = 64 * 1024 * 1024
#: Bytes of a bundle.
TOTAL_BYTES: Final = 64 * 1024 * 1024
#: Seconds that all items together may take, where the step has no limit of its own: less than the
#: minute that an attempt has.
TOTAL_S: Final = 45.0
#: Seconds of the step's and the run's limits that are left for ending what hangs, and for writing.
WRITING_S: Final = 5.0
#: Seconds that a program gets to end, before nobody waits for its collector any more.
GRACE_S: Final = 5.0
#: Bytes of JSON of all facts in the step's output, which lies in the ledger.
MAX_FACTS: Final = 32 * 1024

FOUND: Final = registry.discover()

_NOT_A_WORD = re.compile(r"[^A-Za-z0-9_]+")


class _Item(Spec):
    """One thing to collect: exactly one kind, and a name for its file."""

    name: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$")] | None,
        Field(description="The piece's file in the bundle, and its name in the report."),
    ] = None
    timeout: Annotated[Duration, Field(gt=0)] = TIMEOUT_S
    max_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES)] = DEFAULT_BYTES

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in FOUND.words:
                raise ValueError(_unknown(value))
            return {value: {}}
        if isinstance(value, dict):  # `journal:` with nothing after it is the plain word
            own = cls.model_fields
            broken = next((k for k in value if k in FOUND.problems and k not in own), None)
            if broken is not None:
                raise ValueError(_unknown(broken))
            return {k: {} if k in FOUND.words and v is None else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in FOUND.collectors if getattr(self, kind) is not None]
        if len(given) != 1:
            kinds = ", ".join(FOUND.collectors)
            raise ValueError(f"has {' and '.join(given) or 'none'} of {kinds}; write one")
        return self

    @property
    def kind(self) -> str:
        """The collector's word."""
        return next(kind for kind in FOUND.collectors if getattr(self, kind) is not None)


def _unknown(word: str) -> str:
    if word in FOUND.problems:
        return f"the plug-in for {word!r} is broken: {FOUND.problems[word]}"
    if word in FOUND.collectors:
        return f"{word!r} needs a value: write {{{word}: …}}"
    words = FOUND.words
    return f"{word!r} is not one of {', '.join(words)}{did_you_mean(word, words)}"


def _item_model() -> type[_Item]:
    """An item with a key for each collector that there is: editors complete it, and errors name
    the nearest key, as everywhere in a profile."""
    fields: dict[str, Any] = {
        key: (kind.spec | None, Field(default=None, description=(kind.__doc__ or "").strip()))
        for key, kind in FOUND.collectors.items()
    }
    model: Any = create_model("CollectItem", __base__=_Item, **fields)
    return cast(type[_Item], model)


ItemSpec: Final = _item_model()


class _CollectSpec(Spec):
    """What is collected, and what becomes of it."""

    report: Annotated[
        bool | str,
        Field(
            description="report.md in the bundle: Markdown with placeholders over the event and "
            "`pieces`; true: what opsmesh makes of it."
        ),
    ] = False
    share: Annotated[
        bool, Field(description="Whether other hosts of the mesh may have the bundle.")
    ] = True
    total_bytes: Annotated[int, Field(ge=4096, le=1024 * 1024 * 1024)] = TOTAL_BYTES

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, dict) and "items" in value:
            return value
        return {"items": value if isinstance(value, list) else [value]}

    @field_validator("report")
    @classmethod
    def _readable(cls, value: bool | str) -> bool | str:
        if isinstance(value, str):
            ReportTemplate(value)  # an error in a placeholder belongs to the place where it stands
        return value


CollectSpec: Final[Any] = create_model(
    "CollectActionSpec",
    __base__=_CollectSpec,
    items=(Annotated[list[ItemSpec], Field(min_length=1, max_length=100)], ...),  # type: ignore[arg-type,valid-type]
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item, ready to be collected."""

    collector: Collector
    key: str
    name: str | None
    timeout_s: float
    max_bytes: int


class Collect:
    """Makes one bundle; `steps.<id>.path` is its folder, `steps.<id>.bundle` its id."""

    key: ClassVar[str] = "collect"
    spec: ClassVar[type[BaseModel]] = CollectSpec
    #: Collectors of plug-ins that cannot be loaded.
    problems: ClassVar[Mapping[str, str]] = FOUND.problems

    def __init__(self, spec: Any) -> None:
        self._spec = spec
        self._items = list(_items(spec.items))
        self._report: ReportTemplate | None = None
        if spec.report is not False:
            self._report = ReportTemplate(None if spec.report is True else spec.report)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a list of items, one item, or `{items: …}` with what becomes of them."""
        return cls(CollectSpec.model_validate(value))

    def describe(self) -> dict[str, Any]:
        """The items written out; of the rest what is not as usual."""
        items = [item.model_dump(mode="json", exclude_none=True) for item in self._spec.items]
        rest = self._spec.model_dump(mode="json", exclude={"items"}, exclude_defaults=True)
        return {"items": items, **rest}

    async def run(self, ctx: StepContext) -> StepResult:
        """Collect everything at once, then write the bundle."""
        folder, done = await asyncio.to_thread(write.place, ctx)
        if not done:
            started_us = times.now_us()
            env = step_environment(ctx, write_event(ctx))
            pieces = await self._collect(ctx, env)
            reporter = None if self._report is None else _reporter(self._report, ctx)
            await asyncio.to_thread(
                write.write,
                folder,
                ctx,
                pieces,
                started_us=started_us,
                total_bytes=self._spec.total_bytes,
                share=self._spec.share,
                reporter=reporter,
            )
        output = await asyncio.to_thread(_output, folder)
        return StepResult(ok=True, output=output, evidence_path=str(folder))

    async def _collect(self, ctx: StepContext, env: Mapping[str, str]) -> list[Piece]:
        limit = _limit(ctx)
        asked = [asyncio.create_task(_ask(item, ctx, env)) for item in self._items]
        late: set[asyncio.Task[list[Piece]]] = set(asked)
        try:
            _, late = await asyncio.wait(asked, timeout=limit)
        finally:
            for task in late:
                task.cancel()
            if late:  # their programs end with them
                await asyncio.wait(late)
        found: list[Piece] = []
        for item, task in zip(self._items, asked, strict=True):
            if task in late:
                error = f"not done within {limit:g} s, which all items together have"
                found += _keyed(item, [Piece(name=_name(item), source=item.key, error=error)])
            else:
                found += task.result()
        return found


def _reporter(report: ReportTemplate, ctx: StepContext) -> write.Reporter:
    """Makes the report of clean pieces and clean variables: of a secret that a template cuts in two
    nobody would know the rest."""

    def render(pieces: Sequence[Piece]) -> tuple[str, list[str]]:
        variables, _ = ctx.redactor.redact(dict(ctx.variables), context=f"{ctx.place}:report")
        return report.render(pieces, variables)

    return render


def _limit(ctx: StepContext) -> float:
    """Seconds for all items: a bundle with half of the evidence is written before it is too late
    for the step, or for its whole run."""
    ends = [end for end in (ctx.timeout, ctx.left) if end is not None]
    return min([TOTAL_S if ctx.timeout is None else ctx.timeout, *(_less(end) for end in ends)])


def _less(end: float) -> float:
    return max(end - WRITING_S, end / 2)


def _items(specs: Sequence[_Item]) -> Iterator[Item]:
    taken: set[str] = set()
    for spec in specs:
        kind = spec.kind
        wanted = spec.name.partition(".")[0] if spec.name else kind
        wanted = key = _NOT_A_WORD.sub("_", wanted).strip("_") or kind
        number = 1
        while key in taken:
            number += 1
            key = f"{wanted}_{number}"
        taken.add(key)
        yield Item(
            collector=FOUND.collectors[kind](getattr(spec, kind)),
            key=key,
            name=spec.name,
            timeout_s=spec.timeout,
            max_bytes=spec.max_bytes,
        )


async def _ask(item: Item, ctx: StepContext, env: Mapping[str, str]) -> list[Piece]:
    """An item's pieces. A collector may raise anything: that is its piece's error."""
    began = time.monotonic()
    request = Request(
        ctx=ctx,
        env=env,
        source=item.collector.key,
        name=item.name,
        timeout_s=item.timeout_s,
        max_bytes=item.max_bytes,
    )
    try:
        # a program that hangs is ended by its own limit, and leaves what it wrote
        async with asyncio.timeout(item.timeout_s + GRACE_S):
            pieces = list(await item.collector.collect(request))
    except TimeoutError:
        pieces = [
            request.piece(None, name=_name(item), error=f"stopped after {item.timeout_s:g} s")
        ]
    except Exception as error:
        text = (
            str(error) if isinstance(error, HandlersError) else f"{type(error).__name__}: {error}"
        )
        pieces = [request.piece(None, name=_name(item), error=text[:1000])]
    took = (time.monotonic() - began) * 1e3
    return _keyed(item, [replace(_cut(one, item), duration_ms=took) for one in pieces])


def _name(item: Item) -> str:
    return item.name or f"{item.collector.key}.txt"


def _cut(piece: Piece, item: Item) -> Piece:
    if piece.data is None or len(piece.data) <= item.max_bytes:
        return piece
    return replace(piece, data=piece.data[: item.max_bytes], truncated=True)


def _keyed(item: Item, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with what a report calls them: the first by its item, others by what their file is
    called beside the first (`git_state.diff` is `git_state_diff`)."""
    keyed = []
    for n, piece in enumerate(pieces):
        parts = [part for part in piece.name.split(".")[1:] if part != "txt"]
        more = _NOT_A_WORD.sub("_", "_".join(parts)) or str(n + 1)
        keyed.append(replace(piece, key=item.key if n == 0 else f"{item.key}_{more}"))
    return keyed


def _output(folder: Path) -> dict[str, Any]:
    """What later steps see of a bundle, from its manifest."""
    manifest = folders.read_manifest(folder)
    files = manifest["files"]
    report = folder / folders.REPORT
    facts = {one["key"]: one["facts"] for one in files if one.get("facts")}
    output = {
        "path": str(folder),
        "bundle": folders.bundle_id(folder),
        "files": [one["name"] for one in files if one["sha256"]],
        "errors": [one["error"] for one in files if one["error"]],
        "facts": facts if len(msgspec.json.encode(facts)) <= MAX_FACTS else {},
    }
    return {**output, "report": str(report)} if report.exists() else output
