"""Traces: what became of an event, as spans that OpenTelemetry's collectors understand.

Off unless an endpoint is set; then nothing of the SDK is imported, and each question costs a look
at a global. The one rule: a span tells names and ids, never what an event holds, and a collector
that is away costs spans alone.

The events carry the trace: `traceparent` of the envelope (W3C Trace Context). One that comes
without is given one that follows from its id, so that it is the same however often it is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from opsmesh.router import logs
from opsmesh.router.release import version

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

    from opsmesh.router.settings_serving import Traces

#: OpenTelemetry's own variables, either of which turns traces on where the settings do not.
VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: Instead of an address: spans go to the log, one JSON object a line.
CONSOLE: Final = "console"
#: Where a collector takes traces over HTTP (OTLP specification).
PATH: Final = "/v1/traces"
#: Milliseconds for what is left to be sent when a process ends.
FAREWELL_MS: Final = 2000
#: Seconds for one batch, with all of its tries: less than a supervisor waits for an end.
PATIENCE: Final = 2.0

Kind = Literal["internal", "producer", "consumer"]
Value = str | int | float | bool

log = structlog.get_logger()


class _State:
    """One a process."""

    tracer: Tracer | None = None
    provider: TracerProvider | None = None
    #: Ids that the next span is to have: trace, span.
    ids: tuple[int, int] | None = None


def on() -> bool:
    """Whether spans are made."""
    return _State.tracer is not None


def wanted(traces: Traces) -> bool:
    """Whether somebody has said where spans go."""
    return bool(traces.endpoint) or any(os.environ.get(name) for name in VARIABLES)


@contextlib.contextmanager
def sent(component: str, host: str, traces: Traces) -> Iterator[None]:
    """While the body runs spans are made, where that is wanted. Without the extra the component
    goes on without them, and says so."""
    if not wanted(traces):
        yield
        return
    try:
        _begin(component, host, traces.endpoint)
    except ImportError as error:
        log.error(  # noqa: TRY400 (a person's mistake needs no traceback)
            "traces.off",
            error=str(error),
            hint=f"{sys.executable} -m pip install 'opsmesh[otel]', or in a checkout: make extras",
        )
    try:
        yield
    finally:
        provider, _State.provider, _State.tracer = _State.provider, None, None
        if provider is not None:
            provider.force_flush(FAREWELL_MS)
            provider.shutdown()


def _begin(component: str, host: str, endpoint: str | None) -> None:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random ones, unless the next span's are given."""

        def generate_trace_id(self) -> int:
            return _State.ids[0] if _State.ids is not None else super().generate_trace_id()

        def generate_span_id(self) -> int:
            return _State.ids[1] if _State.ids is not None else super().generate_span_id()

    resource = Resource.create(
        {
            "service.name": "opsmesh",
            "service.version": version(),
            "service.instance.id": f"{host}/{component}",
            "host.name": host,
            "opsmesh.component": component,
        }
    )
    provider = TracerProvider(resource=resource, id_generator=Ids(), shutdown_on_exit=False)
    if endpoint == CONSOLE:
        console = ConsoleSpanExporter(
            out=sys.stderr, formatter=lambda span: f"{span.to_json(indent=None)}\n"
        )
        provider.add_span_processor(SimpleSpanProcessor(console))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(
            endpoint=address(endpoint) if endpoint else None, timeout=PATIENCE
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        _say_what_is_not_sent()
    _State.provider, _State.tracer = provider, provider.get_tracer("opsmesh", version())


def address(endpoint: str) -> str:
    """Where spans are posted: what is set, with the path that collectors have unless it has one."""
    scheme, _, rest = endpoint.partition("://")
    return endpoint if "/" in rest.rstrip("/") else f"{scheme}://{rest.rstrip('/')}{PATH}"


def _say_what_is_not_sent() -> None:
    """In our log, once a minute; the SDK would write lines of its own to standard error."""
    throttle = logs.Throttle()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if throttle.allows("traces.not_sent"):
                log.warning("traces.not_sent", reason=record.getMessage())

    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    if not theirs.handlers:
        theirs.addHandler(Handler())


def given(event_id: str) -> str:
    """The trace of an event that brought none."""
    trace, span = _ids(event_id)
    return f"00-{trace:032x}-{span:016x}-01"


def _ids(event_id: str) -> tuple[int, int]:
    try:
        trace = uuid.UUID(event_id).int
    except ValueError:
        trace = int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:16], "big")
    # of a UUIDv7 the end is random; neither may be 0
    return trace or 1, (trace & 0xFFFF_FFFF_FFFF_FFFF) or 1


class Span:
    """What the body of `span` may add."""

    def __init__(self, theirs: Any = None) -> None:
        self._theirs = theirs

    def set(self, **attributes: Value | None) -> None:
        """Facts of it."""
        if self._theirs is not None:
            self._theirs.set_attributes(_named(attributes))

    def failed(self, why: str) -> None:
        """It went wrong."""
        if self._theirs is not None:
            from opentelemetry.trace import StatusCode

            self._theirs.set_status(StatusCode.ERROR, why)


_NONE: Final = Span()


@contextlib.contextmanager
def span(
    name: str,
    traceparent: str | None = None,
    *,
    kind: Kind = "internal",
    **attributes: Value | None,
) -> Iterator[Span]:
    """A span for the body: under the event's trace, or without one under the span around it."""
    if _State.tracer is None:
        yield _NONE
        return
    from opentelemetry.trace import SpanKind

    with _State.tracer.start_as_current_span(
        name,
        context=_context(traceparent),
        kind=SpanKind[kind.upper()],
        attributes=_named(attributes),
    ) as theirs:
        yield Span(theirs)


def record(
    name: str,
    traceparent: str | None,
    *,
    took_s: float,
    root: str = "",
    kind: Kind = "internal",
    **attributes: Value | None,
) -> None:
    """A span that ends now and began `took_s` ago. `root`: the event whose trace begins with it."""
    if _State.tracer is None:
        return
    from opentelemetry.trace import SpanKind

    now_ns = time.time_ns()
    context: Context | None
    if root and traceparent == given(root):
        _State.ids, context = _ids(root), _nothing()
    else:
        context = _context(traceparent)
    try:
        made = _State.tracer.start_span(
            name,
            context=context,
            kind=SpanKind[kind.upper()],
            attributes=_named(attributes),
            start_time=now_ns - round(took_s * 1e9),
        )
    finally:
        _State.ids = None
    made.end(now_ns)


def _named(attributes: dict[str, Value | None]) -> dict[str, Value]:
    return {f"opsmesh.{key}": value for key, value in attributes.items() if value is not None}


def _nothing() -> Context:
    from opentelemetry.context import Context

    return Context()


def _context(traceparent: str | None) -> Context | None:
    """That of the event; None: what is current."""
    if not traceparent:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, _nothing())
