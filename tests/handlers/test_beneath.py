"""Paths in which an event has a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsmesh.handlers import beneath
from opsmesh.handlers.beneath import OutOfBounds
from opsmesh.handlers.secrets.sources import Files
from opsmesh.handlers.template import Template
from opsmesh.router import paths

X = "${{ event.payload.x }}"


def checked(text: str, x: str) -> Path:
    template = Template(text)
    rendered = template.render_text({"event": {"payload": {"x": x}}, "vars": {"x": x}})
    return beneath.checked(Path(rendered), template)


@pytest.mark.parametrize("x", ["a", "a/b", "./a/../b", "..a", "a..", "é\n"])
def test_beneath(home: Path, x: str) -> None:
    """What stays in the folder that the profile wrote is taken."""
    assert checked(f"{home}/logs/{X}", x) == Path(f"{home}/logs/{x}")


@pytest.mark.parametrize("x", ["..", "../x", "a/../../b", "../../../../etc/passwd", "../logs2"])
def test_out_of_bounds(home: Path, x: str) -> None:
    """What leaves it is refused."""
    with pytest.raises(OutOfBounds, match="leads out of"):
        checked(f"{home}/logs/{X}", x)


def test_through_a_link(home: Path) -> None:
    """A symbolic link within it is no way out."""
    (home / "logs").mkdir()
    (home / "logs/out").symlink_to("/etc")
    with pytest.raises(OutOfBounds):
        checked(f"{home}/logs/{X}", "out/passwd")


def test_part_of_a_name(home: Path) -> None:
    """Behind a part of a name the folder is the last whole one."""
    assert checked(f"{home}/logs/unit-{X}", "a") == Path(f"{home}/logs/unit-a")
    with pytest.raises(OutOfBounds):
        checked(f"{home}/logs/unit-{X}", "a/../../x")


def test_the_profiles_own(home: Path) -> None:
    """The profile's own values go where they like."""
    text = f"{home}/logs/${{{{ vars.x }}}}"
    assert checked(text, "../x") == Path(f"{home}/logs/../x")


@pytest.mark.parametrize("how", ["itself", "by the event", "by a link"])
def test_secrets(home: Path, how: str) -> None:
    """Secrets are given to nobody, however they are asked for."""
    Files().write("lamp", "swordfish")
    path = Path(paths.config_dir(), "secrets", "lamp")
    (home / "link").symlink_to(path)
    text = {"itself": str(path), "by the event": X, "by a link": f"{home}/link"}[how]
    with pytest.raises(OutOfBounds, match="given to nobody"):
        checked(text, str(path))
