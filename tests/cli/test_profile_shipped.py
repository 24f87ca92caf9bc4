"""`opsmesh profile … --shipped`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

from opsmesh.handlers.profiles import overrides
from opsmesh.router import paths

NAME = "crash-incident"


@pytest.fixture
def copy() -> Path:
    """Where the copy lies once it is enabled."""
    return Path(paths.config_dir(), "profiles.d", f"{NAME}.yaml")


def test_read_and_enabled(cli: Cli, copy: Path) -> None:
    """One is listed, read, and copied; then it is a profile like any other."""
    rows = {
        row["profile"]: row
        for row in json.loads(cli("profile", "ls", "--shipped", "--json").stdout)
    }
    assert rows[NAME]["state"] == "not enabled"
    shown = cli("profile", "show", "--shipped", NAME)
    assert "x-shipped:" in shown.stdout
    done = cli("profile", "enable", "--shipped", NAME)
    assert done.exit_code == 0
    assert str(copy) in done.stderr
    assert "writes evidence bundles" in done.stdout
    assert NAME in cli("profile", "ls").stdout
    again = {
        row["profile"]: row
        for row in json.loads(cli("profile", "ls", "--shipped", "--json").stdout)
    }
    assert again[NAME]["state"] == "enabled"


def test_disabled_and_enabled_again(cli: Cli, copy: Path) -> None:
    """Enabling it again undoes what `disable` did on this host."""
    cli("profile", "enable", "--shipped", NAME)
    overrides.write(NAME, "disabled")
    listed = json.loads(cli("profile", "ls", "--shipped", "--json").stdout)
    assert {row["profile"]: row["state"] for row in listed}[NAME] == f"{NAME} disabled"
    cli("profile", "enable", "--shipped", NAME)
    assert overrides.read() == {}


def test_an_edited_copy_is_shown_beside_ours(cli: Cli, copy: Path) -> None:
    """Nothing is written over; the difference goes to standard output."""
    cli("profile", "enable", "--shipped", NAME)
    copy.write_text(copy.read_text().replace("at_most: 10", "at_most: 3"))
    done = cli("profile", "enable", "--shipped", NAME)
    assert done.exit_code == 0
    assert "at_most: 3" in copy.read_text()
    assert "+    throttle: {at_most: 10" in done.stdout
    refused = cli("profile", "enable", "--shipped", NAME, "--set", "ignore=[]")
    assert (refused.exit_code, "change its vars there" in refused.stderr) == (2, True)


def test_values(cli: Cli, copy: Path) -> None:
    """--set is JSON, or else text; what is no variable is named."""
    assert (
        cli("profile", "enable", "--shipped", NAME, "--set", 'ignore=["/usr/bin/x"]').exit_code == 0
    )
    assert "ignore: [/usr/bin/x]" in copy.read_text()
    for wrong, said in (("ignor=1", "did you mean 'ignore'"), ("ignore", "not NAME=VALUE")):
        done = cli("profile", "enable", "--shipped", NAME, "--set", wrong)
        assert (done.exit_code, said in done.stderr) == (2, True), wrong
    assert cli("profile", "enable", NAME, "--set", "ignore=1").exit_code == 2
    assert cli("profile", "enable", "--shipped", NAME, "--backlog", "skip").exit_code == 2


def test_unknown_and_taken(cli: Cli, copy: Path) -> None:
    """An unknown name has the nearest beside it; a name that is taken elsewhere is not doubled."""
    missing = cli("profile", "enable", "--shipped", "crash-incidnt")
    assert (missing.exit_code, "did you mean 'crash-incident'" in missing.stderr) == (3, True)
    own = Path(paths.config_dir(), "profiles.yaml")
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(f"profiles: {{{NAME}: {{on: a.b, actions: [{{command: ['true']}}]}}}}\n")
    taken = cli("profile", "enable", "--shipped", NAME)
    assert (taken.exit_code, "defines crash-incident already" in taken.stderr) == (1, True)
    assert not copy.exists()


def test_doctor_names_what_fits(cli: Cli) -> None:
    """What has all it needs here and is not enabled is named once, and is nothing wrong."""

    def told() -> str:
        found = {one["check"]: one for one in json.loads(cli("doctor", "--json").stdout)}
        assert found["shipped profiles"]["ok"] is None
        return str(found["shipped profiles"]["detail"])

    assert "package-check" in told()
    cli("profile", "enable", "--shipped", "package-check")
    assert "package-check" not in told()
