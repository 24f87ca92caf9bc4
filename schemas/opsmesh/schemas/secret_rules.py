"""What a secret looks like by its name: of a field, a variable, a flag, a header, in an address.

`token_rules` holds those that show by their own text. Every pattern is linear in the length of the
text: quantifiers are bounded, or start where their own characters cannot stand before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from opsmesh.schemas.secret_checks import not_a_card


class ValueRule(NamedTuple):
    """A secret by its text. A group `secret` is what is replaced; without one, the whole match is.

    `hints` are lower-case texts of which one is in every match: they decide quickly that a rule
    has nothing to do. A rule without hints looks at every event.
    """

    name: str
    #: Compiled when the first hint of it is seen: most rules never are, in most processes.
    pattern: re.Pattern[str] | str
    hints: tuple[str, ...] = ()
    #: Bits a character that a secret has at least: what has less is a sample of the form.
    entropy: float = 0.0
    #: Whether a placeholder (`${TOKEN}`, `<password>`) may stand where the secret would.
    placeholders: bool = False
    #: Why a match is no secret, "" when it is one.
    check: Callable[[str], str] | None = None


class FieldRule(NamedTuple):
    """A secret by its field's name, which the pattern sees as lower-case snake_case."""

    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    numbers: bool = False  #: whether a number under such a name is a secret too


_PASSWORD = r"pass(?:word|wd|phrase)"  # noqa: S105 (a pattern, no password)
#: What a key is called that is a secret; "key" alone is not.
_KEYS: Final = (
    *("api", "access", "private", "secret", "auth", "signing"),
    *("encryption", "account", "shared", "master", "storage"),
)
_KEY = rf"(?:{'|'.join(_KEYS)})[_-]?key"
#: What editors and pagers call a token is none that opens anything.
_TOKEN = "".join(rf"(?<!{word})(?<!{word}_)" for word in ("done", "progress", "result", "page"))
_TOKEN += "token"
_NAME = rf"(?:{_PASSWORD}|secret|{_TOKEN}|credentials?|{_KEY})"
_KEY_HINTS: Final = tuple(f"{word}{sep}key" for word in _KEYS for sep in ("", "_", "-", " "))
_PASSWORD_HINTS: Final = ("password", "passwd", "passphrase")
NAME_HINTS: Final = (*_PASSWORD_HINTS, "secret", "token", "credential", *_KEY_HINTS)

FIELD_RULES: Final = (
    FieldRule(
        "password",
        re.compile(rf"(?:^|_){_PASSWORD}(?:_hash)?s?$|_pwd$"),
        (*_PASSWORD_HINTS, "_pwd", "-pwd", "pwd"),
        numbers=True,
    ),
    FieldRule("authorization", re.compile(r"(?:^|_)authorization$"), ("authorization",)),
    FieldRule("cookie", re.compile(r"(?:^|_)cookies?$"), ("cookie",)),
    FieldRule(
        "secret",
        re.compile(
            rf"(?:^|_)(?:secret|{_TOKEN}|credential|authtoken"
            rf"|(?:{'|'.join(_KEYS)})_?key)s?$"
        ),
        ("secret", "token", "credential", *_KEY_HINTS),
    ),
    FieldRule(
        "card",
        re.compile(r"(?:^|_)(?:credit_?card|card_?(?:number|no|num)|cvv2?|cvc2?)$"),
        ("card", "cvv", "cvc"),
        numbers=True,
    ),
)

#: A flag of a command line whose next argument is a secret.
SECRET_FLAG: Final = re.compile(rf"--?(?:[A-Za-z0-9]{{1,20}}[_-]){{0,4}}{_NAME}", re.IGNORECASE)
#: A flag of a command line whose next argument is `user:password`.
USER_FLAG: Final = re.compile(r"-u|--(?:proxy-)?user")
#: Programs that know USER_FLAG; elsewhere `-u` is something else.
USER_PROGRAMS: Final = re.compile(r"(?:.*/)?(?:curl|wget|http|https|xh)")

