"""Errors of the schemas layer. Each keeps its facts as attributes.

SchemaError
├── EnvelopeError      the bytes are not an envelope
│   └── PayloadTooLarge
├── TopicError         the topic does not follow the grammar
└── PayloadError       the payload does not fit its topic
"""

from __future__ import annotations


class SchemaError(ValueError):
    """Input that cannot become an event, or cannot be read as one."""


class EnvelopeError(SchemaError):
    """The bytes are not an envelope. `field` names the part that is wrong, where one is."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class PayloadTooLarge(EnvelopeError):
    """The payload is over the limit; `size` and `limit` are bytes of JSON."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"payload of {size} bytes exceeds {limit} bytes; "
            "write large data to a file and send its path as evidence_path",
            field="payload",
        )
        self.size = size
        self.limit = limit


class TopicError(SchemaError):
    """The topic is not 2 to 6 tokens of [a-z0-9_] joined by dots."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"topic {topic!r} is not 2 to 6 tokens of [a-z0-9_] joined by dots, "
            "like python.test.failed"
        )
        self.topic = topic


class PayloadError(SchemaError):
    """The payload does not fit the type that its topic registers."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"payload of {topic}: {reason}")
        self.topic = topic
        self.reason = reason
