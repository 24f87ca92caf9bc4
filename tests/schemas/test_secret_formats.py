"""Every format that is to be seen is seen, and what only looks like one is left alone."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.house.checkout import TOP, files
from tests.schemas.secret_samples import all_samples, card

from opsmesh.schemas.redact import Kept, Redactor

#: (text, the secret in it) by format.
SAMPLES: dict[str, list[tuple[str, str]]] = defaultdict(list)
for _name, _text, _secret in all_samples():
    SAMPLES[_name].append((_text, _secret))


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor()


@pytest.mark.parametrize("name", SAMPLES)
def test_format_is_seen(redactor: Redactor, name: str) -> None:
    """No secret of the format is left, in none of the ways in which it comes along."""
    left = [text for text, secret in SAMPLES[name] if secret in redactor.text(text)]
    assert left == []


@pytest.mark.parametrize("name", SAMPLES)
def test_format_is_seen_in_stored_bytes(redactor: Redactor, name: str) -> None:
    """The same in an event's JSON, however it is escaped: the quick look misses none of them."""
    left = []
    for text, secret in SAMPLES[name]:
        for ascii_only in (False, True):
            data = json.dumps({"id": "1", "payload": {"x": text}}, ensure_ascii=ascii_only)
            clean = json.loads(redactor.redact_bytes(data.encode()))
            if secret in clean["payload"]["x"]:
                left.append(text)
    assert left == []


def test_page_has_the_figures() -> None:
    """docs/redaction.md says how many samples of each format there are, and no other format."""
    page = (TOP / "docs" / "redaction.md").read_text(encoding="utf-8")
    table = page.split("<!-- formats -->")[1].split("<!-- end -->")[0]
    rows = [row.strip("| ").split(" | ") for row in table.strip().splitlines()[2:]]
    assert {name: int(found) for name, found in rows} == {
        name: len(texts) for name, texts in SAMPLES.items()
    }


def looks_alike() -> Iterator[str]:
    """Hashes, ids, times, versions, paths, encoded data: none of it is a secret."""
    chance = random.Random(7)
    for _ in range(300):
        data = chance.randbytes(64)
        hashed, coded = data.hex(), base64.b64encode(data).decode()
        yield f"commit {hashed[:40]}"
        yield f"--hash=sha256:{hashed[:64]}"
        yield f"index {hashed[:7]}..{hashed[8:15]} 100644"
        yield f'"integrity": "sha512-{coded}"'
        yield f"pkg.py,sha256={base64.urlsafe_b64encode(data[:32]).decode().rstrip('=')},4711"
        yield f"data:image/png;base64,iVBORw0KGgo{base64.b64encode(data * 40).decode()}"
        yield f"request {uuid.UUID(bytes=data[:16])} by {uuid.UUID(bytes=data[16:32]).hex}"
        yield f"__REALTIME_TIMESTAMP={chance.randrange(17 * 10**14, 18 * 10**14)}"
        yield f"{chance.randrange(17 * 10**17, 18 * 10**17)} ns, pid {chance.randrange(10**5)}"
        yield f"order {chance.randrange(10**15, 2 * 10**15)} of {chance.randrange(10**11, 10**12)}"
        yield f"foo-{chance.randrange(40)}.{data[0]}.1~rc1+git{hashed[:12]}-1_amd64.deb"
        yield f"tests/a/test_{hashed[:9]}.py::TestKey::test_token[{hashed[:6]}-secret]"
        yield f"/nix/store/{hashed[:32]}-python3-3.11.7/lib/libssl.so.{chance.randrange(9)}"
        yield f"10.{chance.randrange(256)}.0.1:52144 -> [fe80::{hashed[:4]}:{hashed[4:8]}%eth0]:443"


def test_look_alikes_are_left(redactor: Redactor) -> None:
    """4,200 generated hashes, ids, times, versions, paths and images: not one is taken out."""
    texts = list(looks_alike())
    assert len(texts) == 4200
    assert [text for text in texts if redactor.text(text) != text] == []


def documents() -> list[Path]:
    """Prose, captures of real tools, and the installed packages' lists of files and hashes."""
    captures = [path for path in files(".jsonl", ".txt", ".json", ".log") if "data" in path.parts]
    records = sorted((TOP / ".venv").glob("lib/python*/site-packages/*.dist-info/RECORD"))
    return [*files(".md"), *captures, *records[:40]]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_real_text_is_left(redactor: Redactor, path: Path) -> None:
    """Nothing is taken out of our documents, of captures, and of lock-like lists of hashes."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    kept = [line for line in text.split("\n") if redactor.text(line) != line]
    assert kept == []


def test_card_needs_its_checksum(redactor: Redactor) -> None:
    """A number with a card's form and a wrong checksum is left, and the reason is told."""
    number = card("4", 16, random.Random(1))
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    kept: list[Kept] = []
    data = json.dumps({"paid": wrong}).encode()
    assert redactor.event(data, kept=kept) == (data, [])
    assert [(one.path, one.text, one.why) for one in kept] == [
        ("$.paid", wrong, "its checksum is wrong")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "GITHUB_TOKEN=${{ secrets.TOKEN }}",
        "password=${DB_PASSWORD}",
        "postgres://app:${PASSWORD}@db/shop",
        'token: "<your token>"',
        "api_key=****",
        "client.login(password=settings.nats.password)",
        "connect(password=getpass.getpass())",
        "clone https://<token>:x-oauth-basic",
        "ghp_" + "x" * 36,
        '{"workDoneToken": "1", "next_page_token": "CAUQ"}',
    ],
)
def test_placeholders_are_left(redactor: Redactor, text: str) -> None:
    """What stands for a secret is none: variables, templates, masks, code that hands it on."""
    assert redactor.text(text) == text


def test_mail_only_when_asked() -> None:
    """An e-mail address is taken out when the user wants it so."""
    text = "from dev@example.org to nobody"
    assert Redactor().text(text) == text
    assert Redactor(emails=True).text(text) == "from [redacted:email] to nobody"
