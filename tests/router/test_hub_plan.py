"""What a hub and its hosts keep on disk: hub.yaml, and joined/."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsmesh.router import joined, paths
from opsmesh.router.errors import BadFile
from opsmesh.router.hub import plan
from opsmesh.router.hub.plan import Member, Plan
from opsmesh.router.joined import Hub

SINCE = "2026-11-27T20:00:00.000000Z"
HUB = Hub(kind="thin", host="desk", urls=["nats://10.0.0.1:4222"], hub_host="server")


def mode(path: Path) -> int:
    """Who may read it."""
    return path.stat().st_mode & 0o777


def test_a_plan_is_read_as_it_was_written(home: Path) -> None:
    """hub.yaml holds the whole plan, for its owner alone."""
    made = Plan(host="server", addresses=["10.0.0.1"]).with_host(
        "desk", Member(kind="leaf", since=SINCE)
    )
    plan.write(made)
    assert plan.read() == made
    assert mode(plan.path()) == 0o600
    assert made.leaves == ["desk"]
    assert made.without("desk").hosts == {}


def test_a_machine_without_a_plan_is_no_hub(home: Path) -> None:
    """No file, no hub."""
    assert plan.read() is None


@pytest.mark.parametrize("text", ["{", "host: a\n", "host: a\naddresses: []\nprot: 1\n", "- a\n"])
def test_a_broken_plan_is_told_with_its_path(home: Path, text: str) -> None:
    """What is no plan is a BadFile, not a machine that is no hub."""
    Path(paths.config_dir()).mkdir(parents=True, exist_ok=True)
    plan.path().write_text(text)
    with pytest.raises(BadFile, match=r"hub\.yaml"):
        plan.read()


@pytest.mark.parametrize("host", ["HUB", "Server", "desk.lan"])
def test_two_hosts_never_have_one_name_in_subjects(home: Path, host: str) -> None:
    """A name that NATS could not tell from another one clashes with it."""
    members = {
        "desk-lan": Member(kind="leaf", since=SINCE),
        "desk_lan": Member(kind="thin", since=SINCE),
    }
    made = Plan(host="server", addresses=["10.0.0.1"], hosts=members)
    assert made.clash(host) is not None
    assert made.clash("lab") is None


def test_joining_again_replaces_everything(home: Path) -> None:
    """Nothing of the hub that was joined before is left, and all is its owner's alone."""
    joined.write(HUB, {"producer.creds": b"one", "ca.pem": b"ca"})
    joined.write(HUB, {"leaf.creds": b"two"})
    member = joined.read()
    assert member is not None
    assert member.hub == HUB
    assert sorted(path.name for path in joined.folder().iterdir()) == ["hub.json", "leaf.creds"]
    assert mode(joined.folder()) == 0o700
    assert {mode(path) for path in joined.folder().iterdir()} == {0o600}
    joined.remove()
    assert joined.read() is None
