"""The shipped profiles' texts and copies, and what their collectors read."""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmesh.handlers.collectors import elf, libraries, package_files
from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.profiles.profile import load_file, load_profiles
from opsmesh.handlers.shipped import catalogue
from opsmesh.router import paths
from opsmesh.schemas.registry import load_registry

#: A configuration folder of each test's own.
pytestmark = pytest.mark.usefixtures("home")

NAMES = [one.name for one in catalogue.all_()]


def config() -> Path:
    """The configuration folder of this test."""
    return Path(paths.config_dir())


def test_the_five_are_there() -> None:
    """The five of the first rollout, each with what it does to the machine."""
    assert NAMES == [
        "config-rollback",
        "crash-incident",
        "package-check",
        "service-triage",
        "test-diagnosis",
    ]
    assert all(one.about.changes and one.about.title for one in catalogue.all_())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_with_it(name: str) -> None:
    """A copy has no error and no warning but programs that are not here; its names are free."""
    path = catalogue.copy(config(), catalogue.find(name), {})
    found = load_file(path)
    findings = lint(found, load_registry(), folder=path.parent, host="laptop", servers={})
    assert [f for f in findings if "is not in PATH" not in f.message] == []
    assert found.profiles.keys() == catalogue.find(name).profiles.keys()


def test_all_of_them_at_once() -> None:
    """They have no profile in common, and make no loop together."""
    for one in catalogue.all_():
        catalogue.copy(config(), one, {})
    found = load_profiles(config())
    assert found.errors == []
    findings = lint(found, load_registry(), folder=config(), host="laptop", servers={})
    assert [f.message for f in findings if "loop" in f.message] == []


def test_an_untouched_copy_is_replaced() -> None:
    """A copy of another text that nobody has edited makes way; its standing says so before."""
    one = catalogue.find("crash-incident")
    older = catalogue.Shipped(one.name, one.text + "# older\n", one.about, one.profiles)
    path = catalogue.copy(config(), older, {})
    assert catalogue.standing(config(), older) == "current"
    assert catalogue.standing(config(), one) == "older"
    catalogue.copy(config(), one, {})
    assert catalogue.standing(config(), one) == "current"
    assert "# older" not in path.read_text()


def test_an_edited_copy_stays() -> None:
    """What a person has written is never written over; the difference is shown."""
    one = catalogue.find("crash-incident")
    path = catalogue.copy(config(), one, {})
    edited = path.read_text().replace("at_most: 10", "at_most: 3")
    path.write_text(edited)
    assert catalogue.standing(config(), one) == "edited"
    with pytest.raises(catalogue.ShippedError, match="is yours"):
        catalogue.copy(config(), one, {})
    assert path.read_text() == edited
    assert "+    throttle: {at_most: 10" in catalogue.difference(config(), one)


def test_values() -> None:
    """Variables are set in the copy, comments and all; an unknown one is named with the nearest."""
    one = catalogue.find("service-triage")
    path = catalogue.copy(config(), one, {"ignore": ["a.service"], "system": True})
    found = load_file(path).profiles
    assert found["service-triage"].vars == {"ignore": ["a.service"]}
    assert found["service-restart"].vars == {"ignore": ["a.service"], "system": True}
    assert "# units that are never restarted" in path.read_text()
    assert catalogue.standing(config(), one) == "current"
    with pytest.raises(catalogue.ShippedError, match="did you mean 'ignore'"):
        catalogue.copy(config(), one, {"ignor": []})


@pytest.mark.parametrize(
    "value", ["a: b", "x # y", "'", '"', "", "- 1", "ä", "{", 3, None, [1, {}]]
)
def test_any_value_stays_itself(value: object) -> None:
    """Whatever a value looks like in YAML, the profile has it as it was given."""
    text = catalogue.with_values(catalogue.find("package-check"), {"root": value})
    path = config() / "p.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert load_file(path).profiles["package-check"].vars == {"root": value}


def test_elf_of_this_machine() -> None:
    """The interpreter needs the C library, or its own; and it is all there."""
    found = elf.read(Path(sys.executable).resolve())
    assert found is not None
    assert any(name.startswith(("libc.", "libpython")) for name in found.needed)
    result = libraries.look(
        Path("/"), [], [Path(sys.executable).resolve().parent], until=time.monotonic() + 60
    )
    assert result.looked >= 1
    assert result.missing == []


@given(st.binary(max_size=400), st.integers(0, 63), st.binary(min_size=1, max_size=8))
@settings(max_examples=200)
def test_hostile_elf(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, at: int, new: bytes
) -> None:
    """Whatever a file holds, reading it ends, and raises nothing."""
    head = bytearray(Path(sys.executable).resolve().read_bytes()[:64])
    head[at : at + len(new)] = new
    path = tmp_path_factory.mktemp("elf") / "file"
    path.write_bytes(bytes(head) + tail)
    found = elf.read(path)
    assert found is None or isinstance(found, elf.Elf)


def test_elf_that_names_a_huge_table(tmp_path: Path) -> None:
    """Numbers that lead out of the file end the reading."""
    head = bytearray(Path(sys.executable).resolve().read_bytes()[:64])
    struct.pack_into("<Q", head, 32, 2**60)
    (tmp_path / "file").write_bytes(head)
    assert elf.read(tmp_path / "file") is None


def test_files_of_packages(tmp_path: Path) -> None:
    """Files are those of the managers' records; a name that is no record's leads nowhere."""
    pacman = tmp_path / "var/lib/pacman/local/hello-1.0-1"
    pacman.mkdir(parents=True)
    (pacman / "files").write_text("%FILES%\nusr/\nusr/bin/hello\n../../etc/shadow\n\n%BACKUP%\nx\n")
    dpkg = tmp_path / "var/lib/dpkg/info"
    dpkg.mkdir(parents=True)
    (dpkg / "world:amd64.list").write_text("/.\n/usr\n/usr/bin/world\n")
    names = package_files.changed(
        {"packages": [{"name": "hello"}, {"name": "world"}, {"name": "../hello"}, 7, {"name": 7}]}
    )
    found = package_files.files(tmp_path, names)
    assert found["hello"] == [tmp_path / "usr/bin/hello"]
    assert tmp_path / "usr/bin/world" in found["world"]
    assert set(found) == {"hello", "world"}


def test_a_library_that_went(tmp_path: Path) -> None:
    """A program of a package asks for a library that is nowhere below the root."""
    record = tmp_path / "var/lib/pacman/local/hello-1.0-1"
    record.mkdir(parents=True)
    (record / "files").write_text("%FILES%\nusr/bin/hello\n\n")
    (tmp_path / "usr/bin").mkdir(parents=True)
    program = Path("/bin/ls").resolve()
    (tmp_path / "usr/bin/hello").write_bytes(program.read_bytes())
    needed = elf.read(program)
    assert needed is not None
    until = time.monotonic() + 60
    found = libraries.look(tmp_path, ["hello"], [], until=until)
    assert {one["library"] for one in found.missing} == set(needed.needed)
    (tmp_path / "usr/lib").mkdir()
    for name in needed.needed:  # any binary of the same machine is one
        (tmp_path / "usr/lib" / name).write_bytes(program.read_bytes())
    assert libraries.look(tmp_path, ["hello"], [], until=until).missing == []
