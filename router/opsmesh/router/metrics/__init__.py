"""What the mesh counts of itself, and how Prometheus gets it (docs/metrics.md, ADR 0038)."""
