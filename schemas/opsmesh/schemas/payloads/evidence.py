"""evidence.*: what the archive says of itself to everybody who keeps the stream."""

from __future__ import annotations

from typing import Annotated, Final

from opsmesh.schemas.topics import Payload, Topic, doc


class EvidenceSegmentSealed(Payload, frozen=True, kw_only=True):
    """A file of a host's archive was sealed: from now on the stream contradicts another one."""

    archive: Annotated[str, doc("id of the archive")]
    segment: Annotated[int, doc("number of the file, from 1")]
    file: Annotated[str, doc("its path below the archive's folder, before compression")]
    stream: Annotated[str, doc("the stream whose messages it holds")]
    first_seq: Annotated[int, doc("sequence of its first line")]
    last_seq: Annotated[int, doc("sequence of its last line")]
    lines: Annotated[int, doc("number of its lines")]
    bytes: Annotated[int, doc("their length before compression")]
    last_hash: Annotated[str, doc("hash of its last line")]
    root: Annotated[str, doc("Merkle root over its lines (RFC 9162, SHA-256)")]
    seal_hash: Annotated[str, doc("SHA-256 of its seal's file, which names the seal before")]
    key_fingerprint: Annotated[str, doc("the key that signed it")]
    seal: Annotated[str, doc("the signed seal itself, the whole line")]


TOPICS: Final = (
    Topic(
        "evidence.segment.sealed",
        payload=EvidenceSegmentSealed,
        owner="sink",
        severity="info",
        description="A file of the evidence archive was sealed with a signature.",
        example={
            "archive": "01a20af3-5d52-7e10-ae32-25df3fd288da",
            "segment": 12,
            "file": "2026/11/23-000012-EVENTS-000000104230.jsonl",
            "stream": "EVENTS",
            "first_seq": 104230,
            "last_seq": 205696,
            "lines": 101467,
            "bytes": 67108630,
            "last_hash": "47adb171166095e9f3b0afa2f5bf34493041c724abb2af494e96b10535939d45",
            "root": "6dd60ead4f489367f0d50f5f3ffb86c11c8317572eece179e4e58a5e964f6b4b",
            "seal_hash": "3f4e71f1648d35f1fdee47b2ce9012b903a0a7fab1edfe3ef772b0acdf552709",
            "key_fingerprint": "eb65379e2dff1e1502fc18112f969e20fb7f40ae1452d6bad198ee2f3e61b705",
            "seal": '{"format":"opsmesh-seal/1",…}',
        },
    ),
)
