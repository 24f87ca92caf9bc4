"""Settings of the action `notify`: where a person can be told, and how often.

The one rule: an address of a service may be a secret as a whole; it is never shown.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

#: How a target is named; `desktop` is there already.
TARGET_NAME: Final = r"[a-z0-9][a-z0-9_-]{0,39}"

_REFERENCE: Final = re.compile(r'\$\{\{\s*secret\(\s*(?:"[^"]+"|\'[^\']+\')\s*\)\s*\}\}')
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
#: What is said of something that is none.
_WRONG: Final = 'is no address of apprise, like ntfys://topic, and no ${{ secret("name") }}'


def is_reference(value: str) -> bool:
    """Whether it is `${{ secret("name") }}`, and nothing else."""
    return _REFERENCE.fullmatch(value.strip()) is not None


def _address(value: str) -> str:
    if not is_reference(value) and not _SCHEME.fullmatch(_REFERENCE.sub("secret", value)):
        raise ValueError(_WRONG)
    return value


Address = Annotated[str, AfterValidator(_address)]


def _other(value: str) -> str:
    if value == "desktop":
        raise ValueError("is there already: the one in front of which you sit")
    return value


TargetName = Annotated[str, Field(pattern=f"^{TARGET_NAME}$"), AfterValidator(_other)]


class Notify(BaseModel):
    """Notifications."""

    model_config = ConfigDict(extra="forbid")

    per_minute: int = Field(
        default=10, ge=1, le=600, description="what one profile may say; the rest is counted"
    )
    approvals: Literal["show", "hide"] = Field(
        default="show", description="whether questions of runs of this host appear on its desktop"
    )
    targets: dict[TargetName, Address] = Field(
        default={},
        description="addresses of apprise by name, for `to`; or where such a secret is kept",
    )
