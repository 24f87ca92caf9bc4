"""`opsmesh hub`, `join`, `leave`: what is refused, and what is written before anything runs."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli

from opsmesh.cli.hub import commands
from opsmesh.router import joined, paths
from opsmesh.router.auth.store import Store
from opsmesh.router.hub import plan, token, trust

INIT = ("hub", "init", "--address", "10.0.0.1", "--address", "hub.example.org")


@pytest.fixture
def here(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line on a machine that is called desk."""
    monkeypatch.setenv("OPSMESH_HOST", "desk")
    return cli


def made(cli: Cli, monkeypatch: pytest.MonkeyPatch, host: str, *more: str) -> str:
    """A token for this host, made at a hub whose plan is then put away."""
    monkeypatch.setenv("OPSMESH_HOST", "server")
    assert cli(*INIT).exit_code == 0
    text = cli("hub", "token", "--host", host, *more).stdout.strip()
    plan.remove()
    monkeypatch.setenv("OPSMESH_HOST", "desk")
    return text


def test_init_says_addresses_ports_and_what_is_next(here: Cli) -> None:
    """The plan holds what was given, and the next two steps are said."""
    done = here(*INIT, "--port", "14222")
    assert done.exit_code == 0, done.output
    for said in ("10.0.0.1, hub.example.org", "14222", "7422", "opsmesh up", "opsmesh hub token"):
        assert said in done.stdout
    hub = plan.read()
    assert hub is not None
    assert (hub.host, hub.port, hub.addresses[1]) == ("desk", 14222, "hub.example.org")


@pytest.mark.parametrize("address", ["", "hub.example.org:4222", "tls://hub.example.org"])
def test_an_address_that_is_none_makes_no_hub(here: Cli, address: str) -> None:
    """What is neither a name nor an address is refused, before certificates name it."""
    done = here("hub", "init", "--address", address)
    assert (done.exit_code, plan.read()) == (2, None)


def test_init_again_keeps_hosts_and_addresses(here: Cli) -> None:
    """A second init changes what it names, and forgets nobody."""
    here(*INIT)
    here("hub", "token", "--host", "lab")
    assert here("hub", "init", "--leaf-port", "17422").exit_code == 0
    hub = plan.read()
    assert hub is not None
    assert (hub.leaf_port, hub.addresses, hub.leaves) == (
        17422,
        ["10.0.0.1", "hub.example.org"],
        ["lab"],
    )


def test_a_token_names_every_address_of_the_hub(here: Cli) -> None:
    """It is one line, and holds where the hub is for clients and for servers."""
    here(*INIT)
    done = here("hub", "token", "--host", "lab", "--kind", "thin")
    given = token.decode(done.stdout)
    assert given.hub.kind == "thin"
    assert [url.partition("://")[2] for url in given.hub.urls] == [
        "10.0.0.1:4222",
        "hub.example.org:4222",
    ]
    assert given.hub.leaf_urls[0].endswith("10.0.0.1:7422")
    listed = json.loads(here("hub", "ls", "--json").stdout)
    assert [(one["host"], one["kind"]) for one in listed] == [("lab", "thin")]


def test_a_token_in_a_file_is_its_owners_alone(here: Cli, home: Path) -> None:
    """With -o nothing of it is on the screen, and the file is private."""
    here(*INIT)
    file = home / "lab.token"
    done = here("hub", "token", "--host", "lab", "-o", str(file))
    assert token.PREFIX not in done.output
    assert file.stat().st_mode & 0o777 == 0o600
    assert token.decode(file.read_text()).hub.host == "lab"


@pytest.mark.parametrize("host", ["desk", "HUB", "Desk"])
def test_no_host_is_called_like_the_hub(here: Cli, host: str) -> None:
    """A name that the hub itself has in subjects is refused."""
    here(*INIT)
    done = here("hub", "token", "--host", host)
    assert done.exit_code == 2
    assert "needs a name of its own" in " ".join(done.stderr.split())


