"""`opsmesh secret`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

from opsmesh.cli import secret
from opsmesh.handlers.secrets import sources
from opsmesh.router import paths

VALUE = "swordfish under a lamp"

PROFILES = """\
profiles:
  deploy:
    on: deploy.requested
    actions:
      - command:
          argv: [deploy]
          env: {TOKEN: '${{ secret("forge") }}', B: '${{ secret("lamp") }}'}
"""


def kept(name: str) -> Path:
    return Path(paths.config_dir(), "secrets", name)


def test_set(cli: Cli, home: Path) -> None:
    """What standard input says, its last line break aside, is kept in a private file."""
    done = cli("secret", "set", "lamp", input=f"{VALUE}\n")
    assert done.exit_code == 0, done.output
    assert kept("lamp").read_text() == VALUE
    assert kept("lamp").stat().st_mode & 0o777 == 0o600
    assert VALUE not in done.output


def test_set_replaces(cli: Cli, home: Path) -> None:
    """A second one takes the place of the first, with no other file left."""
    cli("secret", "set", "lamp", input="first one")
    cli("secret", "set", "lamp", input=VALUE)
    assert kept("lamp").read_text() == VALUE
    assert [path.name for path in kept("lamp").parent.iterdir()] == ["lamp"]


def test_never_an_argument(cli: Cli, home: Path) -> None:
    """A value on the command line is refused, and kept nowhere."""
    done = cli("secret", "set", "lamp", VALUE)
    assert done.exit_code == 2
    assert "every process could read it" in " ".join(done.output.split())
    assert VALUE not in done.output
    assert not kept("lamp").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lamp", "abc", "4 characters or more"),
        ("lamp", "", "4 characters or more"),
        ("lamp", "abcd\0e", "NUL"),
        ("lamp", "x" * 70_000, "more than 65536 bytes"),
        ("../lamp", VALUE, "no name of a secret"),
        ("a b", VALUE, "no name of a secret"),
    ],
)
def test_refused(cli: Cli, home: Path, name: str, value: str, said: str) -> None:
    """What could not be used as a secret is not kept."""
    done = cli("secret", "set", name, input=value)
    assert done.exit_code in (1, 2)
    assert said in " ".join(done.output.split())
    assert not kept("lamp").exists()


def test_ls(cli: Cli, home: Path) -> None:
    """Names, places and who refers to them are listed; values are not."""
    Path(paths.config_dir()).mkdir(parents=True, exist_ok=True)
    Path(paths.config_dir(), "profiles.yaml").write_text(PROFILES)
    cli("secret", "set", "lamp", input=VALUE)
    done = cli("secret", "ls", "--json")
    assert json.loads(done.stdout) == [
        {
            "name": "lamp",
            "from": "file",
            "where": str(kept("lamp")),
            "used_by": ["profile deploy"],
        }
    ]
    assert VALUE not in cli("secret", "ls").output


def test_check(cli: Cli, home: Path) -> None:
    """Of each secret that something refers to it is told whether it can be had."""
    Path(paths.config_dir()).mkdir(parents=True, exist_ok=True)
    Path(paths.config_dir(), "profiles.yaml").write_text(PROFILES)
    Path(paths.config_dir(), "config.yaml").write_text(
        "nats: {user: '${{ secret(\"broker\") }}'}\n"
    )
    cli("secret", "set", "lamp", input=VALUE)
    done = cli("secret", "check", "--json")
    assert done.exit_code == 1
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["ok"] for name, row in found.items()} == {
        "broker": False,
        "forge": False,
        "lamp": True,
    }
    assert found["broker"]["used_by"] == ["config.yaml"]
    assert "opsmesh secret set forge" in found["forge"]["problem"]
    assert cli("secret", "check", "lamp").exit_code == 0


def test_check_names_a_loose_mode(cli: Cli, home: Path) -> None:
    """A file that others can read is a problem with its remedy."""
    cli("secret", "set", "lamp", input=VALUE)
    kept("lamp").chmod(0o644)
    done = cli("secret", "check", "lamp")
    assert done.exit_code == 1
    assert "chmod 600" in " ".join(done.output.split())


def test_rm(cli: Cli, home: Path) -> None:
    """A secret is gone, and one that is not there is told by the exit code."""
    cli("secret", "set", "lamp", input=VALUE)
    assert cli("secret", "rm", "lamp").exit_code == 0
    assert not kept("lamp").exists()
    assert cli("secret", "rm", "lamp").exit_code == 3


def test_another_source_has_it_too(
    cli: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who keeps a secret that an earlier source hides is told so."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "lamp").write_text(VALUE)
    (folder / "lamp").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    done = cli("secret", "set", "lamp", input="another one")
    assert "is asked before, and has that name too" in " ".join(done.output.split())


def test_keyring(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--in keyring` it is kept there (a stand-in for the package)."""
    ring: dict[tuple[str, str], str] = {}

    class Ring:
        @staticmethod
        def set_password(service: str, name: str, value: str) -> None:
            ring[service, name] = value

        @staticmethod
        def get_password(service: str, name: str) -> str | None:
            return ring.get((service, name))

        @staticmethod
        def delete_password(service: str, name: str) -> None:
            del ring[service, name]

        @staticmethod
        def get_keyring() -> object:
            return Ring()

    monkeypatch.setattr(sources, "_keyring", lambda: Ring)
    assert cli("secret", "set", "lamp", "--in", "keyring", input=VALUE).exit_code == 0
    assert ring == {("opsmesh", "lamp"): VALUE}
    assert cli("secret", "check", "lamp").exit_code == 0
    assert cli("secret", "rm", "lamp", "--in", "keyring").exit_code == 0
    assert not ring


def test_asked_on_a_terminal(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it is asked for, hidden."""
    asked: list[tuple[str, bool]] = []

    def prompt(text: str, *, hide_input: bool, **more: object) -> str:
        asked.append((text, hide_input))
        return VALUE

    monkeypatch.setattr("typer.prompt", prompt)
    monkeypatch.setattr(secret, "_on_a_terminal", lambda: True)
    assert cli("secret", "set", "lamp").exit_code == 0
    assert asked == [("lamp", True)]
    assert kept("lamp").read_text() == VALUE
