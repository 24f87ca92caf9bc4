"""`opsmesh auth issue --profiles`, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

ONE = """
profiles:
  one:
    on: service.start.failed
    actions: [emit: {topic: my.one, payload: {}}]
"""
MORE = """
  elsewhere:
    on: a.b
    run_on: laptop
    actions: [emit: {topic: my.two, payload: {}}]
  three:
    on: [c.d, e.>]
    run_on: any
    actions: [emit: {topic: my.three, payload: {}}]
"""


@pytest.fixture
def profiles(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profiles file beside where commands are typed; the broker has its keys."""
    monkeypatch.chdir(tmp_path)
    assert cli("auth", "init").exit_code == 0
    file = tmp_path / "profiles.yaml"
    file.write_text(ONE)
    return file


def shown(cli: Cli) -> list[str]:
    """What desk-handler may read, as `show --json` has it."""
    found: list[str] = json.loads(cli("auth", "show", "desk-handler", "--json").stdout)["reads"]
    return [one for one in found if one.startswith("evt.") and ".automation." not in one]


def issued(cli: Cli, *more: str) -> None:
    """Issue credentials for a handler on desk."""
    done = cli("auth", "issue", "--role", "handler", "--host", "desk", *more)
    assert done.exit_code == 0, done.output


def test_reads_what_its_profiles_listen_to(cli: Cli, profiles: Path) -> None:
    """The manifest keeps what the file said, and `show` and `ls` tell it."""
    issued(cli, "--profiles", str(profiles))
    assert shown(cli) == ["evt.desk.service.start.failed"]
    [row] = [one for one in cli("auth", "ls").stdout.splitlines() if "desk-handler" in one]
    assert " one " in row
    assert Path("desk-handler.creds").stat().st_mode & 0o777 == 0o600


def test_rotate_takes_changed_profiles(cli: Cli, profiles: Path) -> None:
    """With --profiles a rotation takes what has changed, but nothing that another host runs; a
    later one without keeps it."""
    issued(cli, "--profiles", str(profiles))
    profiles.write_text(ONE + MORE)
    assert (
        cli("auth", "rotate", "desk-handler", "--profiles", str(profiles), "-o", "2").exit_code == 0
    )
    wanted = ["evt.*.c.d", "evt.*.e.>", "evt.desk.service.start.failed"]
    assert shown(cli) == wanted
    assert cli("auth", "rotate", "desk-handler", "-o", "3").exit_code == 0
    assert shown(cli) == wanted


def test_candidates_of_a_folder_are_read(cli: Cli, profiles: Path) -> None:
    """A folder's candidates decide in shadow beside its profiles, and are shown their events."""
    folder = profiles.parent / "candidates"
    folder.mkdir()
    (folder / "one.yaml").write_text(ONE.replace("service.start.failed", "x.y"))
    issued(cli, "--profiles", str(profiles.parent))
    assert shown(cli) == ["evt.desk.service.start.failed", "evt.desk.x.y"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--profiles", "none.yaml"), 3, "none.yaml is not there"),
        (("--profiles", "broken.yaml"), 1, "broken.yaml:2"),
        (("--profiles", "others.yaml"), 1, "no profile in others.yaml runs on desk"),
        (("--profiles", "profiles.yaml", "--role", "viewer"), 2, "goes with --role handler"),
    ],
)
def test_refused(
    cli: Cli, profiles: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """What cannot be read, or does not fit, is said, and nobody is given anything."""
    Path("broken.yaml").write_text("profiles:\n  x: {on: 5}\n")
    Path("others.yaml").write_text("profiles:" + MORE.split("  three")[0])
    done = cli("auth", "issue", "--role", "handler", "--host", "desk", *arguments)
    assert done.exit_code == code
    assert said in " ".join(done.output.split())
    assert not list(Path().glob("*.creds"))
