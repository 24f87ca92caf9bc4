"""A stand-in for a collector of OpenTelemetry: takes OTLP over HTTP as one does, and keeps it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """What was sent, span by span."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.components: dict[str, str] = {}

    def take(self, body: bytes) -> None:
        """One request of an exporter."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.components[span.name] = about["opsmesh.component"]
                    self.spans.append(span)

    def span(self, name: str) -> Any:
        """The one of that name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    @staticmethod
    def facts(span: Any) -> dict[str, Any]:
        """A span's attributes."""
        return {
            a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value")
            for a in span.attributes
        }


@contextmanager
def collector() -> Iterator[tuple[Collector, str]]:
    """One that listens, and its address."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            kept.take(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield kept, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