def test_tokens_are_made_at_a_hub(here: Cli) -> None:
    """On another machine the next step is said."""
    done = here("hub", "token", "--host", "lab")
    assert done.exit_code == 2
    assert "opsmesh hub init" in done.stderr


def test_removing_that_was_broken_off(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in its middle leaves a host that can be removed again, and is let in no more
    then."""
    here(*INIT)
    here("hub", "token", "--host", "lab")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "of a test")

    with monkeypatch.context() as patched:
        patched.setattr(trust, "revoke", full)
        with pytest.raises(OSError, match="of a test"):
            commands.remove("lab")
    assert here("hub", "remove", "lab").exit_code == 0
    users = Store(Path(paths.state_dir(), "auth")).manifest().users
    assert [name for name, one in users.items() if one.host == "lab"] == []


def test_removing_a_host_that_is_none(here: Cli) -> None:
    """It is not there: exit code 3."""
    here(*INIT)
    assert here("hub", "remove", "lab").exit_code == 3


def test_joining(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token from standard input this machine knows its hub, and leaves it again."""
    text = made(here, monkeypatch, "desk")
    done = here("join", "-", input=f"{text}\n")
    assert done.exit_code == 0, done.output
    assert "joined server as desk, a leaf host" in done.stdout
    member = joined.read()
    assert member is not None
    assert member.hub.hub_host == "server"
    left = here("leave")
    assert "opsmesh hub remove desk" in left.stdout
    assert joined.read() is None
    assert here("leave").exit_code == 3


def test_doctor_tells_a_certificate_that_ends_soon(
    here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until when it is valid, and thirty days before that how to get another one."""

    def told() -> dict[str, Any]:
        checks = json.loads(here("doctor", "--json").stdout)
        found: dict[str, Any] = next(one for one in checks if one["check"] == "certificate")
        return found

    here("join", "-", input=made(here, monkeypatch, "desk"))
    assert told()["ok"]
    soon = Store(Path(paths.state_dir(), "auth")).ca.certificate("desk", days=29)
    (joined.folder() / "host.pem").write_bytes(soon)
    assert not told()["ok"]
    assert "opsmesh hub token --host desk" in told()["fix"]


def test_a_token_of_another_host_changes_nothing(
    here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways out are said."""
    text = made(here, monkeypatch, "lab")
    done = here("join", "-", input=text)
    assert done.exit_code == 1
    said = " ".join(done.stderr.split())
    assert "for the host 'lab'" in said
    assert "opsmesh hub token --host desk" in said
    assert "host: lab" in said
    assert joined.read() is None


def test_a_hub_joins_no_other(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine is one or the other."""
    text = made(here, monkeypatch, "desk")
    here(*INIT)
    assert "is a hub itself" in here("join", "-", input=text).stderr
    plan.remove()
    here("join", "-", input=text)
    assert "opsmesh leave" in here(*INIT).stderr


def test_a_server_of_ones_own_is_not_joined_to_anything(
    here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nats.url neither `join` nor `hub init` would have an effect: they say so."""
    text = made(here, monkeypatch, "desk")
    monkeypatch.setenv("OPSMESH_NATS_URL", "nats://10.0.0.9:4222")
    assert "nats.url" in here("join", "-", input=text).stderr
    assert "nats.url" in here(*INIT).stderr
    assert joined.read() is None


@pytest.mark.parametrize("text", ["", "hello", "opsmesh-join-1:AAAA"])
def test_joining_with_what_is_no_token(here: Cli, text: str) -> None:
    """The reason is said, and where tokens are made; nothing is written."""
    done = here("join", "-", input=text)
    assert done.exit_code == 1
    assert "no join token" in done.stderr
    assert "opsmesh hub token" in done.stderr
    assert not Path(paths.config_dir(), "joined").exists()


def test_joining_with_a_file_that_is_not_there(here: Cli) -> None:
    """Exit code 3."""
    assert here("join", "nowhere.token").exit_code == 3
