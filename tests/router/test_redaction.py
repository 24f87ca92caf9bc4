"""The host's key, and the user's rules."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from opsmesh.router import paths, redaction
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Redact, Settings


def test_key_is_made_once_and_private(home: Path) -> None:
    """The first who needs the key makes it, for its owner alone; it stays."""
    file = redaction.key_file()
    made = redaction.key(file)
    assert len(made) == redaction.KEY_SIZE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert redaction.key(file) == made
    assert [path.name for path in Path(paths.state_dir()).iterdir()] == [file.name]


def test_processes_that_start_together_have_one_key(home: Path) -> None:
    """Agent, handlers and sink that all find no key end up with the same."""
    code = "from opsmesh.router import redaction as r; print(r.key(r.key_file()).hex())"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)
    ]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


def test_broken_key_is_never_replaced(home: Path) -> None:
    """A file that holds no key is an error with a next step, and stays as it is."""
    file = redaction.key_file()
    file.parent.mkdir(parents=True)
    file.write_text("abc\n")
    with pytest.raises(RouterError, match="holds no key of 32 bytes") as caught:
        redaction.load(Settings())
    assert "restore it" in caught.value.hint
    assert file.read_text() == "abc\n"


def test_rules_of_the_user() -> None:
    """Fields, patterns and exceptions of the settings count beside the built-in rules."""
    section = Redact.model_validate(
        {
            "fields": ["badge_number"],
            "values": {
                "ticket": {"pattern": r"TCK-(?P<secret>\d{4})", "hints": ["tck-"]},
                "vin": r"\bVIN[0-9A-Z]{5}\b",
            },
            "allow": ["hunter2", "test-.*"],
            "emails": True,
            "cards": False,
        }
    )
    redactor = redaction.redactor(section)
    clean, report = redactor.redact(
        {
            "badgeNumber": 17,
            "text": "TCK-1234 for VINAB12C of dev@example.org",
            "password": "hunter2",
            "env": ["API_TOKEN=test-1", "API_TOKEN=real-1"],
            "card": "4111 1111 1111 1111",
        }
    )
    assert clean == {
        "badgeNumber": "[redacted:badge_number]",
        "text": "TCK-[redacted:ticket] for [redacted:vin] of [redacted:email]",
        "password": "hunter2",
        "env": ["API_TOKEN=test-1", "API_TOKEN=[redacted:assignment]"],
        "card": "4111 1111 1111 1111",
    }
    assert len(report) == 5


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("values: {badge: '('}", "redact.values.badge.pattern: no regular expression: missing )"),
        ("values: {badge: 'x*'}", "redact.values.badge.pattern: matches the empty text"),
        ("allow: ['[']", "redact.allow: no regular expression: unterminated character set"),
        ("fields: ['Not A Name']", "redact.fields: string should match pattern"),
        ("feilds: []", "unknown key 'feilds'; did you mean 'fields'?"),
    ],
)
def test_mistakes_have_their_place(home: Path, section: str, said: str) -> None:
    """A slip in the section is told with file, line and key."""
    from opsmesh.cli.config import mistakes

    file = home / "config" / "opsmesh" / "config.yaml"
    file.parent.mkdir()
    file.write_text(f"redact:\n  {section}\n")
    (problem,) = mistakes()
    assert problem.startswith(f"{file}:2:")
    assert said in problem
