"""Candidates: files of one profile each, beside those in force; and promotion into a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import candidates, promotion, yamlfile
from opsmesh.handlers.profiles import profile as profiles
from opsmesh.handlers.profiles import text as profile_text
from opsmesh.handlers.profiles.profile import Profile, load_profiles

FILE = """\
# mine
version: 1
profiles:
  # the first
  one:
    on: a.b  # quick
    actions:
    - command: ["true"]
    # belongs to one

  # the second
  two:
    on: c.d
    vars: {text: "x"}
    actions:
      - command:
        - sh
        - -c
        - |
          # in a text
          echo

          # its end
# the end
x-mine: 1
"""


def candidate(config: Path, name: str, body: str) -> Profile:
    """A candidate as `profile try` leaves it."""
    candidates.put(config, name, f"profiles:\n    {name}:\n{body}".encode())
    return candidates.load(config).profiles[name]


BODY = """\
        # why it is so
        on: n.n
        actions:
        - command: ["false"]  # never
"""


def active(config: Path, text: str = FILE) -> dict[str, Profile]:
    """The profiles in force."""
    (config / "profiles.yaml").write_text(text)
    found = load_profiles(config)
    assert found.errors == []
    return found.profiles


def test_load(tmp_path: Path) -> None:
    """Each file is the candidate it is named after; hidden files are none."""
    one = candidate(tmp_path, "one", BODY)
    (tmp_path / "candidates" / ".two.yaml").write_text("nonsense")
    assert list(candidates.load(tmp_path).profiles) == ["one"]
    assert (one.name, one.file) == ("one", "candidates/one.yaml")
    assert candidates.remove(tmp_path, "one")
    assert not candidates.remove(tmp_path, "one")
    assert candidates.load(tmp_path).profiles == {}


def test_mistakes_are_named(tmp_path: Path) -> None:
    """A wrong name, a wrong number of profiles and a broken file are named, the rest is read."""
    candidate(tmp_path, "good", BODY)
    text = "profiles:\n  {}:\n    on: a.b\n    actions: [command: [x]]\n"
    candidates.put(tmp_path, "other", text.format("name").encode())
    candidates.put(tmp_path, "none", b"profiles: {}\n")
    candidates.put(tmp_path, "broken", text.format("broken").replace("on:", "onn:").encode())
    found = candidates.load(tmp_path)
    assert list(found.profiles) == ["good"]
    told = "\n".join(str(error) for error in found.errors)
    assert "candidates/other.yaml:2:1: holds 'name', and is named after 'other'" in told
    assert "candidates/none.yaml:1:1: holds no profile" in told
    assert "candidates/broken.yaml:3:5: unknown key 'onn'" in told


def test_promotion_changes_its_own_lines(tmp_path: Path) -> None:
    """The profile's lines are replaced, its comments with them; all else stays, and a backup."""
    config = tmp_path
    known = active(config)
    new = candidate(config, "two", BODY)
    (config / "profiles.yaml").chmod(0o640)
    written = promotion.promote(config, new, known["two"])
    text = written.read_text()
    head = FILE[: FILE.index("  two:")]
    assert text == head + (
        "  two:\n      # why it is so\n      on: n.n\n      actions:\n"
        '      - command: ["false"]  # never\n# the end\nx-mine: 1\n'
    )
    assert (config / "profiles.yaml.bak").read_text() == FILE
    assert written.stat().st_mode & 0o777 == 0o640
    found = load_profiles(config).profiles
    assert (found["two"], found["one"]) == (new, known["one"])
    assert candidates.load(config).profiles == {}


def test_promotion_of_the_first(tmp_path: Path) -> None:
    """A comment before the next profile stays with that."""
    known = active(tmp_path)
    new = candidate(tmp_path, "one", BODY)
    text = promotion.promote(tmp_path, new, known["one"]).read_text()
    assert text.startswith("# mine\nversion: 1\nprofiles:\n  # the first\n  one:\n")
    assert "belongs to one" not in text
    assert text.endswith(FILE[FILE.index("\n  # the second") :])


