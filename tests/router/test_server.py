"""The embedded nats-server: its configuration, its credentials, its durability."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from opsmesh.router import server
from opsmesh.router.errors import BrokerMisconfigured, BrokerUnavailable
from opsmesh.router.server_config import LOGIN_S


def test_configuration_is_private_and_kept(tmp_path: Path) -> None:
    """Credentials and port survive a second prepare, in files that only their owner reads."""
    first = server.prepare(tmp_path, name="a")
    assert server.prepare(tmp_path, name="a") == first == server.known(tmp_path)
    for name in ("server.json", "nats.conf", "auth/keys.json", "auth/own/admin.creds"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_port_that_was_taken_is_replaced(tmp_path: Path) -> None:
    """When another program has taken the port since, the broker gets a free one."""
    first = server.prepare(tmp_path, name="a")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # we keep it, until somebody
        other.bind(("127.0.0.1", int(first.url.rpartition(":")[2])))
        other.listen()
        assert server.prepare(tmp_path, name="a").url != first.url


def test_one_free_port_is_not_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may name one free port twice; the broker and its monitor get two, also where an
    earlier version kept one for both."""
    server.prepare(tmp_path, name="a")
    free = iter((4001, 4001, 4002))

    class Given(socket.socket):
        def bind(self, address: object, /) -> None:
            """Any port is free."""

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", next(free)

    monkeypatch.setattr(socket, "socket", Given)
    (tmp_path / "server.json").write_text('{"port": 4000, "monitor_port": 4000}')
    kept = server.prepare(tmp_path, name="a")
    assert (kept.url, kept.monitor_url) == ("nats://127.0.0.1:4000", "http://127.0.0.1:4001")
    (tmp_path / "server.json").unlink()
    new = server.prepare(tmp_path, name="a")
    assert new.url.rpartition(":")[2] != new.monitor_url.rpartition(":")[2]


def test_running_server_is_durable(nats_server: server.EmbeddedServer) -> None:
    """The server that was started with our configuration syncs every write."""
    server.check_durable(nats_server.broker)


def test_who_connects_may_take_its_time(nats_server: server.EmbeddedServer) -> None:
    """A client that a busy machine keeps waiting is not sent away after two seconds."""
    varz = server.monitored(nats_server.broker.monitor_url + "/varz")
    assert varz["auth_timeout"] == LOGIN_S >= 20


def test_lax_server_is_refused(tmp_path: Path) -> None:
    """A server without sync_interval: always is refused with what to set."""
    broker = server.prepare(tmp_path, name="a")
    broker.config.write_text(broker.config.read_text().replace('"sync_interval": "always",', ""))
    lax = server.EmbeddedServer(broker)
    with pytest.raises(BrokerMisconfigured, match="before data is on disk") as refused:
        lax.start()
    lax.stop()
    assert "sync_interval: always" in refused.value.hint


@pytest.mark.parametrize("its", ["url", "monitor_url"])
def test_port_that_is_taken_at_the_last_moment(
    nats_server: server.EmbeddedServer, tmp_path: Path, its: str
) -> None:
    """A server whose monitor's port another server took just before is no server that is ready,
    whatever answers there."""
    broker = server.prepare(tmp_path / "late", name="a")
    taken = getattr(nats_server.broker, its).rpartition(":")[2]
    mine = broker.monitor_url.rpartition(":")[2]
    broker.config.write_text(broker.config.read_text().replace(mine, taken))
    late = server.EmbeddedServer(replace(broker, monitor_url=f"http://127.0.0.1:{taken}"))
    with pytest.raises(BrokerUnavailable, match="ended with code 1"):
        late.start()
    late.stop()


def test_server_that_ends_is_reported(tmp_path: Path) -> None:
    """A server that ends while it starts is an error with its exit code, not a time-out."""
    broker = server.prepare(tmp_path, name="a")
    broker.config.write_text("not a configuration {")
    with pytest.raises(BrokerUnavailable, match="ended with code 1"):
        server.EmbeddedServer(broker).start()


def test_binary_that_is_no_program_is_refused(tmp_path: Path) -> None:
    """A nats-server that is set but cannot be executed is named, with where to mend it."""
    with pytest.raises(BrokerMisconfigured, match="not an executable"):
        server.find_binary(tmp_path / "nothing")
