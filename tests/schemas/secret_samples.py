"""Secrets of every format that is to be seen, put together when they are asked for.

No token stands here, so that no scanner takes this file for a leak: a form is a maker's prefix and
what follows it. In a form `{a36}` is 36 letters and digits, `{h}` hexadecimal digits, `{l}` lower
case and digits, `{u}` upper case and digits, `{d}` digits, `{b}` base64, `{w}` letters, digits, `_`
and `-`, `{id}` a UUID.
"""

from __future__ import annotations

import base64
import json
import random
import re
import uuid
from collections.abc import Iterator
from typing import Final

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABETS: Final = {
    "a": _LETTERS + _LETTERS.upper() + "0123456789",
    "h": "0123456789abcdef",
    "l": _LETTERS + "0123456789",
    "u": _LETTERS.upper() + "0123456789",
    "d": "0123456789",
    "b": _LETTERS + _LETTERS.upper() + "0123456789+/",
    "w": _LETTERS + _LETTERS.upper() + "0123456789_-",
}

#: Format, and the forms that its maker documents.
TOKENS: Final = {
    "AWS": ["AKIA{u16}", "ASIA{u16}", "ABIA{u16}", "ACCA{u16}", "ABSK{b128}"],
    "Google": ["AIza{w35}", "ya29.{w60}", "GOCSPX-{w28}", "1//0{w60}"],
    "Azure": ["{a3}8Q~{a34}", "{a76}AZDO{a4}", "{b76}+ASt{b6}==", "{a52}JQQJ99{a26}"],
    "Alibaba, Tencent, Yandex": ["LTAI{a20}", "AKID{a32}", "AQVN{w36}"],
    "DigitalOcean": ["dop_v1_{h64}", "doo_v1_{h64}", "dor_v1_{h64}"],
    "GitHub": [*(f"gh{kind}_{{a36}}" for kind in "pousr"), "github_pat_{a22}_{a59}"],
    "GitLab": [
        *(f"gl{kind}-{{w20}}" for kind in ("pat", "dt", "rt", "ptt", "ft", "imt", "oas", "soat")),
        *("glcbt-{h2}_{w20}", "glagent-{w50}", "glffct-{w20}", "glrtr-{w20}", "glwt-{w20}"),
        *("glpat-{w27}.{l2}.{l7}", "GR1348941{w20}"),
    ],
    "Bitbucket, Atlassian": ["ATBB{a32}", "ATATT3{w186}", "ATCTT3{w186}"],
    "npm": ["npm_{a36}"],
    "PyPI": ["pypi-AgEIcHlwaS5vcmc{w80}", "pypi-AgENdGVzdC5weXBpLm9yZw{w80}"],
    "RubyGems, NuGet, Clojars": ["rubygems_{h48}", "oy2{l43}", "CLOJARS_{l60}"],
    "Docker": ["dckr_pat_{w27}", "dckr_oat_{w32}"],
    "JFrog, Sonar, Sourcegraph": ["AKCp{a69}", "sqp_{h40}", "squ_{h40}", "sgp_{h40}"],
    "CircleCI, Buildkite": ["CCIPAT_{a22}_{h40}", "bkua_{h40}"],
    "Slack": [
        *("xoxb-{d12}-{d13}-{a24}", "xoxp-{d12}-{d12}-{d13}-{h32}", "xoxa-2-{d12}-{a24}"),
        *("xoxe.xoxb-1-{a160}", "xoxe-1-{a140}", "xoxs-{d12}-{a24}", "xapp-1-A{u10}-{d13}-{h64}"),
        "https://hooks.slack.com/services/T{u10}/B{u10}/{a24}",
    ],
    "Discord": [
        *("MTA4{a21}.{a6}.{w38}", "NzY1{a21}.{w6}.{w27}", "ODcy{a20}.{a6}.{w38}"),
        "https://discord.com/api/webhooks/{d18}/{w68}",
    ],
    "Telegram": ["{d10}:AA{w33}", "{d9}:AA{w33}"],
    "Teams": ["https://shop.webhook.office.com/webhookb2/{id}@{id}/IncomingWebhook/{h32}/{id}"],
    "SendGrid, Mailgun, Mailchimp, Brevo": [
        *("SG.{w22}.{w43}", "key-{h32}", "{h32}-us12", "xkeysib-{h64}-{a16}"),
    ],
    "Twilio": ["SK{h32}"],
    "Stripe": [
        *("sk_live_{a24}", "sk_test_{a99}", "rk_live_{a24}", "rk_test_{a24}", "whsec_{a32}"),
    ],
    "Square, Shopify, Plaid": [
        *("sq0atp-{w22}", "sq0csp-{w43}", "EAAA{w60}", "shpat_{h32}", "shpss_{h32}"),
        "access-production-{id}",
    ],
    "OpenAI": ["sk-{a20}T3BlbkFJ{a20}", "sk-proj-{w74}", "sk-svcacct-{w74}", "sk-admin-{w74}"],
    "Anthropic": ["sk-ant-api03-{w93}AA", "sk-ant-admin01-{w93}AA", "sk-ant-oat01-{w93}AA"],
    "Hugging Face, Replicate, Groq, Perplexity, xAI": [
        *("hf_{a34}", "api_org_{a34}", "r8_{a37}", "gsk_{a52}", "pplx-{a48}", "xai-{a80}"),
    ],
    "Vault, Terraform": ["hvs.{w95}", "hvb.{w140}", "hvr.{w95}", "{a14}.atlasv1.{w67}"],
    "Pulumi, Doppler, 1Password, Tailscale": [
        *("pul-{h40}", "dp.pt.{a43}", "dp.st.prd.{a43}", "ops_eyJ{b250}"),
        "tskey-auth-{a16}-{a32}",
    ],
    "Databricks, PlanetScale, Supabase": ["dapi{h32}", "pscale_tkn_{w43}", "sbp_{h40}"],
    "Grafana, New Relic, Sentry, Dynatrace": [
        *("glsa_{a32}_{h8}", "glc_{b60}", "NRAK-{u27}", "sntrys_{b80}", "sntryu_{h64}"),
        "dt0c01.{u24}.{u64}",
    ],
    "Linear, Notion, Figma, Postman, HubSpot, Asana": [
        *("lin_api_{a40}", "ntn_{a46}", "secret_{a43}", "figd_{w40}", "PMAK-{h24}-{h34}"),
        *("pat-na1-{id}", "2/{d16}/{d16}:{h32}"),
    ],
    "age": ["AGE-SECRET-KEY-1{u58}"],
    "Adobe, ClickHouse, Duffel, Infracost, MaxMind": [
        *("p8e-{l32}", "4b1d{a38}", "duffel_live_{w43}", "ico-{a32}", "{a6}_{a29}_mmk"),
    ],
}  # fmt: skip

