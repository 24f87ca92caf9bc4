"""The secrets of a handlers process: found by name in the order of the settings.

The one rule: a value is known to the redactors before it is handed out, so that whatever happens to
it afterwards, it is taken out of what is kept or said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opsmesh.handlers.errors import SecretMissing
from opsmesh.handlers.secrets import reference
from opsmesh.handlers.secrets.sources import Credentials, Files, Keyring, Source
from opsmesh.handlers.template import Template
from opsmesh.router.settings import Secrets as Section
from opsmesh.schemas.exact import Known

#: Every kind of source.
SOURCES: Final[dict[str, type[Source]]] = {
    kind.kind: kind for kind in (Credentials, Files, Keyring)
}


class SecretStore:
    """Implements `contract.Secrets`. Nothing is kept: a secret that was changed is the new one the
    next time. A keyring may take seconds to answer; call it from a thread where that matters."""

    def __init__(self, sources: Sequence[Source], known: Known) -> None:
        self.sources = tuple(sources)
        self._known = known

    def get(self, name: str) -> str:
        """The secret without the line break at its end; SecretMissing when there is none."""
        try:
            reference.checked(name)
        except ValueError as error:
            raise SecretMissing(name, str(error)) from None
        for source in self.sources:
            try:
                found = source.find(name)
            except SecretMissing as missing:
                raise SecretMissing(name, missing.reason) from None
            if found is not None:
                return self._told(name, found)
        looked = "; ".join(f"{source.kind}: {source.where(name)}" for source in self.sources)
        raise SecretMissing(name, f"looked for in {looked}; opsmesh secret set {name}")

    def fill(self, text: str) -> str:
        """The text, with the secrets in the places of its references; ValueError when it holds
        another placeholder."""
        return Template(text, secrets=True).fill({}, self.get)

    def _told(self, name: str, found: str) -> str:
        value = found[:-1] if found.endswith("\n") else found
        value = value.removesuffix("\r")
        if "\0" in value:
            raise SecretMissing(name, "it holds a NUL byte, which no program can be given")
        try:
            self._known.learn(value)
        except ValueError as error:
            raise SecretMissing(name, str(error)) from None
        return value


def load(section: Section, known: Known) -> SecretStore:
    """The sources that the settings name."""
    return SecretStore([SOURCES[kind]() for kind in section.order], known)
