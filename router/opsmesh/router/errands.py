"""What a client of the ingest socket asks of the handlers: run a profile, answer a run.

The one rule: the agent decides nothing. It hands the question on and the answer back; while no
broker or no handlers are there it says so, and keeps nothing for later: what a person clicks
happens now, or is refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.errors import Error as JetStreamError

from opsmesh.router import trigger, user
from opsmesh.router.errors import RouterError
from opsmesh.schemas import ids
from opsmesh.schemas.errors import SchemaError

#: How lines begin that ask for something; the key is what is asked.
ASKS: Final = (b'{"_run"', b'{"_answer"', b'{"_questions"')
#: Where handlers take a person's answer, where they say what waits for one, and where they say
#: whether a profile can be run.
ANSWER: Final = "ctl.runs.answer"
QUESTIONS: Final = "ctl.runs.questions"
RUNNABLE: Final = "ctl.profiles.runnable"
#: Where each handlers process that has a profile in force says so; the profile's name follows.
HAS: Final = "ctl.profiles.has"
#: Where a host takes a run over that another one has no place for; profile and host follow.
TAKE: Final = "ctl.runs.take"
#: Where every handlers process hears that a run is not wanted any more; whoever has it answers.
CANCEL: Final = "ctl.runs.cancel"
#: Seconds that the handlers have.
PATIENCE: Final = 5.0
#: What a click on a runbook is recorded as.
INVOKED: Final = "shell.action.invoked"

#: A profile's name, as it stands in a subject.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Refused(Exception):
    """It cannot be done, and why."""


#: Stores an event of this topic, payload and more, and gives its bytes; Refused when it is not at
#: the broker.
Store = Callable[[Mapping[str, Any]], Awaitable[bytes]]


class Errands:
    """Carries them out over the agent's own connection."""

    def __init__(self, store: Store, *, host: str = "") -> None:
        self.client: Client | None = None
        self._host = host
        self._store = store

    async def ask(self, line: bytes) -> bytes:
        """The answer to a line that begins like one of ASKS."""
        try:
            asked = msgspec.json.decode(line)
            if "_run" in asked:
                return await self._run(asked["_run"])
            if "_answer" in asked:
                return await self._answer(asked["_answer"])
            return await self._request(QUESTIONS, b"{}")
        except (SchemaError, ValueError, RecursionError, RouterError, Refused) as wrong:
            return _refusal(str(wrong))
        except NoRespondersError:
            return _refusal("no handlers are running; start them: opsmesh up")
        except (NatsError, JetStreamError, OSError, TimeoutError) as error:
            return _refusal(f"the handlers did not answer: {error or type(error).__name__}")

    async def _run(self, asked: Any) -> bytes:
        name = asked.get("profile") if isinstance(asked, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Refused("_run: profile is not the name of a profile")
        client, id = self._connected(), asked.get("id") or ids.uuid7()
        args, widget = asked.get("args") or {}, asked.get("widget") or None
        if not isinstance(id, str) or not isinstance(args, dict):
            raise Refused("_run: id is not a text, or args is not an object")
        # a trigger waits in its queue: for handlers that are away, it would run hours later
        answer = await self._request(
            RUNNABLE, msgspec.json.encode({"profile": name, "host": self._host})
        )
        if msgspec.json.decode(answer).get("ok") is not True:
            return answer
        data = await self._store(
            {
                "topic": INVOKED,
                "id": id,
                "source": asked.get("source") or "quickshell",
                "component": widget or "quickshell",
                "payload": {
                    "action": "run",
                    "detail": {"profile": name, "args": args},
                    "widget": widget,
                },
            }
        )
        # the event's id is the trigger's as well: asked twice, it is run once
        await trigger.send(client, name, data, trigger.Trigger(kind="manual", id=id))
        return msgspec.json.encode({"ok": True, "id": id, "run": name})

    async def _answer(self, asked: Any) -> bytes:
        if not isinstance(asked, dict):
            raise Refused("_answer is not an object")
        # the socket is its user's alone: who answers is not for the client to say
        given = {**asked, "by": user.name(), "host": self._host}
        return await self._request(ANSWER, msgspec.json.encode(given))

    async def _request(self, subject: str, data: bytes) -> bytes:
        answer = await self._connected().request(subject, data, timeout=PATIENCE)
        return answer.data.replace(b"\n", b" ")

    def _connected(self) -> Client:
        if self.client is None or not self.client.is_connected:
            raise Refused("the broker is away; nothing was started, ask again once it is back")
        return self.client


def _refusal(text: str) -> bytes:
    return msgspec.json.encode({"ok": False, "error": text})
