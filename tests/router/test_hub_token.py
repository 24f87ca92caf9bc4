"""Join tokens."""

from __future__ import annotations

import base64
import zlib

import pytest

from opsmesh.router.hub import token
from opsmesh.router.hub.token import BadToken, Token
from opsmesh.router.joined import Hub

TOKEN = Token(
    hub=Hub(
        kind="leaf",
        host="desk",
        urls=["tls://hub.example:4222"],
        leaf_urls=["tls://hub.example:7422"],
        hub_host="hub",
    ),
    files={"leaf.creds": b"secret", "ca.pem": b"-----BEGIN CERTIFICATE-----\n" * 40},
)


def test_a_token_is_one_line_that_holds_everything() -> None:
    """What is decoded is what was encoded, from one line, also with line breaks in it."""
    text = token.encode(TOKEN)
    assert len(text.split()) == 1
    assert token.decode(text) == TOKEN
    assert token.decode(f" {text[:40]}\n{text[40:]}\n") == TOKEN


@pytest.mark.parametrize("at", [20, 60, -30])
def test_a_token_with_one_wrong_character_is_none(at: int) -> None:
    """A character that was exchanged makes it another text, and no token."""
    text = token.encode(TOKEN)
    other = "A" if text[at] != "A" else "B"
    with pytest.raises(BadToken, match="not whole"):
        token.decode(text[:at] + other + text[at + 1 :])


def test_a_token_that_was_cut_is_none() -> None:
    """However much of the end is missing, it is told."""
    text = token.encode(TOKEN)
    for end in range(len(token.PREFIX), len(text) - 1, 7):
        with pytest.raises(BadToken, match="not whole"):
            token.decode(text[:end])


@pytest.mark.parametrize("text", ["", "hello", "opsmesh-join-2:abcd", "opsmesh-join-1"])
def test_another_text_is_no_token(text: str) -> None:
    """What does not begin as a token is told as that."""
    with pytest.raises(BadToken, match="does not begin with"):
        token.decode(text)


@pytest.mark.parametrize("name", ["../hub.json", "/etc/passwd", ".hidden"])
def test_a_token_writes_nothing_outside_its_folder(name: str) -> None:
    """A file that would lie elsewhere makes the whole token a bad one."""
    with pytest.raises(BadToken, match="outside its folder"):
        token.decode(token.encode(Token(hub=TOKEN.hub, files={name: b"x"})))


def test_a_token_that_unfolds_to_gigabytes_is_not_unfolded() -> None:
    """Ten megabytes of zeros in a small token are refused, not decoded."""
    content = bytes(10_000_000)
    packed = zlib.crc32(content).to_bytes(4, "big") + zlib.compress(content)
    with pytest.raises(BadToken, match="not whole"):
        token.decode(token.PREFIX + base64.urlsafe_b64encode(packed).decode())
