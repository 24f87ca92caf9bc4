"""A profile in force in a handlers process."""

from __future__ import annotations

import os
from dataclasses import dataclass

from opsmesh.handlers.live.census import Having, Presence
from opsmesh.handlers.live.owner import Owner
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.guests import Guests
from opsmesh.handlers.runs.places import Places
from opsmesh.handlers.runs.runs import Runs


@dataclass
class Active:
    """The profile and its runs; no owner while it is disabled, or decided elsewhere."""

    profile: Profile
    consumer: str
    runs: Runs
    owner: Owner | None = None
    presence: Presence | None = None
    guests: Guests | None = None

    def facts(self, host: str, places: Places) -> Having:
        """What this process says of it."""
        takes = self.guests is not None and self.profile.state == "enabled"
        return Having(
            host=host,
            pid=os.getpid(),
            run_on=self.profile.run_on,
            hash=self.profile.hash,
            state=self.profile.state,
            free=places.free if takes else 0,
        )