#: Ways in which a token comes along; {} is the token.
AROUND: Final = (
    "{}", "pushed with {} to origin", "'{}'", "key={}", "X-Key: {}\r\nHost: a", "[{}]", "<{}>",
    "line before\n{}\nline after",
)  # fmt: skip

_NAMES: Final = (
    *("password", "passwd", "DB_PASSWORD", "userPassword", "token", "access_token", "secret"),
    *("GITHUB_TOKEN", "client_secret", "api_key", "apikey", "X-Api-Key", "secret_key"),
    *("AWS_SECRET_ACCESS_KEY", "private_key", "auth_key", "signing_key", "encryption_key"),
)


def filled(form: str, chance: random.Random) -> str:
    """One token of a form."""

    def part(found: re.Match[str]) -> str:
        if found[1] == "id":
            return str(uuid.UUID(int=chance.getrandbits(128), version=4))
        return "".join(chance.choices(_ALPHABETS[found[1]], k=int(found[2])))

    return re.sub(r"\{(id|[a-z])(\d*)\}", part, form)


def by_name(chance: random.Random) -> Iterator[tuple[str, str, str]]:
    """(format, text, the secret in it) of what only a name, a header or an address tells."""
    secret = filled("{a14}", chance)
    for name in _NAMES:
        for text in (
            f"{name}={secret} run",
            f'"{name}": "{secret}"',
            f"{name} = '{secret}'",
            json.dumps(json.dumps({name: secret})),
        ):
            yield "password=, token: and the like", text, secret
    for flag in ("--password", "--api-key", "--auth-token", "--client-secret"):
        yield "flags of command lines", f"tool {flag} {secret} x", secret
        yield "flags of command lines", f"tool {flag}={secret} x", secret
    yield "flags of command lines", f"curl -sS -u dev:{secret} https://a.example", secret
    yield "flags of command lines", f"mysqldump -u dev -p{secret} shop", secret
    for start in ("Bearer ", "Basic ", "token ", "Bot ", ""):
        yield "Authorization headers", f"Authorization: {start}{secret}", secret
        yield "Authorization headers", f'curl -H "authorization: {start}{secret}" a', secret
    yield "Authorization headers", f"sent Bearer {secret * 2}", secret
    for url in (
        *("postgres://app:{}@db/shop", "mysql://app:{}@db:3306/shop", "redis://:{}@cache:6379/0"),
        *(
            "mongodb+srv://app:{}@c0.example.net/x",
            "amqp://app:{}@mq:5672/",
            "https://u:{}@a/x.git",
        ),
        *("Server=db;Database=x;User Id=sa;Password={};", "Server=db;Uid=sa;Pwd={};Encrypt=yes"),
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=core",
        "Endpoint=sb://a.example/;SharedAccessKeyName=b;SharedAccessKey={}",
    ):
        yield "connection strings", f"cannot connect: {url.format(secret)}", secret
    for scheme, digest in (("6", 86), ("2b", 53), ("y", 43)):
        cost = {"6": "$6${a16}$", "2b": "$2b$12$", "y": "$y$j9T${a22}$"}[scheme]
        made = filled(cost + f"{{a{digest}}}", chance)
        yield "password hashes", f"dev:{made}:19000:0:99999:7:::", made


