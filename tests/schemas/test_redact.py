"""redact: what is taken out, what stays, and that it stays quick on hostile text."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.schemas.redact import FieldRule, Finding, Redactor, ValueRule, redact

# Put together here, so that no scanner takes this file for a leak.
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n"
PEM = (
    "-----BEGIN RSA PRIVATE"
    + " KEY-----\nMIIEowIBAAKCAQEA7bq\nc2VjcmV0\n-----END RSA PRIVATE KEY-----"
)
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("password", "password"),
        ("DB_PASSWORD", "password"),
        ("passwd", "password"),
        ("userPassword", "password"),
        ("secret", "secret"),
        ("client_secret", "secret"),
        ("clientSecret", "secret"),
        ("token", "secret"),
        ("access_token", "secret"),
        ("api_key", "secret"),
        ("apikey", "secret"),
        ("X-Api-Key", "secret"),
        ("private_key", "secret"),
        ("aws_secret_access_key", "secret"),
        ("Authorization", "authorization"),
        ("cookie", "cookie"),
        ("Set-Cookie", "cookie"),
    ],
)
def test_field_names(name: str, rule: str) -> None:
    """A secret's name takes out what it holds, however the name is written."""
    clean, report = redact({"a": [{name: SECRET}]})
    assert clean == {"a": [{name: f"[redacted:{rule}]"}]}
    assert [found.rule for found in report] == [rule]
    assert report[0].path.startswith("$.a[0]")


