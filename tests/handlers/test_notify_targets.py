"""The action `notify` beyond the desktop, through apprise: to an HTTP receiver and an SMTP server
of this test's own, which stand in for a chat and a mail service."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import run

from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.notify import Notify
from opsmesh.handlers.actions.shared import Shared
from opsmesh.router import paths
from opsmesh.router.settings import Settings

Context = Callable[..., StepContext]


class Receiver(ThreadingHTTPServer):
    """Answers with `status`, and keeps what it got."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[str, dict[str, Any]]] = []
        super().__init__(("127.0.0.1", 0), _Request)


class _Request(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Mailbox(socketserver.ThreadingTCPServer):
    """As much of SMTP (RFC 5321) as one mail needs."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        super().__init__(("127.0.0.1", 0), _Mail)


class _Mail(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline().strip().upper():
            if line == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                mail = b""
                while not mail.endswith(b"\r\n.\r\n"):
                    mail += self.rfile.readline()
                self.server.mails.append(mail.decode())
            self.wfile.write(b"221 bye\r\n" if line == b"QUIT" else b"250 fine\r\n")


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Its port while it serves."""
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def receiver(home: Path) -> Iterator[Receiver]:
    """A chat service, and the name `chat` for it."""
    server = Receiver()
    with serving(server) as port:
        targets(chat=f"json://127.0.0.1:{port}/hook-{'s3cr3t' * 3}")
        yield server


def targets(**known: str) -> None:
    """What config.yaml says."""
    path = Path(paths.config_dir(), "config.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"notify": {"targets": known}}))


def send(context: Context, value: Any, *, times: int = 1, **facts: Any) -> StepResult:
    """A step that notifies, so many times in one process; the last result."""

    async def body() -> StepResult:
        shared = Shared()
        try:
            ctx = context(shared=shared, **facts)
            results = [await Notify.parse(value).run(ctx) for _ in range(times)]
            return results[-1]
        finally:
            await shared.aclose()

    result: StepResult = run(body())
    return result


def test_sent(receiver: Receiver, context: Context) -> None:
    """Title, text and urgency arrive; the text is not read again by apprise."""
    value = {
        "title": "${{ event.payload.unit }} failed",
        "body": "<b>a</b> \\n {app_title} file:///etc/passwd",
        "urgency": "critical",
        "to": "chat",
    }
    result = send(context, value)
    [(path, got)] = receiver.got
    assert path.startswith("/hook-")
    assert (got["title"], got["type"]) == ("backup.service failed", "failure")
    assert got["message"] == "<b>a</b> \\n {app_title} file:///etc/passwd"
    assert got["attachments"] == []
    assert result.output == {"shown": False, "held_back": False, "sent": ["chat"], "failed": []}


def test_broken_settings(receiver: Receiver, context: Context) -> None:
    """config.yaml with a mistake leaves the targets that were in force."""

    async def body() -> list[StepResult]:
        shared = Shared()
        step = Notify.parse({"title": "x", "to": "chat"})
        before = await step.run(context(shared=shared, idempotency_key="1"))
        Path(paths.config_dir(), "config.yaml").write_text("notify: {target: {}}")
        after = await step.run(context(shared=shared, idempotency_key="2"))
        await shared.aclose()
        return [before, after]

    assert [one.output["sent"] for one in run(body())] == [["chat"], ["chat"]]
    assert len(receiver.got) == 2


@pytest.mark.parametrize(("status", "retryable"), [(500, True), (429, True), (404, False)])
def test_refused(receiver: Receiver, context: Context, status: int, retryable: bool) -> None:
    """A service that says no fails the step; only what may pass is tried again. The error has the
    reason, and not the address."""
    receiver.status = status
    result = send(context, {"title": "x", "to": "chat"})
    assert (result.ok, result.retryable) == (False, retryable)
    assert result.error is not None
    assert result.error.startswith("chat: ")
    assert str(status) in result.error
    assert "s3cr3t" not in result.error


def test_sent_once(receiver: Receiver, context: Context) -> None:
    """A step that is tried again because another target failed does not send twice."""
    targets_of = {"title": "x", "to": ["chat", "nowhere"]}
    result = send(context, targets_of, times=3)
    assert len(receiver.got) == 1
    assert (result.ok, result.retryable, result.output["sent"]) == (False, False, ["chat"])


def test_unknown_target(receiver: Receiver, context: Context) -> None:
    """A name that the settings do not have is not tried again, and the nearest one is named."""
    result = send(context, {"title": "x", "to": "chet"})
    assert result.error == "chet: notify.targets in config.yaml has no 'chet'; did you mean 'chat'?"
    assert not result.retryable


@pytest.mark.parametrize("where", ["settings", "profile"])
def test_a_secret_address(receiver: Receiver, context: Context, where: str) -> None:
    """An address may be a secret; it is got when it is needed, and not shown."""
    url = f"json://127.0.0.1:{receiver.server_address[1]}/secret"

    class Kept:
        def get(self, name: str) -> str:
            return url

        def fill(self, text: str) -> str:
            return url if "secret(" in text else text

    reference = '${{ secret("chat-url") }}'
    targets(phone=reference)
    to = "phone" if where == "settings" else reference
    result = send(context, {"title": "x", "to": to}, secrets=Kept())
    assert [path for path, _ in receiver.got] == ["/secret"]
    assert result.output["sent"] == ["phone" if where == "settings" else "a secret"]


def test_a_secret_within_an_address(home: Path) -> None:
    """An address may have a secret in it; what is neither is refused."""
    targets(phone='ntfys://${{ secret("token") }}@example.org/topic')
    assert "phone" in Settings().notify.targets
    targets(phone='${{ secret("token") }} example.org')
    with pytest.raises(ValueError, match="is no address"):
        Settings()


def test_a_secret_that_is_missing(receiver: Receiver, context: Context) -> None:
    """Without its secret a target cannot be reached, and is not tried again."""
    result = send(context, {"title": "x", "to": '${{ secret("none") }}'})
    assert (result.ok, result.retryable) == (False, False)
    assert (result.error or "").startswith("a secret: there is no secret 'none'")


def test_not_an_address(home: Path, context: Context) -> None:
    """An address that apprise does not know is not tried again."""
    targets(odd="nosuchservice://x")
    result = send(context, {"title": "x", "to": "odd"})
    assert (result.ok, result.retryable) == (False, False)


def test_nobody_there(home: Path, context: Context) -> None:
    """A service that cannot be reached may be there later."""
    server = Receiver()
    with serving(server) as port:
        targets(chat=f"json://127.0.0.1:{port}/")
    result = send(context, {"title": "x", "to": "chat"})
    assert (result.ok, result.retryable) == (False, True)


def test_mail(home: Path, context: Context) -> None:
    """A mail has the title as its subject, in one line whatever an event says."""
    server = Mailbox()
    with serving(server) as port:
        targets(
            mail=f"mailto://127.0.0.1:{port}?from=mesh@example.org&to=me@example.org&mode=insecure"
        )
        value = {"title": "${{ event.payload.unit }}", "body": "gone", "to": ["mail"]}
        event = context().event
        view = {**event.view(), "payload": {"unit": "x\r\nBcc: all@example.org"}}
        result = send(context, value, variables={"event": view})
    assert result.ok, result.error
    [mail] = server.mails
    assert "Subject: x Bcc: all@example.org" in mail
    assert "\nBcc:" not in mail
    assert "gone" in mail


def test_without_the_extra(
    receiver: Receiver, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without apprise the step fails, and says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "apprise", None)
    result = send(context, {"title": "x", "to": "chat"})
    assert (result.ok, result.retryable) == (False, False)
    assert "opsmesh[notify]" in (result.error or "")


def test_addresses_are_not_shown(receiver: Receiver) -> None:
    """`opsmesh config show` names the targets, and masks where they are."""
    from opsmesh.cli import config_file

    [shown] = [one for one in config_file.read() if one.key == "notify.targets"]
    assert shown.value == {"chat": config_file.MASK}


def test_a_wrong_address_is_not_shown(home: Path) -> None:
    """An error in the settings does not repeat an address."""
    from pydantic import ValidationError

    from opsmesh.cli import config_file

    targets(chat="token-" + "s3cr3t")
    with pytest.raises(ValidationError) as caught:
        config_file.read()
    [line] = config_file.explain(caught.value)
    assert "notify.targets.chat" in line
    assert "s3cr3t" not in line
