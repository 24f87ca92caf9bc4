"""Dependencies of Python projects that are known to be vulnerable, as pip-audit says.

locks     what lock and requirement files name; project  what a project depends on
program   asks pip-audit; answer  what it said; telling  what of it is news
producer  the projects of the configuration
"""

from opsmesh.producers.pip_audit.producer import PipAudit

__all__ = ["PipAudit"]
