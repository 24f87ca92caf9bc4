"""Whether a letter's profile can take it: what `dlq retry` knows before it sends anything.

Profiles are known by this machine's files and by their consumers at the broker: those of another
host have no file here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.cli.dlq.settle import Refused
from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import ProfileSet, load_profiles
from opsmesh.router import listing, paths
from opsmesh.router.deadletter import Letter
from opsmesh.router.topology import EVENTS, TRIGGERS
from opsmesh.schemas.nearest import nearest

PREFIX = "profile-"


class BrokenProfiles(HandlersError):
    """Files of profiles are broken, and so a retry would not do what they say."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__(
            "the profiles are broken, and a retry would use the definition of before:\n"
            + "\n".join(errors)
        )
        self.errors = errors
        self.hint = "mend them; check: opsmesh profile validate"


class Ready:
    """What is known of the profiles now."""

    def __init__(self, local: ProfileSet, consumer_names: set[str]) -> None:
        self._local = local
        self._consumers = {name.removeprefix(PREFIX) for name in consumer_names}
        chosen = overrides.read()
        self.disabled = {
            name
            for name, profile in local.profiles.items()
            if chosen.get(name, profile.state) == "disabled"
        }

    def refuse(self, letter: Letter) -> Refused | None:
        """Why the letter's profile cannot take it; None when it can."""
        name = letter.profile
        if name in self._local.profiles or any(
            one == name or one.startswith(f"{name}-on-") for one in self._consumers
        ):
            return None
        near = nearest(name, self._local.profiles)
        hint = f"it may be called {near} now" if near else "opsmesh profile ls"
        return Refused(
            letter,
            f"no profile {name!r} is in force",
            f"{hint}; put it back, or give them up: opsmesh dlq drop --all --profile {name}",
        )


async def look(client: Client) -> Ready:
    """Read the files, and ask the broker. BrokenProfiles when the files are broken: the handlers
    would go on with the definition of before."""
    local = load_profiles(Path(paths.config_dir()))
    if local.errors:
        raise BrokenProfiles([str(error) for error in local.errors])
    found = await listing.consumers(client.jetstream(), EVENTS)
    return Ready(local, {name for name in found if name.startswith(PREFIX)})


async def nobody_takes(client: Client) -> bool:
    """Whether no handlers ask for triggers now; what is sent waits for them."""
    try:
        info = await client.jetstream().consumer_info(TRIGGERS, "triggers")
    except NatsError:
        return True
    return not info.num_waiting
