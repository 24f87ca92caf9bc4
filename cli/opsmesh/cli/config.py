"""`opsmesh config`: every setting in force, and where its value comes from."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from opsmesh.cli import config_file, output
from opsmesh.handlers.errors import ConfigError
from opsmesh.router import settings
from opsmesh.schemas import durations

app = typer.Typer(no_args_is_help=True, help="Settings: their values and where each came from.")


@app.command()
def show(
    json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> None:
    """Every setting, its value, and where it came from. Secrets are masked."""
    rows = [vars(setting) for setting in config_file.read()]
    if json:
        output.as_json(rows)
        return
    output.table(
        [{**row, "value": _for_people(row["key"], row["value"])} for row in rows],
        ("key", "value", "source"),
        empty="no settings",
        style=lambda _, value: "dim" if value == "default" else "",
    )


def _for_people(key: str, value: object) -> object:
    """Lengths of time and sizes with their units, as they may be written."""
    if isinstance(value, float):
        return durations.text(value)
    if isinstance(value, int) and key.endswith(("_bytes", "_store")):
        for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
            if value % 2**power == 0:
                return f"{value >> power}{unit}"
    return ", ".join(value) if isinstance(value, list) else value


@app.command()
def path() -> None:
    """Where config.yaml is read from, whether it exists or not."""
    print(settings.config_file())


@app.command()
def validate() -> None:
    """Check config.yaml and the OPSMESH_* variables; exit 1 and name each mistake."""
    file = settings.config_file()
    if problems := mistakes():
        output.fail("\n".join(problems), hint="mend them, and check again: opsmesh config validate")
    print(f"{file}: valid" if file.exists() else f"{file} is not there: the defaults are in force")


def mistakes() -> list[str]:
    """What is wrong with the settings, one line each."""
    try:
        config_file.read()
    except ConfigError as error:
        return [str(error)]
    except (ValidationError, SettingsError) as error:
        return config_file.explain(error) or [str(error)]
    return []
