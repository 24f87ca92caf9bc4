"""The test kit: a mesh in memory that behaves as JetStream does, on a clock that you turn.

The one rule: what it does was measured. tests/router/test_testing_contract.py runs the same tests
against this and against a real nats-server; where they differ, this is wrong.
"""

from opsmesh.router.testing.bucket import MemoryBucket
from opsmesh.router.testing.clock import Clock
from opsmesh.router.testing.consumer import ConsumerState, MemoryConsumer, MemoryMessage
from opsmesh.router.testing.mesh import MemoryMesh, Stored
from opsmesh.router.testing.stream import Outgoing, StoredMessage

__all__ = [
    "Clock",
    "ConsumerState",
    "MemoryBucket",
    "MemoryConsumer",
    "MemoryMesh",
    "MemoryMessage",
    "Outgoing",
    "Stored",
    "StoredMessage",
]
