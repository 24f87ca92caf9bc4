"""Taking one attempt of another host's run (ADR 0030): the side of the host that is free.

The owner follows it in the ledger, and goes on with whatever comes after: the next attempt, a
question, a dead letter's end. A guest is a holder like any other: its lease is renewed, and ends
when this process does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from opsmesh.handlers.actions.contract import CANCELLED
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.attempts import Attempts
from opsmesh.handlers.runs.holder import this_process
from opsmesh.handlers.runs.lease import Lost
from opsmesh.handlers.runs.ledger import Run
from opsmesh.handlers.runs.offering import Offer
from opsmesh.handlers.runs.services import Job, Services
from opsmesh.handlers.runs.telling import Telling
from opsmesh.router import logs, tasks
from opsmesh.router.errands import TAKE
from opsmesh.router.kv import Conflict
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token

#: Seconds that the end of a handler may take for what it writes last.
LAST_WRITES: Final = 2.0

log = structlog.get_logger()


class Guests:
    """Those of one profile; `profile` gives it as it is in force."""

    def __init__(self, services: Services, profile: Callable[[], Profile]) -> None:
        self._services = services
        self._profile = profile
        telling = Telling(services.client, services.publish, services.workdirs)
        # a holder of its own: this process may own the profile one day, and is then another one
        self._me = this_process(services.host)
        self._attempts = Attempts(services, self._me, telling)
        self._telling = telling
        self._jobs: dict[str, Job] = {}
        self._open: Subscription | None = None

    async def start(self) -> None:
        """Take what is offered from now on."""
        subject = f"{TAKE}.{self._profile().name}.{host_token(self._services.host)}"
        self._open = await self._services.client.subscribe(subject, cb=self._offered)

    async def stop(self, grace: float) -> None:
        """Take nothing more, give what is under way `grace` seconds, and give it back then."""
        if self._open is not None:
            subscription, self._open = self._open, None
            await subscription.unsubscribe()
        jobs = {job.task: job for job in self._jobs.values() if job.task is not None}
        if jobs:
            await asyncio.wait(jobs, timeout=grace)
        await tasks.end(jobs)
        await self._telling.stop(LAST_WRITES)

    def cancel(self, run_id: str) -> bool:
        """Stop an attempt; False when it is not here. The owner says what became of the run."""
        found = [job for job in self._jobs.values() if job.held.run.run_id == run_id]
        for job in found:
            if job.task is not None:
                job.task.cancel(CANCELLED)
        return bool(found)

    async def _offered(self, message: Msg) -> None:
        try:
            offer = msgspec.json.decode(message.data, type=Offer)
            taken = await self._take(offer)
        except msgspec.DecodeError:
            taken = False
        except Exception as error:  # the broker is away: the owner begins it
            log.warning("run.not_taken", error=f"{type(error).__name__}: {error}")
            taken = False
        await message.respond(b"true" if taken else b"false")

    async def _take(self, offer: Offer) -> bool:
        profile = self._profile()
        here = offer.key in self._jobs or not self._services.places.free
        if here or profile.hash != offer.hash or profile.state != "enabled":
            return False
        held = await self._services.ledger.get(offer.key)
        if held is None or held.revision != offer.revision or not may_go(held.run):
            return False
        held.run.holder, held.run.host = self._me, self._services.host
        try:
            await held.save(times.now_us())
        except Conflict:
            return False
        job = self._jobs[offer.key] = Job(held)
        job.task = asyncio.create_task(self._attempt(job, profile))
        job.task.add_done_callback(lambda _: self._jobs.pop(offer.key, None))
        with logs.of_run(held.run.run_id, held.run.correlation_id):
            log.info("run.taken", profile=profile.name)
        return True

    async def _attempt(self, job: Job, profile: Profile) -> None:
        run = job.held.run
        with (
            logs.of_run(run.run_id, run.correlation_id),
            self._services.places.one(),
        ):
            try:
                await self._attempts.once(job, profile)
            except (Conflict, Lost):  # its owner has taken it back
                log.info("run.contended")
            except Exception:  # the owner takes it over when the lease ends
                log.exception("run.interrupted")
            finally:
                await asyncio.shield(self._attempts.release(job))


def may_go(run: Run) -> bool:
    """Whether the next attempt can be made on any host: nothing of it is under way anywhere."""
    return run.state in ("queued", "retrying") and not any(step.saved for step in run.steps)
