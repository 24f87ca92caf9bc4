"""The one place where Prometheus is answered: every component's figures, and what is seen of them
from outside (docs/metrics.md)."""
