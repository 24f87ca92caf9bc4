"""`opsmesh a2a`: agents as a person sees them on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.conftest import Cli
from tests.handlers.a2a_liar import Liar, liar
from tests.handlers.a2a_peers import Peer, configure, peer

from opsmesh.router import paths
from opsmesh.router.settings import Settings

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("cli_a2a")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """One agent for all tests of this module."""
    with peer(tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest.fixture(scope="module")
def lies() -> Iterator[Liar]:
    """One liar for all tests of this module."""
    with liar() as running:
        yield running


def test_ls(cli: Cli, agent: Peer) -> None:
    """Every agent is listed with its card, and what is wrong with one that cannot be used."""
    configure(good={"url": agent.address}, gone={"url": "http://127.0.0.1:9"})
    rows = {row["name"]: row for row in json.loads(cli("a2a", "ls", "--json").stdout)}
    assert (rows["good"]["card"], rows["good"]["skills"]) == ("Scripted Agent", "do")
    assert rows["good"]["problem"] is None
    assert "cannot be reached" in rows["gone"]["problem"]
    assert "Scripted Agent" in cli("a2a", "ls").stdout


def test_ls_of_none(cli: Cli) -> None:
    """Without agents it says where they are written."""
    result = cli("a2a", "ls")
    assert result.exit_code == 0
    assert "a2a_agents" in result.stderr


def test_card_and_pin(cli: Cli, agent: Peer) -> None:
    """What --pin prints is the setting that agrees to the card, and is kept from then on."""
    shown = cli("a2a", "card", agent.address)
    assert "Scripted Agent" in shown.stdout
    assert "(not pinned)" in shown.stdout
    configure(scripted={"url": agent.address})
    pinned = cli("a2a", "card", "scripted", "--pin")
    found = yaml.safe_load(pinned.stdout)
    Path(paths.config_dir(), "config.yaml").write_text(pinned.stdout)
    assert (
        Settings().a2a_agents["scripted"].card_sha256
        == (found["a2a_agents"]["scripted"]["card_sha256"])
    )
    assert "(pinned)" in cli("a2a", "card", "scripted").stdout
    assert cli("a2a", "send", "scripted", "say hello").exit_code == 0
    other = yaml.safe_load(pinned.stdout)
    other["a2a_agents"]["scripted"]["card_sha256"] = "0" * 64
    Path(paths.config_dir(), "config.yaml").write_text(yaml.safe_dump(other))
    refused = cli("a2a", "send", "scripted", "say hello")
    assert refused.exit_code == 1
    assert "its card has changed" in refused.stderr
    assert "opsmesh a2a card scripted --pin" in refused.stderr
    assert "another one is pinned" in cli("a2a", "card", "scripted").stdout


def test_card_of_a_liar(cli: Cli, lies: Liar) -> None:
    """Nothing of a card reaches the terminal as it is."""
    shown = cli("a2a", "card", f"{lies.address}/honest")
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) < 400


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("say hello there", 0, "hello there"),
        ("message", 0, "no task needed"),
        ("fail", 1, "no model"),
        ("ask", 1, "Which branch?"),
    ],
)
def test_send(cli: Cli, agent: Peer, text: str, code: int, said: str) -> None:
    """An answer is shown; whatever is not completed ends with 1."""
    configure(scripted={"url": agent.address})
    result = cli("a2a", "send", "scripted", text)
    assert (result.exit_code, said in result.stdout) == (code, True)
    facts: dict[str, Any] = json.loads(cli("a2a", "send", "scripted", text, "--json").stdout)
    assert set(facts) == {"state", "task_id", "status_message", "artifacts", "truncated"}


def test_send_without_patience(cli: Cli, agent: Peer, tmp_path: Path) -> None:
    """A task that takes longer goes on, and is named."""
    configure(scripted={"url": agent.address})
    result = cli("a2a", "send", "scripted", f"wait {tmp_path / 'never'}", "--timeout", "0.2")
    assert result.exit_code == 1
    assert "not done within 0.2 s; task" in result.stderr


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["card", "nobody"], 3, "there is none of this name"),
        (["send", "nobody", "x"], 3, "there is none of this name"),
        (["card", "http://"], 2, "is no address"),
        (["card", "http://127.0.0.1:9"], 1, "cannot be reached"),
        (["serve"], 1, "nobody may ask"),
        (["serve", "--host", "0.0.0.0", "--no-auth"], 1, "there is no TLS"),
        (["serve", "--no-auth", "--port", "0"], 69, ""),
    ],
)
def test_mistakes(cli: Cli, argv: list[str], code: int, said: str) -> None:
    """A mistake is a message, not a traceback."""
    result = cli("a2a", *argv)
    assert result.exit_code == code
    assert said in result.stderr


def test_settings(cli: Cli) -> None:
    """A secret that is written out, and a key that is not there, are told with their line."""
    file = Path(paths.config_dir(), "config.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    token = "t0p" + "s3cret" * 3
    file.write_text(f"a2a_agents:\n  a:\n    url: http://a\n    bearer: {token}\n    pin: x\n")
    result = cli("config", "validate")
    assert result.exit_code != 0
    assert "config.yaml:4" in result.stderr
    assert "a secret is referred to" in result.stderr
    assert "config.yaml:5" in result.stderr
    assert token not in result.stderr


def test_settings_are_shown_without_secrets(cli: Cli) -> None:
    """`config show` tells where agents are, and nothing that is sent to them."""
    configure(far={"url": "http://a", "headers": {"X-Key": "k3y" + "0" * 9}})
    shown = cli("config", "show").stdout
    assert "http://a" in shown
    assert "k3y000" not in shown
