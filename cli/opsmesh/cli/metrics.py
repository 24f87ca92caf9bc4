"""`opsmesh metrics`: what the mesh counts of itself, once or for Prometheus (docs/metrics.md)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Annotated, Any

import typer

from opsmesh.cli import output
from opsmesh.handlers.metrics import main, outside
from opsmesh.router import connection, logs, tasks
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.metrics import telling
from opsmesh.router.metrics.book import Figure
from opsmesh.router.metrics.telling import Report
from opsmesh.router.settings import Settings

#: The port that `serve` takes where neither it nor the settings name one.
PORT = 9476

app = typer.Typer(
    no_args_is_help=True,
    help="What the mesh counts of itself: once (`show`), or for Prometheus (`serve`).",
)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="Only figures with this in their name, like `spool`.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Ask every component of this mesh, the broker and the kernel, and print what they say.

    Needs no extra and no setting. A component that does not answer is left out; a broker that is
    away shows as opsmesh_broker_up 0. Exit code: 0; 3 where no figure is called so, 69 where
    nothing of a mesh answers.

    Examples: opsmesh metrics show
              opsmesh metrics show runs_total
              opsmesh metrics show --json | jq .opsmesh_spool_bytes
    """
    reports, seen = asyncio.run(_gathered(Settings()))
    if not reports:
        output.fail(
            "no component of a mesh answers here",
            hint="start it: opsmesh up --detach",
            code=output.UNAVAILABLE,
        )
    rows: dict[str, list[dict[str, Any]]] = {}
    for component, figure in _figures(reports, seen):
        if name in figure.name:
            rows.setdefault(figure.name, []).extend(_rows(component, figure))
    if name and not rows:
        output.fail(
            f"no figure has {name!r} in its name",
            hint="all of them: opsmesh metrics show",
            code=output.NOT_FOUND,
        )
    if as_json:
        output.as_json(rows)
        return
    for key in sorted(rows):
        for row in rows[key]:
            labels = ",".join(f"{k}={v}" for k, v in row["labels"].items())
            print(f"{key}{f'{{{labels}}}' if labels else ''} {_said(row)}")


async def _gathered(settings: Settings) -> tuple[list[Report], Sequence[Figure]]:
    client = None
    with contextlib.suppress(BrokerUnavailable):
        where = connection.endpoint(settings, role="viewer")
        client = await connection.connect(where, name="metrics", patient=False)
    try:
        reports, components, broker = await asyncio.gather(
            telling.reports(), outside.components(), outside.broker(client, host=settings.host)
        )
    finally:
        if client is not None:
            await client.close()
    return reports, [*components, *broker]


def _figures(
    reports: Iterable[Report], seen: Iterable[Figure]
) -> Iterable[tuple[str | None, Figure]]:
    told = ((report.component, figure) for report in reports for figure in report.figures)
    return chain(told, ((None, figure) for figure in seen))


def _rows(component: str | None, figure: Figure) -> list[dict[str, Any]]:
    mine = {} if component is None else {"component": component}
    rows = []
    for one in figure.series:
        row: dict[str, Any] = {
            "labels": {**mine, **dict(zip(figure.labels, one.labels, strict=True))}
        }
        if figure.kind == "histogram":
            row |= {"count": sum(one.counts), "sum": one.value}
        else:
            row["value"] = one.value
        rows.append(row)
    return rows


def _said(row: dict[str, Any]) -> str:
    if "count" not in row:
        return f"{row['value']:.12g}"
    count = row["count"]
    return f"{count} times" + (f", {1000 * row['sum'] / count:.3g} ms on average" if count else "")


@app.command()
def serve(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Instead of metrics.port; 0: a free one.")
    ] = None,
    address: Annotated[str, typer.Option(help="Instead of metrics.address.")] = "",
) -> None:
    """Serve /metrics for Prometheus until Ctrl-C: the text format, or OpenMetrics where it is asked
    for. /healthz says whether this endpoint answers.

    `opsmesh up` does so by itself where `metrics: {port: 9476}` stands in config.yaml. Needs the
    extra: pip install 'opsmesh\\[metrics]'.

    Examples: opsmesh metrics serve
              opsmesh metrics serve --port 9999
    """
    settings = Settings()
    if port is None:
        port = PORT if settings.metrics.port is None else settings.metrics.port
    logs.configure("metrics", level=settings.log_level, style=settings.log)

    def ready(where: str) -> None:
        print(f"{where}/metrics", flush=True)
        output.note("Ctrl-C ends it")

    tasks.run(main.serve(settings, address or settings.metrics.address, port, ready))
