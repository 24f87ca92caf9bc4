"""What waits for a person, asked over the broker."""

from __future__ import annotations

import json
from typing import Any

from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, run
from tests.handlers.lost_runs import dead, left_behind
from tests.handlers.mesh import mesh, write_profiles

from opsmesh.handlers.runs import questions
from opsmesh.router.errands import ANSWER, QUESTIONS, RUNNABLE
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

PROFILES = """
profiles:
  deploy:
    on: service.start.failed
    actions:
      - {id: first, on_unknown: ask, command: ["true"]}
"""


async def ask(client: Client, subject: str, data: bytes = b"{}") -> dict[str, Any]:
    """One request and what is said."""
    answer = await client.request(subject, data, timeout=60)
    found: dict[str, Any] = json.loads(answer.data)
    return found


def test_questions_and_answers(nats_server: EmbeddedServer, monkeypatch: Any) -> None:
    """The oldest questions are told, what is no answer is refused, the first answer counts."""
    monkeypatch.setattr(questions, "MAX_QUESTIONS", 2)
    settings = Settings()
    write_profiles(PROFILES)

    async def body() -> None:
        async with mesh_client(settings) as client:
            lost = dead()
            ids = [
                (await left_behind(client, settings, "deploy", lost, number=n)).run.run_id
                for n in range(3)
            ]
            async with mesh(PROFILES, settings=settings):

                async def all_wait() -> Any:
                    told = await ask(client, QUESTIONS)
                    return told if told["left_out"] == 1 else None

                told = await eventually(all_wait)
                assert len(told["questions"]) == 2
                assert {one["id"] for one in told["questions"]} < set(ids)
                assert (await ask(client, RUNNABLE, b'{"profile":"deploy"}')) == {"ok": True}
                no = await ask(client, RUNNABLE, b'{"profile":"nowhere"}')
                assert (no["ok"], no["run"]) == (False, "nowhere")
                assert (await ask(client, RUNNABLE, b"{}"))["ok"] is False
                for wrong in (b"", b"[]", b"{", b"\xff", b'{"run":7,"choice":"skip"}'):
                    assert (await ask(client, ANSWER, wrong))["ok"] is False
                for run_id, choice in (("no", "skip"), ("", "skip"), (ids[0], "perhaps")):
                    given = json.dumps({"run": run_id, "choice": choice}).encode()
                    assert (await ask(client, ANSWER, given))["ok"] is False
                given = json.dumps({"run": ids[0], "choice": "fail", "by": "x" * 999}).encode()
                first = await ask(client, ANSWER, given)
                assert (first["ok"], first["new"], first["answer"]) == (True, True, "fail")
                again = await ask(client, ANSWER, given)
                assert (again["ok"], again["new"]) == (True, False)
                other = json.dumps({"run": ids[0], "choice": "skip"}).encode()
                refused = await ask(client, ANSWER, other)
                assert refused["ok"] is False
                assert "x" * questions.MAX_BY + " answered fail" in refused["error"]
                assert (await ask(client, QUESTIONS))["left_out"] == 0

    run(body())
