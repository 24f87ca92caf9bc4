"""`opsmesh install helix`: languages.toml with its servers behind the proxy, and as it was again.

No registry has a Helix: what its own merging makes of the file is written down here (`merged`), and
a small client speaks to the servers in its place.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.producers.agent import StandInAgent
from tests.producers.lsp_client import editing
from typer.testing import CliRunner

from opsmesh.cli.main import app
from opsmesh.producers.errors import OptionError, Unusable
from opsmesh.producers.helix import languages
from opsmesh.producers.helix.servers import DEFAULTS
from opsmesh.producers.helix.wiring import Helix
from opsmesh.producers.install import record as records

PROXY = "/data/opsmesh/helix-lsp"
OWN = """\
# mine
[language-server.ruff]   # fast
command = "ruff"  # from pipx
args = ["server", "--preview"]

[[language]]
name = "python"
language-servers = ["ruff", "mine"]

[language-server.mine]
command = 'my-server'
[language-server.mine.config]
deep = {a = [1, 2]}   # kept

[language-server.gopls]
config = { gofumpt = true }
"""


def put(text: str, *wanted: str) -> str:
    return languages.put(text, path="languages.toml", proxy=PROXY, wanted=wanted)


def take(now: str, before: str) -> str:
    return languages.take(now, before, path="languages.toml")


def merged(text: str) -> dict[str, list[str]]:
    """How Helix starts each server with this file: its own file, and this one laid over it key by
    key (helix-loader, `merge_toml_values` with a depth of 3)."""
    found = {name: {"command": it[0], "args": list(it[1:])} for name, it in DEFAULTS.items()}
    for name, entry in tomllib.loads(text).get("language-server", {}).items():
        found.setdefault(name, {"args": []}).update(entry)
    return {
        name: [one["command"], *one.get("args", [])]  # type: ignore[list-item]
        for name, one in found.items()
        if "command" in one
    }


def behind(name: str, *command: str) -> list[str]:
    return [PROXY, "--name", name, "--", *command]


def test_servers_go_behind_the_proxy() -> None:
    """Each chosen server is started by the proxy as Helix would have started it: one of the
    user's, one that is configured only, one that is nowhere; the others are as they were."""
    text = put(OWN, "ruff", "gopls", "pyright")
    before, after = merged(OWN), merged(text)
    assert after.pop("ruff") == behind("ruff", "ruff", "server", "--preview")
    assert after.pop("gopls") == behind("gopls", "gopls")
    assert after.pop("pyright") == behind("pyright", "pyright-langserver", "--stdio")
    assert after == {name: before[name] for name in after}
    changed = OWN.splitlines()[2:4]
    assert "# from pipx" in text
    theirs = [line for line in OWN.splitlines() if line not in changed]
    lines = iter(text.splitlines())
    assert all(line in lines for line in theirs)  # each after the one before: nothing has moved
    assert tomllib.loads(text)["language-server"]["gopls"]["config"] == {"gofumpt": True}
    assert tomllib.loads(text)["language"] == tomllib.loads(OWN)["language"]


def test_only_documented_keys_are_written() -> None:
    """What is written are keys and types that Helix documents for a server; it refuses others."""
    for entry in tomllib.loads(put("", *DEFAULTS))["language-server"].values():
        assert set(entry) == {"command", "args"}
        assert isinstance(entry["command"], str)
        assert all(isinstance(one, str) for one in entry["args"])


FORMS = [
    "",
    "# a comment alone",
    OWN,
    OWN.replace("\n", "\r\n"),
    'language-server = { ruff = { command = "ruff" } }\n',
    '[language-server]\nruff = { command = "ruff", args = ["server"] }\n[[language]]\nname = "x"\n',
    'language-server.ruff.command = "ruff"\n',
    '[language-server]\n"my.odd name" = { command = "x" }\n',
    "[language-server]\n",
]


@pytest.mark.parametrize("text", FORMS)
def test_put_twice_is_put_once(text: str) -> None:
    """Whatever form a file has, it can be edited, and once is enough."""
    wanted = ("ruff", "pylsp")
    made = put(text, *wanted)
    assert merged(made)["ruff"][:3] == [PROXY, "--name", "ruff"]
    assert put(made, *wanted) == made
    assert languages.behind(made, path="") == ["ruff", "pylsp"]