@pytest.mark.parametrize(
    "payload",
    [
        {"input_tokens": 22, "max_tokens": 100, "token_count": "3"},
        {"token": None, "secret": False, "password": ""},
        {"keyboard": "us", "monkey": "x", "key": "region", "primary_key": "id"},
        {"secret_name": "db", "password_file": "/run/secrets/db", "tokenizer": "bpe"},
        {"passed": 3, "bypass": "yes", "author": "dev", "cookie_policy": "strict"},
    ],
)
def test_harmless_names(payload: dict[str, Any]) -> None:
    """Names that only look alike, counts and empty values stay."""
    assert redact(payload) == (payload, [])


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"key:\n{PEM}\nend", "key:\n[redacted:private_key]\nend"),
        (PEM[:50], "[redacted:private_key]"),
        ("log\n" + PEM.split("\n", 1)[1] + "\nmore", "log\n[redacted:private_key]\nmore"),
        (f"got {JWT} back", "got [redacted:jwt] back"),
        (f"id {AWS}.", "id [redacted:aws_key]."),
        (f"push with {GITHUB}", "push with [redacted:github_token]"),
        ("github_pat_" + "11ABCDEFG0abcdefghijkl_mn", "[redacted:github_token]"),
        ("glpat-" + "abcdEFGH1234_-567890", "[redacted:gitlab_token]"),
        ("xoxb-" + "123456789012-abcdefGHIJ", "[redacted:slack_token]"),
        ("npm_" + "a1B2c3D4e5F6" * 3, "[redacted:npm_token]"),
        ("pypi-" + "AgEIcHlwaS5vcmc" + "xyZ012" * 10, "[redacted:pypi_token]"),
        ("sk-" + "proj-" + "abcdefghij0123456789XYZ", "[redacted:openai_key]"),
        (
            'curl -H "Authorization: Basic dXNlcjpwYXNz" host',
            'curl -H "Authorization: Basic [redacted:authorization]" host',
        ),
        ("sent Bearer abcdef0123456789ABCDEF", "sent Bearer [redacted:bearer]"),
        ("Cookie: sid=1; theme=dark\nHost: x", "Cookie: [redacted:cookie]\nHost: x"),
        (f"PGPASSWORD={SECRET} psql", "PGPASSWORD=[redacted:assignment] psql"),
        (f"GET /x?access_token={SECRET}&n=1", "GET /x?access_token=[redacted:assignment]&n=1"),
        (f"password = '{SECRET}'", "password = '[redacted:assignment]'"),
        (f'{{"token": "{SECRET}"}}', '{"token": "[redacted:assignment]"}'),
        (f"db:\n  password: {SECRET}\n", "db:\n  password: [redacted:assignment]\n"),
        (f"mysql --password {SECRET} db", "mysql --password [redacted:flag] db"),
        (f"tool --api-key={SECRET} x", "tool --api-key=[redacted:assignment] x"),
        (
            f"postgres://app:{SECRET}@db:5432/app",
            "postgres://app:[redacted:url_password]@db:5432/app",
        ),
        ("redis://:p4ss@w0rd@cache:6379", "redis://:[redacted:url_password]@cache:6379"),
        (
            "https://abcdef0123456789abcdef01@host/x.git",
            "https://[redacted:url_token]@host/x.git",
        ),
    ],
)
def test_values(text: str, clean: str) -> None:
    """A secret in a text is replaced, and the text around it stays."""
    assert redact({"line": text})[0] == {"line": clean}
    assert Redactor().text(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "sha512-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08==",
        "01a2060b-4c40-7d1e-9f00-5d6c7b8a9f01",
        "1.10.2~deb12u1+build-20261123.4f3c2d1",
        "/home/dev/work/secret/token/keys.txt",
        "https://example.org:8443/a/b@c?x=1#y",
        "git@example.org:team/app.git",
        "ssh://git@example.org/team/app.git",
        "systemd-coredump@0-187-0.service",
        "assert token == expected",
        "invalid token: expected ')'",
        "E   KeyError: 'api'",
        "--password --user dev",
        "task-runner risk-free npm_config_registry pypi-mirror",
        "    token = parser.next_token()",
        "password=None, secret=True",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_harmless_values(text: str) -> None:
    """Hashes, ids, versions, paths, code and prose stay as they are."""
    payload = {"line": text}
    clean, report = redact(payload)
    assert report == []
    assert clean is payload


def test_files_of_proc() -> None:
    """Environment and command line of a process, as /proc has them, lose their secrets; a binary
    file stays as it is."""
    redactor = Redactor()
    environ = f"A=1\0DB_PASSWORD={SECRET}\0B=2".encode()
    cmdline = f"mysql\0--password\0{SECRET}\0-u\0dev".encode()
    binary = b"\xff\0" + environ
    assert redactor.file(environ, context="", path="a")[0] == (
        b"A=1\0DB_PASSWORD=[redacted:assignment]\0B=2"
    )
    assert redactor.file(cmdline, context="", path="a")[0] == (
        b"mysql\0--password\0[redacted:flag]\0-u\0dev"
    )
    assert redactor.file(binary, context="", path="a") == (binary, [])


def test_arguments() -> None:
    """The argument after a secret's flag is taken out of a list of arguments."""
    argv = ["mysql", "--password", SECRET, "--user", "dev", "--auth-token", "-x"]
    clean, report = redact({"argv": argv})
    assert clean["argv"] == [*argv[:2], "[redacted:flag]", *argv[3:]]
    assert report == [Finding("$.argv[2]", "flag", 0, len(SECRET))]


def test_everything_under_a_secret_name() -> None:
    """A list or an object under a secret's name keeps its shape and loses its texts."""
    clean, report = redact({"credentials": {"user": "u", "n": [1, "x"], "ok": True}})
    mark = "[redacted:secret]"
    assert clean == {"credentials": {"user": mark, "n": [1, mark], "ok": True}}
    assert [found.path for found in report] == ["$.credentials.user", "$.credentials.n[1]"]
    number: dict[str, Any] = {"password": 123456}
    assert redact(number)[0] == {"password": "[redacted:password]"}


def test_key_that_is_a_secret() -> None:
    """A secret used as a key is taken out, also from the report, and no entry is lost."""
    clean, report = redact({"tokens_seen": {GITHUB: 1, GITHUB[:-1] + "9": 2}})
    assert sorted(clean["tokens_seen"].values()) == [1, 2]
    assert "ghp_" not in str(clean) + str(report)
    assert "ghp_" not in str(redact({"token": {GITHUB: {"a": "b"}}}))


def test_input_is_not_changed() -> None:
    """What is given stays as it was; what nothing matched in comes back as the same object."""
    payload = {"a": [{"password": SECRET}], "b": {"c": 1}}
    before = copy.deepcopy(payload)
    clean, _ = redact(payload)
    assert payload == before
    assert clean is not payload
    quiet = {"a": 1}
    assert redact(quiet)[0] is quiet


def test_user_rules() -> None:
    """A user's rules count beside ours, with hints and without."""
    badge = ValueRule("badge", re.compile(r"badge-(?P<secret>\d{4})"), ("badge-",))
    pin = FieldRule("pin", re.compile(r"(?:^|_)pin$"), numbers=True)
    redactor = Redactor([badge, pin])
    clean, report = redactor.redact({"card_pin": 1234, "note": "badge-1234", "password": "x"})
    assert clean == {
        "card_pin": "[redacted:pin]",
        "note": "badge-[redacted:badge]",
        "password": "[redacted:password]",
    }
    assert {found.rule for found in report} == {"badge", "pin", "password"}
    assert redact({"card_pin": 1234})[1] == []


def test_deep_nesting() -> None:
    """What is nested too deep to be searched is taken out whole."""
    deep: Any = SECRET
    for _ in range(300):
        deep = [deep]
    clean, report = redact({"password": "x", "deep": deep})
    assert SECRET not in str(clean)
    assert {found.rule for found in report} == {"password", "depth"}


@pytest.mark.parametrize(
    "unit",
    ["-", "a", "_", "password", "--a-", "eyJ", "eyJ-", "://", "://a:", "A" * 16 + "\n", "token=",
     "authorization", "-----BEGIN PRIVATE KEY-----", "key ", "@", "sk-a", "'", "password: ",
     "curl -u ", "curl a", "mysql -p", "4111 ", "4111", "eyJabcdefgh.", "MTA4", "login a ",
     "$6$a$", "AccountKey=", "?sig=", "-----BEGIN A", "Private-Lines: 1\n", "0", "a3-", "xox"],
)  # fmt: skip
def test_hostile_text_is_searched_in_linear_time(unit: str) -> None:
    """No repeated text makes a rule look at the same characters again and again: it would hang."""
    text = (unit * (50_000 // len(unit) + 1))[:50_000] + " @ password private key eyJ sk- token"
    text += " curl mysql login $6$ cookie ;pwd sig= bearer authorization xapp- private-lines: 0q~"
    redact({"text": text})


JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from([JWT, PEM, AWS, f"password={SECRET}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "token", "Password", "x-y"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON)
def test_twice_is_once(payload: Any) -> None:
    """Redacting what is redacted changes nothing, and no known secret is left."""
    clean, _ = redact(payload)
    assert redact(clean) == (clean, [])
    assert not any(secret in str(clean) for secret in (JWT, AWS, SECRET))


@given(JSON)
def test_report_says_what_changed(payload: Any) -> None:
    """The report is empty exactly when the payload comes back as the same object."""
    clean, report = redact(payload)
    assert (clean is payload) == (report == [])
