"""`opsmesh auth` before there are keys, of users that are not there, and of what lasts a while."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

DESK = ("--role", "viewer", "--host", "desk")


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(("issue", *DESK, "-o"), id="issue"),
        pytest.param(("rotate", "--own"), id="rotate own"),
        pytest.param(("rotate", "--signing"), id="rotate signing"),
    ],
)
def test_without_keys_it_says_how_to_make_them(
    cli: Cli, tmp_path: Path, asked: tuple[str, ...]
) -> None:
    """What needs keys where there are none ends with the command that makes them, and leaves
    nothing."""
    file = tmp_path / "desk.creds"
    done = cli("auth", *asked, *([str(file)] if asked[-1] == "-o" else []))
    assert done.exit_code == 1
    assert "opsmesh auth init" in done.stderr
    assert not file.exists()


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize(
    "asked", [("show", "nobody"), ("revoke", "nobody"), ("rotate", "nobody", "--finish")]
)
def test_unknown_user_is_not_found(cli: Cli, asked: tuple[str, ...], keys: bool) -> None:
    """A user who is not there is told so, with the exit code of what is not found."""
    if keys:
        assert cli("auth", "init").exit_code == 0
    done = cli("auth", *asked)
    assert done.exit_code == 3
    assert "no user 'nobody'" in done.stderr


def test_rotated_credentials_end_too(cli: Cli, tmp_path: Path) -> None:
    """What was issued for ninety days is valid for ninety days again when it is rotated."""
    assert cli("auth", "init").exit_code == 0
    old, new = str(tmp_path / "old.creds"), str(tmp_path / "new.creds")
    assert cli("auth", "issue", *DESK, "--expires", "90d", "-o", old).exit_code == 0
    assert cli("auth", "rotate", "desk-viewer", "-o", new).exit_code == 0
    user = json.loads(cli("auth", "ls", "--json").stdout)["users"]["desk-viewer"]
    lasts = datetime.fromisoformat(user["expires"]) - datetime.fromisoformat(user["issued"])
    assert len(user["before"]) == 1
    assert round(lasts.total_seconds() / 86_400, 3) == 90


@pytest.mark.parametrize("address", ["", "192.0.2.7:4222"])
def test_an_address_that_is_none_is_in_no_certificate(cli: Cli, address: str) -> None:
    """What is neither a name nor an address is refused before there is an authority."""
    done = cli("auth", "ca", "--address", address)
    assert done.exit_code == 2
    assert "neither a name nor an address" in done.stderr
    assert "nobody has credentials" in cli("auth", "ls").output
