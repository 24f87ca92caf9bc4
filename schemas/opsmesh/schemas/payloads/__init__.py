"""The topics that opsmesh itself knows, a module for each first word of their names.

One more topic: its payload type and its `Topic` in the module of its first word.
"""

from __future__ import annotations

from typing import Final

from opsmesh.schemas.payloads import (
    a2a,
    agent,
    automation,
    config,
    desktop,
    editor,
    evidence,
    files,
    mcp,
    mesh,
    notebook,
    package,
    python,
    service,
    shell,
    slo,
    term,
)
from opsmesh.schemas.topics import Topic

#: Every built-in topic (the entry point `builtin` of `opsmesh.topics`).
TOPICS: Final[tuple[Topic, ...]] = (
    *desktop.TOPICS,
    *shell.TOPICS,
    *service.TOPICS,
    *config.TOPICS,
    *editor.TOPICS,
    *files.TOPICS,
    *term.TOPICS,
    *notebook.TOPICS,
    *python.TOPICS,
    *package.TOPICS,
    *a2a.TOPICS,
    *agent.TOPICS,
    *automation.TOPICS,
    *slo.TOPICS,
    *mcp.TOPICS,
    *mesh.TOPICS,
    *evidence.TOPICS,
)
