"""What a secret looks like: by the name of its field, and by its text.

Every pattern is linear in the length of the text: quantifiers are bounded, or start where their
own characters cannot stand before. Hashes, UUIDs, versions and paths match none of them.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class ValueRule(NamedTuple):
    """A secret by its text. A group `secret` is what is replaced; without one, the whole match is.

    `hints` are lower-case texts of which one is in every match: they decide quickly that a rule
    has nothing to do. A rule without hints looks at every event.
    """

    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()


class FieldRule(NamedTuple):
    """A secret by its field's name, which the pattern sees as lower-case snake_case."""

    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    numbers: bool = False  #: whether a number under such a name is a secret too


_PASSWORD = r"pass(?:word|wd|phrase)"  # noqa: S105 (a pattern, no password)
_NAME = (
    rf"(?:{_PASSWORD}|secret|token|credentials?|(?:api|access|private|secret)[_-]?key"
    r"|auth[_-]?key|signing[_-]?key)"
)
_NAME_HINTS: Final = ("passw", "passphrase", "secret", "token", "credential", "key")

FIELD_RULES: Final = (
    FieldRule(
        "password",
        re.compile(rf"(?:^|_){_PASSWORD}(?:_hash)?s?$"),
        ("passw", "passphrase"),
        numbers=True,
    ),
    FieldRule("authorization", re.compile(r"(?:^|_)authorization$"), ("authorization",)),
    FieldRule("cookie", re.compile(r"(?:^|_)cookies?$"), ("cookie",)),
    FieldRule(
        "secret",
        re.compile(
            r"(?:^|_)(?:secret|token|credential|(?:api|access|private|secret|auth|signing)_?key)s?$"
        ),
        ("secret", "token", "credential", "key"),
    ),
)

#: A flag of a command line whose next argument is a secret.
SECRET_FLAG: Final = re.compile(rf"--?(?:[A-Za-z0-9]{{1,20}}[_-]){{0,4}}{_NAME}", re.IGNORECASE)

#: Left of a token: none of a token's own characters, so that a long run is tried once.
_START = r"(?<![A-Za-z0-9_-])"

VALUE_RULES: Final = (
    ValueRule(
        "private_key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:(?!-----)[\s\S])*(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
            # The end of a key whose begin was cut off, as in the tail of an output.
            r"|(?:^[A-Za-z0-9+/=]{16,76}\r?\n){0,120}(?:^[A-Za-z0-9+/=]{1,76}\r?\n)?"
            r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
            re.MULTILINE,
        ),
        ("private key",),
    ),
    ValueRule(
        "jwt",
        re.compile(_START + r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
        ("eyj",),
    ),
    ValueRule(
        "aws_key",
        re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("akia", "asia"),
    ),
    ValueRule(
        "github_token",
        re.compile(_START + r"(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255})"),
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    ValueRule("gitlab_token", re.compile(_START + r"glpat-[A-Za-z0-9_.-]{16,}"), ("glpat-",)),
    ValueRule("slack_token", re.compile(_START + r"xox[a-z]-[A-Za-z0-9-]{10,}"), ("xox",)),
    ValueRule("npm_token", re.compile(_START + r"npm_[A-Za-z0-9]{36}"), ("npm_",)),
    ValueRule("pypi_token", re.compile(_START + r"pypi-[A-Za-z0-9_-]{32,}"), ("pypi-",)),
    ValueRule(
        "provider_key",
        re.compile(
            _START + r"(?:sk-(?:[a-z]{2,6}-){0,2}[A-Za-z0-9]{20}[A-Za-z0-9_-]*"
            r"|[sr]k_live_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{35})"
        ),
        ("sk-", "k_live_", "aiza"),
    ),
    ValueRule(
        "authorization",
        re.compile(
            r"\bauthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:bearer|basic|token|digest)\s{1,3})?"
            r"(?P<secret>[^\s\"',;]+)",
            re.IGNORECASE,
        ),
        ("authorization",),
    ),
    ValueRule(
        "bearer",
        re.compile(r"\bbearer\s{1,3}(?P<secret>[A-Za-z0-9._~+/-]{16,}={0,2})", re.IGNORECASE),
        ("bearer",),
    ),
    ValueRule(
        "cookie",
        re.compile(r"\bcookie:[ \t]{0,3}(?P<secret>[^\r\n\"']+)", re.IGNORECASE),
        ("cookie",),
    ),
    ValueRule(
        "url_password",
        re.compile(r"(?<=://)[^\s/:@'\"<>]{0,256}:(?P<secret>[^\s/'\"<>]{1,256})(?=@)"),
        ("@",),
    ),
    ValueRule(
        "url_token",
        re.compile(r"(?<=://)(?P<secret>[A-Za-z0-9_-]{20,256})(?=@)"),
        ("@",),
    ),
    # NAME='text', "NAME": "text": quoted, so blanks may stand around the sign.
    ValueRule(
        "assignment",
        re.compile(
            _NAME + r"[\"']?\s{0,3}[=:]\s{0,3}(?P<q>[\"'])(?P<secret>[^\"'\n]{1,4096})(?P=q)",
            re.IGNORECASE,
        ),
        _NAME_HINTS,
    ),
    # NAME=text as in an environment, a query or an option; `==` is a comparison.
    ValueRule(
        "assignment",
        re.compile(
            _NAME + r"=(?!=|(?:none|null|true|false)\b)(?P<secret>[^\s\"'`&;,)]+)", re.IGNORECASE
        ),
        _NAME_HINTS,
    ),
    # `name: text` or `name = text` that fills its line, as in YAML and INI; source code and prose
    # have more than one word there, or brackets.
    ValueRule(
        "assignment",
        re.compile(
            rf"^[ \t]{{0,16}}[\w.-]{{0,40}}(?:{_PASSWORD}|(?:api|access|private|secret)[_-]?key"
            r"|client[_-]?secret)[ \t]{0,3}[:=][ \t]{1,3}"
            r"(?P<secret>[^\s()\[\]{}\"']{6,})[ \t]{0,3}\r?$",
            re.IGNORECASE | re.MULTILINE,
        ),
        _NAME_HINTS,
    ),
    ValueRule(
        "flag",
        re.compile(
            rf"(?<![\w-])--?(?:[A-Za-z0-9]{{1,20}}[_-]){{0,4}}{_NAME}[ \t]{{1,3}}"
            r"(?P<secret>\"[^\"\n]{1,4096}\"|'[^'\n]{1,4096}'|[^\s\"'-]\S*)",
            re.IGNORECASE,
        ),
        _NAME_HINTS,
    ),
)
