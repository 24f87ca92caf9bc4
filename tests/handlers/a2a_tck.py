"""An action that does what the scenarios of the A2A TCK say, so that `a2a serve` can be measured.

The kit is not on PyPI, and no part of a run of the tests. By hand (docs/a2a-serve.md has the
figures): `python -m tests.handlers.a2a_tck FOLDER` makes FOLDER a plug-in that holds this action,
and prints the settings and the profile to serve with `PYTHONPATH=FOLDER:.`; then, in a checkout of
a2aproject/a2a-tck, branch 1.0-dev: `./run_tck.py --sut-host http://127.0.0.1:9471`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from opsmesh.handlers.actions.contract import Question, StepContext, StepResult
from opsmesh.handlers.errors import Ask

#: What a message whose id begins like this comes to.
TEXTS: Final = {"tck-artifact-text": "Generated text content"}
DATA: Final = {"tck-artifact-data": {"key": "value", "count": 42}}
SECONDS: Final = {"tck-stream": 2.0, "test-resubscribe-message-id": 10.0}

PROFILE: Final = """\
profiles:
  tck:
    on: a2a.message.received
    expose: {description: does what the scenarios of the TCK say, tags: [tck]}
    concurrency: {mode: parallel, limit: 16}
    retry: {attempts: 1}
    actions: [tck: "${{ event.payload.message_id }}"]
"""
SETTINGS: Final = """\
producers: {enabled: []}
a2a_serve:
  per_minute: 100000
  push_urls: ["https://example.com/", "http://localhost:9999/"]
"""


class Tck:
    """Goes by the id of the message."""

    key: ClassVar[str] = "tck"

    @classmethod
    def parse(cls, value: Any) -> Self:
        return cls()

    def describe(self) -> dict[str, Any]:
        return {}

    async def run(self, ctx: StepContext) -> StepResult:
        said = str(ctx.event.payload["message_id"])
        if said.startswith("tck-input-required") and "input-1" not in ctx.replies:
            schema = {"type": "string"}
            raise Ask(Question(name="input-1", prompt="More?", schema=schema, by=("a2a:local",)))
        if said.startswith("tck-reject"):
            return StepResult(ok=False, output={}, error="rejected", retryable=False)
        await asyncio.sleep(next((s for p, s in SECONDS.items() if said.startswith(p)), 0.0))
        data = next((d for p, d in DATA.items() if said.startswith(p)), None)
        text = next((t for p, t in TEXTS.items() if said.startswith(p)), "Hello from TCK")
        return StepResult(ok=True, output={"text": text} if data is None else {"data": data})


def main(folder: Path) -> None:
    """The plug-in, as an installer would leave it."""
    about = folder / "opsmesh_tck-1.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: opsmesh-tck\nVersion: 1\n")
    point = "[opsmesh.actions]\ntck = tests.handlers.a2a_tck:Tck\n"
    (about / "entry_points.txt").write_text(point)
    print(f"# config.yaml\n{SETTINGS}\n# profiles.yaml\n{PROFILE}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
