"""Secrets that show by their own text: tokens with a maker's prefix, keys between their lines.

Written from what is generally known of these formats. A rule's hints are found by an automaton in
lower case with every digit as 0 (`redact`), so they may hold digits.
"""

from __future__ import annotations

from itertools import product
from typing import Final

from opsmesh.schemas.secret_rules import ValueRule

#: Left of a token: none of a token's own characters, so that a long run is tried once.
_START = r"(?<![A-Za-z0-9_-])"
#: A token's bits a character; `ghp_xxxxxxxx` of a manual has fewer.
_RANDOM: Final = 1.8
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def _token(name: str, form: str, *hints: str) -> ValueRule:
    return ValueRule(name, _START + form, hints, entropy=_RANDOM)


def _hex_after(prefix: str) -> tuple[str, ...]:
    """Hints for a prefix that is too common alone, and hex digits after it."""
    return tuple(prefix + "".join(two) for two in product("0abcdef", repeat=2))


#: A bot's token begins with its number in base64: every start of two to three digits.
_DISCORD_HINTS: Final = tuple(map("".join, product("mno", "dtjz", "aeimquycgk", "wxyz0")))

TOKEN_RULES: Final = (
    ValueRule(
        "private_key",
        (
            r"(?m)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:(?!-----)[\s\S])*(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
            # The end of a key whose begin was cut off, as in the tail of an output.
            r"|(?:^[A-Za-z0-9+/=]{16,76}\r?\n){0,120}(?:^[A-Za-z0-9+/=]{1,76}\r?\n)?"
            r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"|^Private-Lines: \d{1,4}\r?\n(?:[A-Za-z0-9+/=]{1,76}\r?\n?){1,200}"
        ),
        ("private key", "private-lines:"),
    ),
    _token("age_key", r"AGE-SECRET-KEY-1[A-Z0-9]{58}", "age-secret-key-"),
    ValueRule(
        "jwt",
        (
            _START + r"(?:eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"
            r"|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){2}(?:\.[A-Za-z0-9_-]*){0,2})"
        ),
        ("eyj",),
        entropy=_RANDOM,
    ),
    # Clouds.
    ValueRule(
        "aws_key",
        (
            r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}|A3T[A-Z0-9]{17}"
            r"|ABSK[A-Za-z0-9+/]{109,269}={0,2})(?![A-Za-z0-9])"
        ),
        ("akia", "asia", "abia", "acca", "a3t", "absk"),
        entropy=_RANDOM,
    ),
    _token("aws_key", rf"amzn\.mws\.{_UUID}", "amzn.mws."),
    _token(
        "google_key",
        r"(?:AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{28}"
        r"|1//0[A-Za-z0-9_-]{30,})",
        *("aiza", "ya29.", "gocspx-", "1//0"),
    ),
    ValueRule(
        "azure_key",
        (
            r"(?<![A-Za-z0-9_~.-])[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}(?![A-Za-z0-9_~.-])"
            r"|(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{76}\+ASt[A-Za-z0-9+/]{6}(?:==)?"
            r"|[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}|[A-Za-z0-9]{52}JQQJ9[A-Za-z0-9]{27,31}={0,2})"
        ),
        ("0q~", "+ast", "azdo", "jqqj9"),
        entropy=_RANDOM,
    ),
    _token("alibaba_key", r"LTAI[A-Za-z0-9]{12,24}(?![A-Za-z0-9])", "ltai"),
    _token("tencent_key", r"AKID[A-Za-z0-9]{13,40}(?![A-Za-z0-9])", "akid"),
    _token("yandex_key", r"AQVN[A-Za-z0-9_-]{35,38}(?![A-Za-z0-9_-])", "aqvn"),
    _token("digitalocean_token", r"do[opr]_v1_[a-f0-9]{64}", *(f"do{x}_v1_" for x in "opr")),
    _token("databricks_token", r"dapi[a-f0-9]{32}(?:-\d)?", *_hex_after("dapi")),
    _token("cloudflare_key", r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}", *_hex_after("v1.0-")),
    _token(
        "fly_token",
        r"(?:fo1_[A-Za-z0-9_-]{43}|fm[12][ar]?_[A-Za-z0-9+/]{100,}={0,3})",
        *("fo1_", "fm1_", "fm2_", "fm1a_", "fm1r_", "fm2a_", "fm2r_"),
    ),
    _token("heroku_key", r"HRKU-AA[A-Za-z0-9_-]{50,}", "hrku-aa"),
    _token("netlify_token", r"nfp_[A-Za-z0-9]{36}", "nfp_"),
    _token("render_key", r"rnd_[A-Za-z0-9]{28,}", "rnd_"),
    _token("scaleway_token", r"tk-us-[A-Za-z0-9_-]{48}", "tk-us-"),
    # Code, packages and their builds.
    _token(
        "github_token",
        r"(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255})",
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    _token(
        "gitlab_token",
        r"(?:gl(?:pat|dt|rtr?|cbt|ptt|ft|imt|agent|oas|soat|ffct|wt)-[A-Za-z0-9_.=-]{16,}"
        r"|GR1348941[A-Za-z0-9_-]{20})",
        *(f"gl{kind}-" for kind in ("pat", "dt", "rt", "rtr", "cbt", "ptt", "ft", "imt", "agent")),
        *("gloas-", "glsoat-", "glffct-", "glwt-", "gr1348941"),
    ),
    _token("bitbucket_token", r"ATBB[A-Za-z0-9]{32}", "atbb"),
    _token("atlassian_token", r"AT(?:ATT|CTT)3[A-Za-z0-9_=-]{60,}", "atatt3", "atctt3"),
    _token("npm_token", r"npm_[A-Za-z0-9]{36}", "npm_"),
    _token("pypi_token", r"pypi-[A-Za-z0-9_-]{32,}", "pypi-"),
    _token("rubygems_token", r"rubygems_[a-f0-9]{48}", *_hex_after("rubygems_")),
    _token("nuget_key", r"oy2[a-z0-9]{43}(?![a-z0-9])", "oy2"),
    _token("clojars_token", r"CLOJARS_[a-z0-9]{60}", "clojars_"),
    _token("packagist_token", r"packagist_[ou][ru]t_[a-f0-9]{40,}", "packagist_"),
    _token("docker_token", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,}", "dckr_"),
    _token(
        "jfrog_key",
        r"(?:AKCp[A-Za-z0-9]{69}|cmVmd[A-Za-z0-9]{59})(?![A-Za-z0-9])",
        *("akcp", "cmvmd"),
    ),
    _token("circleci_token", r"CCIP(?:AT|RJ)_[A-Za-z0-9]{20,}_[a-f0-9]{40}", "ccipat_", "cciprj_"),
    _token("buildkite_token", r"bk[au]a_[a-f0-9]{40}", "bkua_", "bkaa_"),
    _token("sonar_token", r"sq[pau]_[a-f0-9]{40}", *("sqp_", "sqa_", "squ_")),
    _token("sourcegraph_token", r"sgp_(?:[A-Za-z0-9]{1,20}_)?[a-f0-9]{40}", "sgp_"),
    _token("codecov_token", r"octopus-[A-Za-z0-9]{26,}", "octopus-"),
    # Chat and mail.
    _token(
        "slack_token",
        r"(?:xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,})",
        *("xox", "xapp-"),
    ),
    ValueRule(
        "webhook",
        (
            r"hooks\.slack(?:-gov)?\.com/(?P<secret>(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{20,})"
        ),
        ("hooks.slack",),
    ),
    ValueRule(
        "webhook",
        r"discord(?:app)?\.com/api/webhooks/\d{15,22}/(?P<secret>[A-Za-z0-9_-]{50,})",
        ("/api/webhooks/",),
    ),
    ValueRule(
        "webhook",
        r"\.webhook\.office\.com/webhookb2/(?P<secret>[A-Za-z0-9@/_-]{40,})",
        ("webhook.office.com",),
    ),
    _token(
        "discord_token",
        r"[MNO][DTjz][AEIMQUYcgk][wxyz0-5][A-Za-z0-9_-]{19,24}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{25,110}",
        *_DISCORD_HINTS,
    ),
    ValueRule(
        "telegram_token",
        r"(?<![0-9])\d{6,12}:AA[A-Za-z0-9_-]{32,34}(?![A-Za-z0-9_-])",
        ("0:aa",),
        entropy=_RANDOM,
    ),
    _token("sendgrid_key", r"SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}", "sg."),
    _token("mailgun_key", r"key-[a-f0-9]{32}(?![A-Za-z0-9])", *_hex_after("key-")),
    _token("mailchimp_key", r"[a-f0-9]{32}-us\d{1,2}(?!\d)", "-us0"),
    _token(
        "brevo_key", r"x(?:keysib|smtpsib)-[a-f0-9]{64}-[A-Za-z0-9]{16}", "xkeysib-", "xsmtpsib-"
    ),
    _token("twilio_key", r"SK[0-9a-fA-F]{32}(?![A-Za-z0-9])", *_hex_after("sk")),
    _token("mattermost_hook", r"mm_[a-z0-9]{26}(?![a-z0-9])", "mm_"),
    # Payment and shops.
    _token(
        "stripe_key",
        r"(?:[sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/]{24,}={0,2})",
        *("k_live_", "k_test_", "k_prod_", "whsec_"),
    ),
    _token(
        "square_token",
        r"(?:sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,}|EAAA[A-Za-z0-9_-]{56,})",
        *("sq0atp-", "sq0csp-", "sq0idp-", "eaaa"),
    ),
    _token(
        "shopify_token",
        r"shp(?:at|ca|pa|ss|ua)_[A-Fa-f0-9]{32}",
        *(f"shp{x}_" for x in ("at", "ca", "pa", "ss", "ua")),
    ),
    _token(
        "plaid_token",
        rf"access-(?:sandbox|development|production)-{_UUID}",
        *("access-sandbox-", "access-development-", "access-production-"),
    ),
    _token("flutterwave_key", r"FLWSECK(?:_TEST)?-[a-z0-9-]{12,}", "flwseck"),
    _token("easypost_key", r"EZ[AT]K[A-Za-z0-9]{54}", "ezak", "eztk"),
    _token("shippo_token", r"shippo_(?:live|test)_[a-fA-F0-9]{40}", "shippo_"),
    # Models.
    _token("anthropic_key", r"sk-ant-[a-z0-9]{2,12}-[A-Za-z0-9_-]{20,}", "sk-ant-"),
    _token(
        "openai_key",
        r"sk-(?:(?:proj|svcacct|service|admin|None)-[A-Za-z0-9_-]{20,}"
        r"|(?:[A-Za-z0-9]{2,10}-){0,2}(?=[A-Za-z_-]{0,40}\d)[A-Za-z0-9]{20}[A-Za-z0-9_-]*)",
        "sk-",
    ),
    _token("huggingface_token", r"(?:hf|api_org)_[A-Za-z0-9]{30,}", "hf_", "api_org_"),
    _token("replicate_token", r"r8_[A-Za-z0-9]{37,}", "r8_"),
    _token("groq_key", r"gsk_[A-Za-z0-9]{48,}", "gsk_"),
    _token("perplexity_key", r"pplx-[A-Za-z0-9]{40,}", "pplx-"),
    _token("xai_key", r"xai-[A-Za-z0-9]{70,}", "xai-"),
    _token("langsmith_key", r"lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}", "lsv2_"),
    # Vaults and deployment.
    _token("vault_token", r"hv[sbr]\.[A-Za-z0-9_-]{24,}", *("hvs.", "hvb.", "hvr.")),
    _token("terraform_token", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}", ".atlasv1."),
    _token("pulumi_token", r"pul-[a-f0-9]{40}", *_hex_after("pul-")),
    _token(
        "doppler_token",
        r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{40,}",
        *(f"dp.{x}." for x in ("pt", "st", "ct", "sa", "scim", "audit")),
    ),
    _token(
        "1password_token",
        r"(?:ops_eyJ[A-Za-z0-9+/]{60,}={0,2}|A3(?:-[A-Z0-9]{5,11}){5,6})",
        *("ops_eyj", "a3-"),
    ),
    _token("tailscale_key", r"tskey-[a-z]{2,12}-[A-Za-z0-9]{8,}-[A-Za-z0-9]{16,}", "tskey-"),
    _token("prefect_key", r"pn[ub]_[A-Za-z0-9]{36}", "pnu_", "pnb_"),
    _token("planetscale_token", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,}", "pscale_"),
    _token("supabase_key", r"sb(?:p|_secret)_[A-Za-z0-9_-]{31,}", "sbp_", "sb_secret_"),
    _token("openshift_token", r"sha256~[A-Za-z0-9_-]{43}", "sha256~"),
    _token(
        "harness_key", r"[ps]at\.[A-Za-z0-9_-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}", "pat.", "sat."
    ),
    # Watching and telling.
    _token(
        "grafana_token",
        r"(?:glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}|glc_[A-Za-z0-9+/]{32,}={0,2})",
        "glsa_",
        "glc_",
    ),
    _token(
        "newrelic_key",
        r"NR(?:AK|II|JS|RA|SP)-[A-Za-z0-9]{19,32}",
        *(f"nr{x}-" for x in ("ak", "ii", "js", "ra", "sp")),
    ),
    _token(
        "sentry_token", r"sntry(?:s_[A-Za-z0-9+/=_-]{40,}|u_[a-f0-9]{64})", "sntrys_", "sntryu_"
    ),
    _token("dynatrace_token", r"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}", "dt0c0", "dt0s0"),
    # Work.
    _token("asana_token", r"\d/\d{16}(?:/\d{16})?:[a-f0-9]{32}", "0/" + "0" * 16),
    _token("linear_key", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}", "lin_api_", "lin_oauth_"),
    _token("notion_token", r"(?:ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43})", "ntn_", "secret_"),
    _token("figma_token", r"fig[dour]_[A-Za-z0-9_-]{40,}", *(f"fig{x}_" for x in "dour")),
    _token("postman_key", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}", "pmak-"),
    _token("hubspot_token", rf"pat-(?:na|eu|ap)\d-{_UUID}", "pat-na0-", "pat-eu0-", "pat-ap0-"),
    _token("contentful_token", r"CFPAT-[A-Za-z0-9_-]{43}", "cfpat-"),
    _token("mapbox_token", r"sk\.eyJ[A-Za-z0-9_-]{40,}\.[A-Za-z0-9_-]{20,}", "sk.eyj"),
    _token("typeform_token", r"tfp_[A-Za-z0-9_.=-]{44,}", "tfp_"),
    _token("readme_key", r"rdme_[a-z0-9]{60,}", "rdme_"),
    _token("launchdarkly_key", rf"(?:api|sdk)-{_UUID}", *_hex_after("api-"), *_hex_after("sdk-")),
    _token("facebook_token", r"EAA[A-Za-z0-9]{90,}", "eaa"),
    _token("grafana_token", r"eyJrIjoi[A-Za-z0-9+/]{60,400}={0,2}", "eyjrijoi"),
    _token("jwt", r"ZXlK[A-Za-z0-9+/]{60,}={0,2}", "zxlk"),  # in base64, as in Kubernetes secrets
    _token("aws_key", r"bedrock-api-key-[A-Za-z0-9+/=]{28,}", "bedrock-api-key-"),
    _token("infracost_token", r"ico-[A-Za-z0-9]{32}(?![A-Za-z0-9])", "ico-"),
    _token("maxmind_key", r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk", "_mmk"),
    _token("intra42_secret", r"s-s4t2(?:ud|af)-[a-f0-9]{64}", "s-s4t2"),
    _token("clickhouse_key", r"4b1d[A-Za-z0-9]{38}(?![A-Za-z0-9])", "4b1d"),
    _token("frameio_token", r"fio-u-[A-Za-z0-9_=-]{60,}", "fio-u-"),
    _token("duffel_token", r"duffel_(?:live|test)_[A-Za-z0-9_=-]{40,}", "duffel_"),
    _token("adobe_secret", r"p8e-[a-z0-9]{32}(?![a-z0-9])", "p8e-"),
    _token(
        "settlemint_token",
        r"sm_[aps]at_[A-Za-z0-9]{16}(?![A-Za-z0-9])",
        *("sm_aat_", "sm_pat_", "sm_sat_"),
    ),
    _token("dropbox_token", r"sl\.(?:u\.)?[A-Za-z0-9_-]{130,}", "sl."),
    _token("gitlab_cookie", r"(?<![a-z])_gitlab_session=[a-z0-9]{32}", "_gitlab_session="),
)