def test_promotion_of_a_new_one(tmp_path: Path) -> None:
    """A profile that is not in force gets a file of its own, with the candidate's text."""
    active(tmp_path)
    new = candidate(tmp_path, "three", BODY)
    text = candidates.path(tmp_path, "three").read_bytes()
    written = promotion.promote(tmp_path, new, None)
    assert written == tmp_path / "profiles.d" / "three.yaml"
    assert written.read_bytes() == text
    assert load_profiles(tmp_path).profiles["three"] == new


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("profiles: {one: {on: a.b, actions: [command: [x]]}}\n", BODY),
        (  # another profile needs what goes
            "profiles:\n  one:\n    on: &topics [a.b]\n    actions: [command: [x]]\n"
            "  two:\n    on: *topics\n    actions: [command: [x]]\n",
            BODY,
        ),
    ],
)
def test_promotion_that_cannot_be(tmp_path: Path, text: str, body: str) -> None:
    """What cannot be exchanged line by line is refused, and every file stays as it was."""
    known = active(tmp_path, text)
    new = candidate(tmp_path, "one", body)
    with pytest.raises(ConfigError):
        promotion.promote(tmp_path, new, known["one"])
    assert (tmp_path / "profiles.yaml").read_text() == text
    assert "one" in candidates.load(tmp_path).profiles
    assert not list(tmp_path.glob("*.bak"))


def test_promotion_needs_the_candidates_own_anchors(tmp_path: Path) -> None:
    """A candidate that leans on another part of its file is refused."""
    known = active(tmp_path)
    text = "x-t: &t [n.n]\nprofiles:\n  one:\n    on: *t\n    actions: [command: [x]]\n"
    candidates.put(tmp_path, "one", text.encode())
    new = candidates.load(tmp_path).profiles["one"]
    with pytest.raises(ConfigError):
        promotion.promote(tmp_path, new, known["one"])
    assert (tmp_path / "profiles.yaml").read_text() == FILE


def test_line_ends_and_links_stay(tmp_path: Path) -> None:
    """A file with CRLF keeps it, and a link to a file elsewhere stays a link."""
    real = tmp_path / "dotfiles.yaml"
    real.write_bytes(FILE.replace("\n", "\r\n").encode())
    config = tmp_path / "config"
    config.mkdir()
    (config / "profiles.yaml").symlink_to(real)
    known = load_profiles(config).profiles
    new = candidate(config, "two", BODY)
    promotion.promote(config, new, known["two"])
    assert (config / "profiles.yaml").is_symlink()
    data = real.read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") > 10
    assert load_profiles(config).profiles["two"] == new


COMMENTS = st.sampled_from(["", "# top", "  # at the key", "      # within", "   "])


def profile_lines(name: str, indent: int, topic: str, comments: list[str]) -> list[str]:
    """A profile with comments and empty lines between its own."""
    pad = " " * indent
    body = [
        f"  {name}:",
        f"  {pad}on: {topic}",
        f"  {pad}actions:",
        f"  {pad}- command:",
        f"  {pad}  - |",
        f"  {pad}    # {name}",
        "",
        f"  {pad}    echo",
    ]
    for place, comment in enumerate(comments):
        body.insert(min(1 + place, 3), comment)
    return [*body, *comments]


@given(
    names=st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True),
    comments=st.lists(COMMENTS, max_size=3),
    indents=st.lists(st.integers(1, 5), min_size=5, max_size=5),
    tail=st.sampled_from(["", "# the end", "x-more: 1"]),
    final=st.booleans(),
)
def test_any_file(
    names: list[str], comments: list[str], indents: list[int], tail: str, final: bool
) -> None:
    """In any file, one profile becomes the candidate, and no other line changes."""
    lines = ["profiles:"]
    for name, indent in zip(names, indents, strict=False):
        lines += profile_lines(name, indent, "a.b", comments)
    text = "\n".join([*lines, tail]) + ("\n" if final else "")
    chosen = names[len(names) // 2]
    other = "\n".join(["profiles:", *profile_lines(chosen, indents[-1], "c.d", comments), ""])
    made = profile_text.exchange(text, other, chosen, file="f", other_file="g")
    old, new, wanted = (
        profiles.parse(yamlfile.parse(t.encode(), file="f")).profiles for t in (text, made, other)
    )
    assert new == {**old, chosen: wanted[chosen]}
    block = profile_text.find(text, chosen, file="f")
    before, after = text.splitlines(), made.splitlines()
    assert after[: block.first] == before[: block.first]
    rest = before[block.end :]
    assert not rest or after[-len(rest) :] == rest


def test_promotion_into_a_further_file(tmp_path: Path) -> None:
    """A profile of profiles.d is exchanged there, and profiles.yaml is not touched."""
    known = active(tmp_path)
    part = tmp_path / "profiles.d" / "more.yaml"
    part.parent.mkdir()
    part.write_text(FILE.replace("one:", "three:").replace("two:", "four:"))
    found = load_profiles(tmp_path).profiles
    new = candidate(tmp_path, "four", BODY)
    assert promotion.promote(tmp_path, new, found["four"]) == part
    assert load_profiles(tmp_path).profiles == {**found, "four": new}
    assert (tmp_path / "profiles.yaml").read_text() == FILE
    assert known.keys() < found.keys()
    assert part.with_name("more.yaml.bak").exists()