def structured(chance: random.Random) -> Iterator[tuple[str, str, str]]:
    """(format, text, the secret in it) of what has a form of its own."""
    coded = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "dev", "iat": 1516239022})
    )
    token = ".".join((*coded, filled("{w43}", chance)))
    for around in AROUND:
        yield "JWT", around.format(token), token
    for kind in ("RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", ""):
        body = "\n".join(filled("{b64}", chance) for _ in range(4))
        start, end = (f"-----{word} {kind}PRIVATE" + " KEY-----" for word in ("BEGIN", "END"))
        yield "private keys (PEM)", f"{start}\n{body}\n{end}", body
        yield "private keys (PEM)", f"{start}\n{body}", body  # cut off, as by an output limit
    for issuer, size in (("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("6011", 16), ("35", 16)):
        number = card(issuer if issuer != "35" else "3530", size, chance)
        groups = (4, 6, 5) if size == 15 else (4, 4, 4, 4)
        for separator in ("", " ", "-"):
            parts, at = [], 0
            for width in groups:
                parts.append(number[at : at + width])
                at += width
            yield "payment cards", f"paid with {separator.join(parts)}.", separator.join(parts)


def card(issuer: str, size: int, chance: random.Random) -> str:
    """A card's number with a right checksum."""
    digits = issuer + "".join(chance.choices("0123456789", k=size - len(issuer) - 1))
    total = sum(
        (int(d) * (2 - n % 2)) - 9 * (int(d) * (2 - n % 2) > 9)
        for n, d in enumerate(reversed(digits))
    )
    return digits + str(-total % 10)


def all_samples(each: int = 5) -> Iterator[tuple[str, str, str]]:
    """(format, text, the secret in it): every form `each` times in every surrounding."""
    chance = random.Random(4)
    for name, forms in TOKENS.items():
        for form in forms:
            for _ in range(each):
                token = filled(form, chance)
                # Of an address, what follows the host opens it.
                secret = token.split(".com/", 1)[1] if token.startswith("https:") else token
                for around in AROUND:
                    yield name, around.format(token), secret
    for _ in range(each):
        yield from by_name(chance)
        yield from structured(chance)