@pytest.mark.parametrize("text", FORMS)
def test_take_gives_the_meaning_back(text: str) -> None:
    """Without a record of the bytes, the file says what it said, and nothing of ours is left."""
    made = take(put(text, "ruff", "pylsp", "my.odd name"), text)
    assert tomllib.loads(made) == tomllib.loads(text)
    assert PROXY not in made
    assert languages.HEADING not in made


def test_take_keeps_what_was_written_since() -> None:
    """What the user has changed since stays: an argument, a key in a table of ours, a new server, a
    comment; and what was theirs has their words."""
    made = put(OWN, "ruff", "mine", "pylsp")
    made = made.replace('"--preview"]', '"--preview", "-v"]')
    made = made.replace("[language-server.pylsp]\n", "[language-server.pylsp]\ntimeout = 60\n")
    made += '\n[language-server.new]\ncommand = "new"  # theirs\n'
    taken = take(made, OWN)
    assert merged(taken)["ruff"] == ["ruff", "server", "--preview", "-v"]
    assert merged(taken)["pylsp"] == ["pylsp"]
    assert tomllib.loads(taken)["language-server"]["pylsp"] == {"timeout": 60}
    assert merged(taken)["mine"] == ["my-server"]
    assert 'command = "new"  # theirs' in taken
    assert PROXY not in taken


def test_comments_around_ours_stay() -> None:
    """A comment behind, between and before our lines is the user's, and stays."""
    made = put("# first\n", "ruff", "pylsp")
    made = made.replace(languages.HEADING, f"# before\n{languages.HEADING}")
    made = made.replace("\n\n[language-server.pylsp]", "\n# between\n\n[language-server.pylsp]")
    made += "# last\n"
    taken = take(made, "# first\n")
    assert [line for line in taken.splitlines() if line and line != languages.HEADING] == [
        "# first",
        "# before",
        "# between",
        "# last",
    ]


def test_others_are_taken_out_again() -> None:
    """What is no more wanted is started as it was, and what has moved with the user's data is
    started from its new place."""
    made = put(put(OWN, "ruff", "pylsp"), "pylsp")
    assert languages.behind(made, path="") == ["pylsp"]
    assert merged(made)["ruff"] == ["ruff", "server", "--preview"]
    moved = made.replace(PROXY, "/elsewhere/opsmesh/helix-lsp")
    assert put(moved, "pylsp") == made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[language-server", "is no TOML"),
        ("language-server = 3", "is not what Helix knows"),
        ("[language-server]\nruff = 'ruff server'", "is not what Helix knows"),
    ],
)
def test_a_file_that_is_not_understood_is_left_alone(text: str, says: str) -> None:
    """A file that is no TOML, or none of Helix's, is an error that names it."""
    with pytest.raises(Unusable, match=says):
        put(text, "ruff")


