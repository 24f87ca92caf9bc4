"""What the sources of a lock say together, what hypridle's commands leave, and its wiring."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from opsmesh.producers.logind import conf, inbox
from opsmesh.producers.logind.locks import HYPRIDLE, LOGIND, Locks
from opsmesh.producers.logind.wiring import Hypridle
from opsmesh.producers.wiring import OwnFile, SourceLine

S = 1_000_000


def test_a_lock_that_two_sources_see_is_one() -> None:
    """Whoever comes second, within seconds or later, adds nothing."""
    locks = Locks()
    first = locks.see("c1", HYPRIDLE, locked=True, at_us=0)
    assert first is not None
    assert first.payload() == {
        "locked": True,
        "state": "locked",
        "cause": "hypridle",
        "session": "c1",
    }
    assert locks.hint("c1", locked=True, at_us=S // 10) is None
    unlocked = locks.hint("c1", locked=False, at_us=60 * S)
    assert unlocked is not None
    assert (unlocked.state, unlocked.cause) == ("unlocked", "logind")
    assert locks.see("c1", HYPRIDLE, locked=False, at_us=70 * S) is None


def test_a_slow_source_does_not_lock_again_what_is_unlocked() -> None:
    """Locked and unlocked before the second source speaks: it confirms both, in its own time."""
    locks = Locks()
    assert locks.see("c1", HYPRIDLE, locked=True, at_us=0)
    assert locks.see("c1", HYPRIDLE, locked=False, at_us=S // 50)
    assert locks.hint("c1", locked=True, at_us=S // 10) is None
    assert locks.hint("c1", locked=False, at_us=S // 5) is None
    assert locks.hint("c1", locked=True, at_us=S // 4)  # that is another lock


def test_one_source_alone_is_enough() -> None:
    """hyprlock sets no hint: hypridle tells every lock of it, again and again."""
    locks = Locks()
    seen = [
        locks.see("", HYPRIDLE, locked=number % 2 == 0, at_us=number * S // 10)
        for number in range(10)
    ]
    assert all(seen)


def test_sleep_says_how_the_lock_is() -> None:
    """Sleeping and waking leave the lock as it was, and are told once."""
    locks = Locks()
    locks.see("c1", LOGIND, locked=True, at_us=0)
    asleep = locks.sleep("c1", asleep=True, at_us=S)
    assert asleep is not None
    assert (asleep.locked, asleep.state, asleep.cause) == (True, "sleeping", "sleep")
    assert locks.sleep("c1", asleep=True, at_us=S) is None
    woke = locks.sleep("c1", asleep=False, at_us=2 * S)
    assert woke is not None
    assert woke.state == "woke"


def test_memory_is_bounded_and_restored() -> None:
    """A thousand sessions leave a bounded memory; what it holds comes back through JSON."""
    locks, other = Locks(), Locks()
    for number in range(1000):
        locks.hint(f"c{number}", locked=True, at_us=number)
    assert len(locks.dump()["locks"]) == 64
    other.restore(json.loads(json.dumps(locks.dump())))
    assert other.dump() == locks.dump()
    assert other.hint("c999", locked=True, at_us=0) is None


def test_ten_thousand_reports_alternate_for_each_session() -> None:
    """In whatever order sources speak, no session is told locked twice in a row."""
    chance, locks, told = random.Random(7), Locks(), dict[str, bool]()
    for number in range(10_000):
        session, locked = chance.choice("abc"), chance.random() < 0.5
        if chance.random() < 0.5:
            found = locks.hint(session, locked=locked, at_us=number * S // 10)
        else:
            found = locks.see(session, HYPRIDLE, locked=locked, at_us=number * S // 10)
        if found is not None:
            assert found.locked is not told.get(session, False)
            told[session] = found.locked


def test_commands_leave_words_with_their_times(tmp_path: Path) -> None:
    """The shell command makes the folder and the file; a word says what and when."""
    place = tmp_path / "run it's #1/lock"
    for what in (True, False):
        command = inbox.command(place, locked=what)
        subprocess.run(["/bin/sh", "-c", command], check=True)
    (place / "locked.x").touch()
    (place / "other").touch()
    (place / "locked.99999999999999").touch()
    os.utime(next(place.glob("unlocked.*")), ns=(1, 7_000_000_000))
    unlocked, locked = inbox.words(place)
    assert (unlocked.locked, unlocked.at_us, locked.locked) == (False, 7 * S, True)
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def hypridle(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hypridle on PATH; the path of its configuration."""
    program = home / "bin/hypridle"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (home / "config/hypr").mkdir()
    return home / "config/hypr/hypridle.conf"