NAMED_RULES: Final = (
    ValueRule(
        "authorization",
        (
            r"(?i)\bauthorization\\?[\"']?\s{0,3}[:=]\s{0,3}\\?[\"']?"
            r"(?:(?:bearer|basic|token|digest|bot|apikey|negotiate)\s{1,3})?"
            r"(?P<secret>[^\s\0\"',;\\]+)"
        ),
        ("authorization",),
        placeholders=True,
    ),
    ValueRule(
        "bearer",
        r"(?i)\bbearer\s{1,3}(?P<secret>[A-Za-z0-9._~+/-]{16,}={0,2})",
        ("bearer",),
        entropy=1.8,
    ),
    ValueRule(
        "cookie",
        r"(?i)\bcookie:[ \t]{0,3}(?P<secret>[^\r\n\0\"']+)",
        ("cookie",),
    ),
    ValueRule(
        "url_password",
        r"(?<=://)[^\s/:@'\"<>]{0,256}:(?P<secret>[^\s\0/'\"<>]{1,256})(?=@)",
        ("@",),
        placeholders=True,
    ),
    ValueRule(
        "url_token",
        r"(?<=://)(?P<secret>[A-Za-z0-9_-]{20,256})(?=@)",
        ("@",),
        entropy=1.8,
    ),
    # The connection strings of ADO.NET, ODBC and Azure: `Server=…;Pwd=…`, `AccountKey=…==`.
    ValueRule(
        "connection_string",
        (
            r"(?i);\s{0,3}(?:pwd|password|accountkey|sharedaccesskey|sharedaccesssignature)\s{0,3}="
            r"\s{0,3}(?P<secret>[^;\"'\s\0]+)"
        ),
        (*_PASSWORD_HINTS, "pwd", "accountkey", "sharedaccess"),
        placeholders=True,
    ),
    ValueRule(
        "url_signature",
        (
            r"(?i)[?&](?:sig|x-amz-signature|x-amz-security-token|x-goog-signature)="
            r"(?P<secret>[A-Za-z0-9%+/_=-]{32,})"
        ),
        ("sig=", "x-amz-s", "x-goog-s"),
        entropy=1.8,
    ),
    # NAME='text', "NAME": "text": quoted, so blanks may stand around the sign.
    ValueRule(
        "assignment",
        (
            "(?i)" + _NAME + r"\\?[\"']?\s{0,3}[=:]\s{0,3}(?P<q>\\?[\"'])"
            r"(?P<secret>[^\"'\n\\]{1,4096})(?P=q)"
        ),
        NAME_HINTS,
        placeholders=True,
    ),
    # NAME=text as in an environment, a query or an option; `==` is a comparison.
    ValueRule(
        "assignment",
        (
            rf"(?i)(?:{_NAME}|_pwd)"
            r"=(?!=|(?:none|null|true|false)\b)(?P<secret>[^\s\0\"'`&;,)\\]+)"
        ),
        (*NAME_HINTS, "_pwd"),
        placeholders=True,
    ),
    # `name: text` or `name = text` that fills its line, as in YAML and INI; source code and prose
    # have more than one word there, or brackets.
    ValueRule(
        "assignment",
        (
            rf"(?im)^[ \t]{{0,16}}[\w.-]{{0,40}}"
            rf"(?:{_PASSWORD}|{_KEY}|client[_-]?secret|auth[_-]?token)"
            r"[ \t]{0,3}[:=][ \t]{1,3}(?P<secret>[^\s()\[\]{}\"']{6,})[ \t]{0,3}\r?$"
        ),
        NAME_HINTS,
        placeholders=True,
    ),
    ValueRule(
        "flag",
        (
            rf"(?i)(?<![\w-])--?(?:[A-Za-z0-9]{{1,20}}[_-]){{0,4}}{_NAME}[ \t\0]{{1,3}}"
            r"(?P<secret>\"[^\"\n]{1,4096}\"|'[^'\n]{1,4096}'|[^\s\0\"'-][^\s\0]*)"
        ),
        NAME_HINTS,
        placeholders=True,
    ),
    ValueRule(
        "flag",
        (
            r"\b(?:curl|wget|https?|xh)\b[^\n|;&]{0,400}?[\s\0](?:-u|--(?:proxy-)?user)"
            r"[ =\0]{0,2}[\"']?[^\s\0:\"']{1,100}:(?P<secret>[^\s\0\"']+)"
        ),
        ("curl", "wget", "http ", "https ", "xh "),
        placeholders=True,
    ),
    ValueRule(
        "flag",
        (
            r"\b(?:mysql(?:dump|admin|import)?|mariadb|sshpass)\b[^\n|;&]{0,400}?[\s\0]-p[ \t]?"
            r"(?P<secret>[^\s\0-][^\s\0]*)"
        ),
        ("mysql", "mariadb", "sshpass"),
        placeholders=True,
    ),
    ValueRule(  # ~/.netrc
        "netrc",
        r"\blogin\s{1,8}\S{1,200}\s{1,8}password\s{1,8}(?P<secret>\S+)",
        ("login",),
    ),
    ValueRule(  # of crypt(3), bcrypt and Argon2, as in /etc/shadow
        "password_hash",
        (
            r"\$(?:2[abxy]\$\d\d\$[./A-Za-z0-9]{53}"
            r"|[1567y]\$(?:[A-Za-z0-9=,./]{1,64}\$){1,2}[./A-Za-z0-9]{22,128}"
            r"|argon2(?:id|i|d)\$[A-Za-z0-9=,$+/]{30,256})"
        ),
        ("$2a$", "$2b$", "$2x$", "$2y$", "$1$", "$5$", "$6$", "$7$", "$y$", "$argon2"),
    ),
)

CARD: Final = ValueRule(
    "card",
    (
        r"(?<![\w.-])(?:[2-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1?\d{1,3})?"
        r"|3[47]\d{2}([ -]?)\d{6}\2\d{5}|3[068]\d{2}([ -]?)\d{6}\3\d{4})(?![\w-]|\.\d)"
    ),
    ("0" * 13, "0000-0000-0000-", "0000 0000 0000 ", "0000-000000-0000", "0000 000000 0000"),
    check=not_a_card,
)

#: Only when it is asked for: an address is often what an event is about.
EMAIL: Final = ValueRule(
    "email",
    (r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"),
    ("@",),
)