names = st.sampled_from(["ruff", "pylsp", "gopls", "mine"])
entries = st.fixed_dictionaries(
    {},
    optional={
        "command": st.sampled_from(["ruff", "/opt/x y", 'a"b', "é"]),
        "args": st.lists(st.text(max_size=5), max_size=3),
        "timeout": st.integers(0, 9),
    },
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(table=st.dictionaries(names, entries, max_size=4), wanted=st.sets(names))
def test_any_table_comes_back(table: dict[str, dict[str, Any]], wanted: set[str]) -> None:
    """Whatever servers a file names, it means the same after both; and each wanted one that can be
    started is behind the proxy in between."""
    import tomlkit

    text = tomlkit.dumps({"language-server": table}) if table else ""
    made = put(text, *sorted(wanted))
    before, after = merged(text), merged(made)
    for name in wanted & set(before):
        assert after[name] == behind(name, *before[name])
    assert tomllib.loads(take(made, text)) == tomllib.loads(text)


@pytest.fixture
def helix(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with Helix's folder and a ruff on PATH, and nothing else."""
    (home / "config/helix").mkdir()
    (home / "bin").mkdir()
    (home / "bin/ruff").symlink_to(Path(sys.executable).with_name("ruff"))
    monkeypatch.setenv("PATH", f"{home / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(home))
    return home / "config/helix/languages.toml"


def opsmesh(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_install_and_uninstall(helix: Path) -> None:
    """The file is shown as a diff, written, told as wired, and given back byte for byte; one that
    was not there is gone again."""
    for before in (None, b"# mine, unended"):
        if before is not None:
            helix.write_bytes(before)
        done = opsmesh("install", "helix", "--yes")
        assert done.exit_code == 0, done.output
        assert '+args = ["--name", "ruff", "--", "ruff", "server"]' in done.output
        assert "behind the proxy: ruff" in done.output
        assert opsmesh("install", "--check").exit_code == 0
        assert opsmesh("uninstall", "helix", "--yes").exit_code == 0
        assert (helix.read_bytes() if helix.exists() else None) == before
    assert records.load("helix") is None


def test_what_is_written_beside_it_changes_nothing(helix: Path) -> None:
    """A comment, or a language, that is written later leaves it wired; both stay when it goes."""
    helix.write_text(OWN)
    opsmesh("install", "helix", "--yes", "-o", "server=ruff,pylsp")
    added = '# more\n[[language]]\nname = "go"\n'
    helix.write_text(helix.read_text() + added)
    assert opsmesh("install", "--check").exit_code == 0
    assert opsmesh("uninstall", "helix", "--yes").exit_code == 0
    assert helix.read_text() == OWN + "\n" + added


def test_a_server_that_comes_later_makes_it_stale(helix: Path) -> None:
    """A server that is installed after is told by --check, and goes behind the proxy with the next
    install."""
    opsmesh("install", "helix", "--yes")
    pylsp = helix.parent.parent.parent / "bin/pylsp"
    pylsp.write_text("#!/bin/sh\n")
    pylsp.chmod(0o755)
    done = opsmesh("install", "--check")
    assert done.exit_code == 1
    assert "languages.toml is stale" in " ".join(done.output.split())
    assert "pylsp" in opsmesh("install", "helix", "--yes").output
    assert opsmesh("install", "--check").exit_code == 0


def test_servers_are_chosen_by_an_option(helix: Path) -> None:
    """`-o server=NAME` chooses, also one that is not on PATH; the choice is kept."""
    done = opsmesh("install", "helix", "--yes", "-o", "server=gopls,pylsp")
    assert "behind the proxy: gopls, pylsp" in done.output
    assert opsmesh("install", "--check").exit_code == 0
    assert opsmesh("install", "helix").output.startswith("helix: nothing to do")
    opsmesh("install", "helix", "--yes", "-o", "server=")
    assert "gopls" not in helix.read_text()


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("helix", "-o", "server=rufff"), "did you mean ruff?", 1),
        (("helix", "-o", "sever=ruff"), "unknown; helix has server", 1),
        (("helix", "-o", "server"), "expected key=value", 1),
        (("helix", "shell", "-o", "server=ruff"), "for one tool", 2),
        (("shell", "-o", "server=ruff"), "unknown; shell has none", 1),
    ],
)
def test_a_wrong_choice_is_named(helix: Path, words: tuple[str, ...], says: str, code: int) -> None:
    """An option that is not there, or a server that nobody can start, is an error with a hint."""
    done = opsmesh("install", *words)
    assert done.exit_code == code
    assert says in " ".join(done.output.split())
    assert not helix.exists()


def test_the_wiring_alone(helix: Path) -> None:
    """It is not here without Helix, and says so without a server."""
    assert Helix().missing() is None
    (helix.parent.parent.parent / "bin/ruff").unlink()
    assert "no language server" in (Helix().missing() or "")
    helix.parent.rmdir()
    assert "neither hx nor helix" in (Helix().missing() or "")
    with pytest.raises(OptionError, match="did you mean pylsp"):
        Helix(server="pylps").pieces()[1].put("")  # type: ignore[union-attr]


def test_what_is_written_works(helix: Path, home: Path, agent: StandInAgent) -> None:
    """The command that stands in languages.toml then is started by an editor, and a save is told;
    without opsmesh the server runs alone."""
    opsmesh("install", "helix", "--yes")
    entry = tomllib.loads(helix.read_text())["language-server"]["ruff"]
    with editing([entry["command"], *entry["args"]], home / "log") as editor:
        editor.begin(home)
        editor.save(home / "a.py")
        [event] = agent.wait_for(lambda events: bool(events))
        assert editor.end() == 0
    assert (event["component"], event["payload"]["editor"]) == ("ruff", "helix")
    proxy = Path(entry["command"])
    proxy.write_text(proxy.read_text().replace(str(Path(sys.executable).parent), "/gone"))
    done = subprocess.run(
        [proxy, "--name", "x", "--", "echo", "alone", "--", "$HOME"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout == "alone -- $HOME\n"
