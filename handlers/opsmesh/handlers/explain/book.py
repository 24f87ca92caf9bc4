"""The book of versions: which text decided on which consumer, from which event on."""

from __future__ import annotations

import msgspec
from nats.aio.client import Client

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.live import versions
from opsmesh.handlers.live.consumers import CANDIDATE, filter_subjects
from opsmesh.handlers.live.versions import Version
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.router.decide import Decision
from opsmesh.router.rule import ProfileState
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas.envelope import Event, host_token, subject


class Unreadable(msgspec.Struct, frozen=True):
    """A version whose text this version of opsmesh does not take."""

    reason: str


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer, and every version that decided on it, oldest first."""

    consumer: str
    versions: tuple[Version, ...]

    @property
    def leaf(self) -> str:
        """The leaf whose it is, where a hub has it from one: sequences are those there."""
        return self.versions[-1].leaf

    @property
    def profile(self) -> str:
        """The profile's name."""
        return self.versions[-1].profile

    @property
    def host(self) -> str:
        """The host of its newest decider."""
        return self.versions[-1].host

    @property
    def candidate(self) -> bool:
        """Whether it is a candidate, which decides in shadow beside the profile in force."""
        return self.consumer.startswith(f"{CANDIDATE}-")

    @property
    def newest(self) -> Version:
        """The version in force, or the last that was."""
        return self.versions[-1]

    @property
    def gone(self) -> bool:
        """Whether the profile has been removed."""
        return self.newest.source is None

    def in_force(self, seq: int, stored_us: int) -> Version | None:
        """The version that the event at `seq` was, or is to be, decided with; None before the
        first. A removal holds for what was stored after it."""
        found = None
        for version in self.versions:
            if version.source is None:
                if version.at_us <= stored_us:
                    found = version
            elif version.from_seq <= seq:
                found = version
        return found


class Book:
    """Every version on record."""

    def __init__(self, history: list[Version]) -> None:
        by_consumer: dict[tuple[str, str], list[Version]] = {}
        for version in history:
            by_consumer.setdefault((version.consumer, version.leaf), []).append(version)
        self.readers = [
            Reader(consumer=name, versions=tuple(found))
            for (name, _), found in sorted(by_consumer.items())
        ]
        self._texts: dict[tuple[str, str, ProfileState], Profile | Unreadable] = {}

    def of(self, profile: str) -> list[Reader]:
        """The consumers of one profile, candidates last."""
        found = [reader for reader in self.readers if reader.profile == profile]
        return sorted(found, key=lambda reader: reader.candidate)

    def names(self) -> set[str]:
        """Every profile that was ever in force."""
        return {reader.profile for reader in self.readers}

    def text(self, version: Version) -> Profile | Unreadable:
        """The profile as the version has it."""
        key = (version.profile, version.hash, version.state)
        found = self._texts.get(key)
        if found is None:
            found = self._texts[key] = _read(version)
        return found

    def owner_of(self, decision: Decision, consumer: str = "", leaf: str = "") -> Reader | None:
        """The consumer on which a decision was made; None when its text is not on record. Without
        the name that its record has, the likeliest."""
        best, found = 0, None
        for reader in self.of(decision.profile):
            if reader.leaf != leaf:
                continue
            if reader.consumer == consumer:
                return reader
            likely = _likely(reader, decision)
            if likely > best:
                best, found = likely, reader
        return found

    def behind(self, decision: Decision, consumer: str = "", leaf: str = "") -> Version | None:
        """The version that made a decision; None when it is not on record.

        A time that had come may have found a newer text than the event had. Its hash tells which;
        in which of the states that this text had, only the decision itself tells.
        """
        reader = self.owner_of(decision, consumer, leaf)
        if reader is None:
            return None
        version = reader.in_force(decision.event_seq, decision.at_us)
        if version is not None and version.hash == decision.profile_hash and not decision.timer:
            return version
        texts = [v for v in reader.versions if v.hash == decision.profile_hash and v.source]
        shadow = decision.clause == "shadow"
        return next((v for v in reversed(texts) if (v.state == "shadow") == shadow), None)


def _likely(reader: Reader, decision: Decision) -> int:
    """How likely a decision was made on this consumer; 0: it was not."""
    if not any(version.hash == decision.profile_hash for version in reader.versions):
        return 0
    on = f"-on-{host_token(decision.host)}"
    text = next(v for v in reader.versions if v.hash == decision.profile_hash)
    if (text.source or {}).get("run_on") != "any" and not reader.consumer.endswith(on):
        return 0
    version = reader.in_force(decision.event_seq, decision.at_us)
    likely = 2 if version is not None and version.hash == decision.profile_hash else 1
    # a text that was tried before it was put into force is on both
    shadow = decision.outcome == "suppressed" and decision.clause == "shadow"
    return 2 * likely + (reader.candidate == shadow)


async def read(client: Client) -> Book:
    """All that the broker has."""
    return Book([version async for version in versions.history(client)])


def shown(profile: Profile, host: str, event: Event) -> bool:
    """Whether the broker hands this event to the profile's consumer on `host` to be decided."""
    on = subject(event.host, event.topic)
    return listens(filter_subjects(profile, host), on) and listens(
        profile.rule.decided, event.topic
    )


def _read(version: Version) -> Profile | Unreadable:
    try:
        return version.read()
    except ConfigError as error:
        return Unreadable(error.message)
