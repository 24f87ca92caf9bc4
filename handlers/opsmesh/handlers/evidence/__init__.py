"""The evidence archive: every stored event as one hash-chained line of JSONL (docs/evidence.md)."""
