"""What Hyprland's lines say, and what several of them say together."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from opsmesh.producers.hyprland import layout
from opsmesh.producers.hyprland.desk import Desk
from opsmesh.producers.hyprland.lines import SHAPES, Line, Malformed, parse
from opsmesh.schemas import registry

FIXTURE = Path(__file__).parent / "data/hyprland/socket2.txt"


def told(desk: Desk, *lines: bytes, at: float = 0.0) -> list[dict[str, Any]]:
    """The payloads that the lines bring, read at once."""
    parsed = (parse(line) for line in lines)
    findings = (desk.take(line, at_us=1, at=at) for line in parsed if line is not None)
    return [finding.payload for found in findings for finding in found]


def desk(**options: Any) -> Desk:
    return Desk(**{"titles": "keep", "focus_settle": 0.25, **options})


def test_the_fixture_is_read_with_its_commas_and_arrows() -> None:
    """Only the first arrows and the commas of the event's shape separate anything."""
    lines = [parse(line) for line in FIXTURE.read_bytes().splitlines()]
    assert [line for line in lines if line is not None] == [
        Line("workspacev2", ("2", "2")),
        Line("focusedmon", ("DP-1", "2")),
        Line("focusedmonv2", ("DP-1", "2")),
        Line("activewindow", ("kitty", "nvim a, b >> c.py")),
        Line("activewindowv2", ("55c1f6a4c2d0",)),
        Line("monitoraddedv2", ("1", "HDMI-A-1", "Dell Inc. DELL U2720Q, rev >> 2")),
        Line("monitorremovedv2", ("1", "HDMI-A-1", "Dell Inc. DELL U2720Q")),
        Line("workspacev2", ("-1337", "name,with,commas")),
        Line("configreloaded", ("",)),
    ]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"activespecialv2>>-98,special:a,b,DP-1", ("-98", "special:a,b", "DP-1")),
        (b"activespecialv2>>,,DP-1", ("", "", "DP-1")),
        (b"moveworkspacev2>>3,x>>y,z,eDP-1", ("3", "x>>y,z", "eDP-1")),
        (b"activewindow>>,", ("", "")),
        (b"activewindow>>a,\xff\xfe", ("a", "\ufffd\ufffd")),
        (b"activewindow>>a," + b"x" * 1021 + "é".encode()[:1], ("a", "x" * 1021)),
    ],
)
def test_free_text_is_what_the_fixed_parts_leave(line: bytes, fields: tuple[str, ...]) -> None:
    """Free text keeps its commas; half a character at the cut goes, other bytes are replaced."""
    parsed = parse(line)
    assert parsed is not None
    assert parsed.fields == fields


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"workspacev2",
        b"workspacev2>>",
        b"workspacev2>>two,2",
        b"workspacev2>>2",
        b"focusedmonv2>>DP-1,",
        b"monitoraddedv2>>1,,desc",
        b"activewindow>>kitty",
        b"activewindowv2>>0x55,zz",
        b"configreloaded>>x",
        b"work space>>2",
        b"\x00>>2,2",
        b"activewindow>>a," + b"x" * 1100,
    ],
)
def test_what_hyprland_does_not_write_is_malformed(line: bytes) -> None:
    """No event comes of a line that Hyprland cannot have written."""
    with pytest.raises(Malformed):
        parse(line)


def test_hostile_lines_never_crash_and_fit_their_payloads() -> None:
    """10,000 cut, joined and scrambled lines: each is an event that fits its schema, or nothing."""
    chance = random.Random(5)
    seeds = [*FIXTURE.read_bytes().splitlines(), *(f"{name}>>".encode() for name in SHAPES)]
    one, checked = desk(focus_settle=0.0), 0
    topics = registry.load_registry()
    for number in range(10_000):
        line = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            spot = chance.randrange(len(line) + 1)
            match chance.randrange(4):
                case 0:
                    del line[spot:]
                case 1:
                    line[spot:spot] = chance.randbytes(chance.randrange(8)).replace(b"\n", b" ")
                case 2:
                    line[spot:spot] = chance.choice([b",", b">>", b"-", b"9" * 30, b"\xf0\x9f"])
                case _:
                    line += chance.choice(seeds)
        try:
            parsed = parse(bytes(line))
        except Malformed:
            continue
        if parsed is None:
            continue
        for finding in (
            *one.take(parsed, at_us=number, at=number),
            *one.settled(number),
        ):
            json.dumps(finding.payload).encode()
            topics.check(finding.topic, finding.payload)
            checked += 1
    assert checked > 100


def test_a_workspace_tells_where_it_is_and_what_was_left() -> None:
    """The first is told without a previous one; the same again is no news."""
    one = desk()
    assert told(one, b"workspacev2>>2,2") == [{"workspace": "2", "workspace_id": 2}]
    assert told(one, b"workspacev2>>2,2") == []
    [named] = told(one, b"workspacev2>>-1337,a,b")
    assert named == {"workspace": "a,b", "workspace_id": -1337, "previous": "2"}