def pieces() -> tuple[OwnFile, SourceLine]:
    own, line = Hypridle().pieces()
    assert isinstance(own, OwnFile)
    assert isinstance(line, SourceLine)
    return own, line


def test_the_wiring_keeps_the_users_own_commands(hypridle: Path) -> None:
    """What hypridle.conf and the files that it sources do is run as well, as it is written."""
    (hypridle.parent / "more.d").mkdir()
    (hypridle.parent / "more.d/a.conf").write_text("general:on_unlock_cmd = pkill -x wl ## $sig\n")
    hypridle.write_text(
        "$sig = x\n"
        "# on_lock_cmd = in a comment\n"
        "listener {\n  timeout = 5\n  on-timeout = on_lock_cmd\n}\n"
        "general {\n"
        "    on_lock_cmd = first\n"
        '    on_lock_cmd = notify-send \\\n"a ## b" $sig # mine\n'
        "}\n"
        "source = ./more.d/*.conf\n"
    )
    own, line = pieces()
    values = conf.commands(own.path, without=Path("/none"))
    assert values == {}  # it is not written yet
    own.path.write_text(own.text)
    values = conf.commands(own.path, without=Path("/none"))
    assert values["on_lock_cmd"].endswith('/lock/locked\'.$$; notify-send "a ## b" $sig')
    assert values["on_unlock_cmd"].endswith("/lock/unlocked'.$$; pkill -x wl ## $sig")
    hypridle.write_text(f"{hypridle.read_text()}{line.line}\n")
    assert pieces() == (own, line)  # our own file is none of the user's


def test_the_wiring_stands_at_the_end_because_the_last_one_wins(hypridle: Path) -> None:
    """With no command of the user's, ours is alone; hypridle has to be restarted."""
    hypridle.write_text("listener {\n}\n")
    own, line = pieces()
    assert Hypridle().missing() is None
    assert (line.path, line.at, line.line) == (hypridle, "end", f"source = {own.path}")
    assert "there are none" in own.text
    assert "restart hypridle" in Hypridle().after()


def test_the_wiring_says_what_is_missing(
    hypridle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No configuration, no program, or a path that hyprlang would read as something else."""
    assert "needs one" in (Hypridle().missing() or "")
    hypridle.touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/$USER")
    assert "cannot name" in (Hypridle().missing() or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not on PATH" in (Hypridle().missing() or "")


def test_what_hypridle_would_run_is_a_lock(hypridle: Path, home: Path) -> None:
    """Both commands, run by the shell as hypridle does, with a command of the user's after them."""
    hypridle.write_text("general {\n  on_lock_cmd = echo mine\n}\n")
    own, _ = pieces()
    own.path.write_text(own.text)
    commands: dict[str, Any] = conf.commands(own.path, without=Path("/none"))
    for key in ("on_lock_cmd", "on_unlock_cmd"):
        done = subprocess.run(["/bin/sh", "-c", commands[key]], check=True, capture_output=True)
        assert done.stdout == (b"mine\n" if key == "on_lock_cmd" else b"")
    assert [word.locked for word in inbox.words(inbox.folder())] == [True, False]
