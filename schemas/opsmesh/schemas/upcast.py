"""Bringing an old payload to today's version when it is read. What is stored is never rewritten.

A payload says its version under `v`; one that says nothing is version 1. A payload newer than this
registry knows is passed on as it is.
"""

from __future__ import annotations

from typing import Any

from opsmesh.schemas.errors import PayloadError
from opsmesh.schemas.topics import VERSION_KEY, Topic


def version_of(topic: Topic, payload: dict[str, Any]) -> int:
    """The payload's version; PayloadError when `v` is no positive whole number."""
    version = payload.get(VERSION_KEY, 1)
    if type(version) is not int or version < 1:
        raise PayloadError(
            topic.name,
            f"field {VERSION_KEY}: expected the payload's version, a whole number from 1 to "
            f"{topic.version}, got {version!r}",
        )
    return version


def upcast(topic: Topic, payload: dict[str, Any]) -> dict[str, Any]:
    """Today's form of the payload: the same object when it is up to date.

    PayloadError when an upcaster cannot read what it is given.
    """
    version = version_of(topic, payload)
    while version < topic.version:
        try:
            payload = topic.upcasters[version](dict(payload))
        except Exception as error:
            raise PayloadError(
                topic.name,
                f"cannot be brought from version {version} to {version + 1}: {error!r}",
            ) from error
        version += 1
        payload[VERSION_KEY] = version
    return payload
