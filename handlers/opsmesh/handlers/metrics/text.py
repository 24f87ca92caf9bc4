"""Figures as Prometheus reads them, by its own client library: the text format, or OpenMetrics
where it asks for that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from opsmesh.router.metrics.book import Figure, Series
from opsmesh.router.metrics.telling import Report

#: The label that says whose a component's own figure is.
COMPONENT = "component"


class _Once(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)

    def describe(self) -> Iterator[Metric]:
        return iter(())


def render(
    reports: Iterable[Report], outside: Iterable[Figure], *, accept: str = ""
) -> tuple[bytes, str]:
    """The whole answer, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families(reports, outside)))
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


def families(reports: Iterable[Report], outside: Iterable[Figure]) -> list[Metric]:
    """One family a name, whichever components have it."""
    found: dict[str, Metric] = {}
    for figure in outside:
        _add(found, figure, None)
    for report in reports:
        for figure in report.figures:
            _add(found, figure, report.component)
    return [found[name] for name in sorted(found)]


def _add(found: dict[str, Metric], figure: Figure, component: str | None) -> None:
    mine = () if component is None else (component,)
    family = found.get(figure.name)
    if family is None:
        family = found[figure.name] = _family(figure, (COMPONENT,) if mine else ())
    for one in figure.series:
        labels = (*mine, *one.labels)
        if isinstance(family, HistogramMetricFamily):
            family.add_metric(labels, buckets=_buckets(figure, one), sum_value=one.value)
        elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
            family.add_metric(labels, one.value)


def _family(figure: Figure, first: tuple[str, ...]) -> Metric:
    labels = (*first, *figure.labels)
    if figure.kind == "counter":
        return CounterMetricFamily(figure.name, figure.help, labels=labels)
    if figure.kind == "histogram":
        return HistogramMetricFamily(figure.name, figure.help, labels=labels)
    return GaugeMetricFamily(figure.name, figure.help, labels=labels)


def _buckets(figure: Figure, one: Series) -> list[tuple[str, float]]:
    ends = [*(f"{end:g}" for end in figure.buckets), "+Inf"]
    return list(zip(ends, accumulate(one.counts), strict=True))
