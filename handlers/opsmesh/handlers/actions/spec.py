"""What the values of the built-in actions are made of."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from opsmesh.handlers.actions.arguments import script_of
from opsmesh.handlers.template import OUTSIDE, Template
from opsmesh.schemas import durations


class Spec(BaseModel):
    """A mapping in a profile: it has no other keys than its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _text(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        raise ValueError(f"put {'null' if value is None else str(value).lower()} in quotes")
    return str(value) if isinstance(value, int | float) else value


def _template(value: str) -> str:
    Template(value)  # an error in a placeholder belongs to the place where it stands
    return value


def _secret_template(value: str) -> str:
    Template(value, secrets=True)
    return value


def _argument(value: str) -> str:
    if names := Template(value, secrets=True).secrets:
        raise ValueError(
            f"the secret {names[0]!r} cannot be an argument: every process can read the arguments "
            "of every other one; give it in 'env' or 'stdin'"
        )
    return value


def _argv(value: list[str]) -> list[str]:
    if not value[0]:
        raise ValueError("the program's name is empty")
    if Template(value[0]).names & OUTSIDE:
        raise ValueError("the program itself cannot come from an event; its arguments can")
    script = script_of(value)
    if script is not None and Template(value[script]).names & OUTSIDE:
        raise ValueError(
            f"argument {script} is the text of a program, and cannot come from an event: write "
            """[sh, -c, 'echo "$1"', sh, "${{ … }}"], which hands it over as data"""
        )
    return value


#: Text that may hold placeholders; a number is taken as its text.
Text = Annotated[str, BeforeValidator(_text), AfterValidator(_template)]
#: Text that may also hold `${{ secret("name") }}`: where it ends is neither kept nor shown.
SecretText = Annotated[str, BeforeValidator(_text), AfterValidator(_secret_template)]
#: One argument of a program.
Argument = Annotated[str, BeforeValidator(_text), AfterValidator(_argument)]
#: An argument list: the program, then its arguments.
Argv = Annotated[list[Argument], Field(min_length=1), AfterValidator(_argv)]
#: Seconds, written like 30s or 1h30m.
Duration = Annotated[
    float,
    BeforeValidator(durations.read),
    WithJsonSchema({"type": "string", "examples": ["30s", "5m", "1h30m"]}),
]

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def _share(value: Any) -> Any:
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:
        raise ValueError(f"{value!r} is no share; write it in percent, like 5%")
    return float(found[1]) / 100


#: A share of 1, written in percent.
Share = Annotated[
    float, BeforeValidator(_share), WithJsonSchema({"type": "string", "examples": ["5%"]})
]