def test_another_monitor_brings_its_workspace_to_the_front() -> None:
    """A switch of monitors sends no workspace event: `focusedmonv2` tells it."""
    one = desk()
    told(one, b"focusedmon>>DP-1,1", b"focusedmonv2>>DP-1,1")
    [other] = told(one, b"focusedmon>>DP-2,web,mail", b"focusedmonv2>>DP-2,7")
    assert other == {
        "workspace": "web,mail",
        "workspace_id": 7,
        "monitor": "DP-2",
        "previous": "1",
    }
    assert told(one, b"focusedmon>>DP-3,?", b"focusedmonv2>>DP-3,-1") == []


def test_a_special_workspace_comes_and_goes() -> None:
    """Hiding it brings back what was under it."""
    one = desk()
    told(one, b"focusedmon>>DP-1,1", b"focusedmonv2>>DP-1,1")
    [shown] = told(one, b"activespecialv2>>-98,special:magic,DP-1")
    assert shown["special"] is True
    assert (shown["workspace"], shown["previous"]) == ("special:magic", "1")
    [hidden] = told(one, b"activespecialv2>>,,DP-1")
    assert hidden == {
        "workspace": "1",
        "workspace_id": 1,
        "monitor": "DP-1",
        "previous": "special:magic",
    }


def test_a_renamed_workspace_is_the_same_one() -> None:
    """A new name is no change, and is what the next event calls the previous one."""
    one = desk()
    assert len(told(one, b"workspacev2>>1,1", b"renameworkspace>>1,mail")) == 1
    assert told(one, b"workspacev2>>2,2")[0]["previous"] == "mail"


def test_focus_is_told_once_it_has_settled() -> None:
    """The last window wins; one that was passed through is no event."""
    one = desk()
    told(one, b"activewindow>>kitty,a", b"activewindowv2>>aa", at=0.0)
    told(one, b"activewindow>>firefox,b", b"activewindowv2>>bb", at=0.2)
    assert one.settled(0.3) == []
    assert one.due == pytest.approx(0.45)
    [focus] = one.settled(0.45)
    assert focus.payload == {"window_class": "firefox", "title": "b", "address": "bb"}
    told(one, b"activewindow>>kitty,a", b"activewindowv2>>aa", at=1.0)
    told(one, b"activewindow>>firefox,b", b"activewindowv2>>bb", at=1.1)
    assert one.due is None


def test_a_title_that_changes_is_no_focus_and_holds_none_up() -> None:
    """A title that changes ten times a second neither makes events nor puts one off."""
    one = desk()
    for tick in range(4):
        told(one, b"activewindow>>kitty,%d" % tick, b"activewindowv2>>aa", at=tick / 10)
    assert one.due == pytest.approx(0.25)
    [focus] = one.settled(0.3)
    assert focus.payload["title"] == "3"
    told(one, b"activewindow>>kitty,later", b"activewindowv2>>aa", at=1.0)
    assert one.settled(9.0) == []


def test_no_window_is_a_focus_too() -> None:
    """An empty class says that nothing has the focus."""
    one = desk()
    told(one, b"activewindow>>,", b"activewindowv2>>")
    assert [focus.payload for focus in one.settled(1.0)] == [{"window_class": ""}]


@pytest.mark.parametrize(("titles", "title"), [("redact", "[redacted:title]"), ("omit", None)])
def test_titles_can_be_left_out(titles: str, title: str | None) -> None:
    """What the user does not want told never reaches an event."""
    one = desk(titles=titles)
    told(one, b"activewindow>>kitty,secret plan", b"activewindowv2>>aa")
    [focus] = one.settled(1.0)
    assert focus.payload.get("title") == title
    assert "secret" not in json.dumps(focus.payload)


def test_layouts_are_compared_by_mode_scale_and_position() -> None:
    """What has no event of its own is found by comparing."""
    before = {n: layout.Monitor(name=n, width=1920, scale=1.0, x=0) for n in ("a", "b", "c", "d")}
    now = {
        "a": layout.Monitor(name="a", width=1920, scale=1.5, x=9),
        "b": layout.Monitor(name="b", width=1920, scale=1.0, x=9),
        "c": layout.Monitor(name="c", width=1920, scale=1.0, x=0, focused=True),
        "e": layout.Monitor(name="e"),
    }
    found = [(change, monitor.name) for change, monitor in layout.differences(before, now)]
    assert found == [("removed", "d"), ("reconfigured", "a"), ("moved", "b"), ("added", "e")]


def test_odd_answers_have_less_to_say() -> None:
    """A number that is none, or too large, is left out; no list is an error."""
    odd = '[{"name": "a", "width": "x", "scale": NaN, "x": 1e999, "id": true}, 7, {"id": 3}]'
    assert layout.read(odd.encode()) == {"a": layout.Monitor(name="a")}
    for answer in (b"{}", b"unknown request", b""):
        with pytest.raises((TypeError, ValueError)):
            layout.read(answer)


def test_the_desk_comes_back_as_it_was() -> None:
    """What is dumped is restored, through JSON."""
    one, other = desk(), desk()
    told(one, b"focusedmon>>DP-1,1", b"focusedmonv2>>DP-1,1", b"monitoraddedv2>>1,DP-1,x")
    other.restore(json.loads(json.dumps(one.dump())))
    assert other.dump() == one.dump()
    assert told(other, b"workspacev2>>2,2")[0]["previous"] == "1"
