"""A hub that answers and does not let a leaf in, and one that does not answer, are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import PATIENCE, run

from opsmesh.router import connection, joined, paths, server
from opsmesh.router.auth.store import Store
from opsmesh.router.errors import CredentialsRefused
from opsmesh.router.hub import leaf, standing, trust
from opsmesh.router.joined import Hub, Joined
from opsmesh.router.server import EmbeddedServer


@pytest.fixture
def member(nats_server: EmbeddedServer) -> Joined:
    """A leaf that this broker, in the place of a hub, has let in."""
    allowed = leaf.permissions("desk")
    given = _store().issue("desk-leaf", role="leaf", host="desk", allowed=allowed)
    hub = Hub(kind="leaf", host="desk", urls=[nats_server.broker.url], hub_host="hub")
    joined.write(hub, {joined.LEAF_CREDS: given.encode()})
    found = joined.read()
    assert found is not None
    return found


def _store() -> Store:
    return Store(Path(paths.state_dir(), "auth"))


def _removed(broker: EmbeddedServer) -> None:
    trust.revoke(_store(), "desk")
    assert server.reload(broker.broker)


def test_a_leaf_that_was_let_in_is_not_refused(member: Joined) -> None:
    """As long as nobody has removed it the hub takes its server's credentials."""
    assert not run(standing.refused(member))


def test_a_leaf_that_was_removed_is_refused(
    nats_server: EmbeddedServer, member: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is removed the hub answers, and refuses it."""
    monkeypatch.setattr(standing, "REFUSAL", PATIENCE)  # who is busy refuses nobody in a second
    _removed(nats_server)
    assert run(standing.refused(member))


def test_a_hub_that_is_away_refuses_nobody(nats_server: EmbeddedServer, member: Joined) -> None:
    """A hub that does not answer is away, and no more is known."""
    _removed(nats_server)
    nats_server.stop()
    assert not run(standing.refused(member))


def test_who_is_refused_is_told(nats_server: EmbeddedServer, member: Joined) -> None:
    """The error names whose credentials they are, and says that a server answers."""
    _removed(nats_server)
    with pytest.raises(
        CredentialsRefused, match="does not take the credentials of desk-leaf"
    ) as it:
        run(connection.connect(connection.leaf_endpoint(member), name="test", patient=False))
    assert "no NATS server answers" not in str(it.value)
    assert "opsmesh join" in it.value.hint
