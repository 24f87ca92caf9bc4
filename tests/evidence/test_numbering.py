"""Numbers of sources, without a broker: what is missing, what is only late, and what is told."""

from __future__ import annotations

import random

import msgspec
import pytest

from opsmesh.handlers.evidence import numbering
from opsmesh.handlers.evidence.numbering import GRACE, MOST_BOOTS, Boot, Gap, Numbering, Stamp
from opsmesh.schemas import gaps, ids, times

#: 2026-11-23T14:00:00Z in microseconds.
AFTERNOON = 1_795_442_400_000_000
MINUTE = 60_000_000
BOOT = ids.derived(AFTERNOON // 1000, "a boot")


def stamp(seq: int, *, source: str = "pytest", boot: str = BOOT, at_us: int | None = None) -> Stamp:
    at_us = AFTERNOON + seq * MINUTE if at_us is None else at_us
    return Stamp(host="h", source=source, ts_utc=times.format_us(at_us), seq=seq, boot_id=boot)


def numbers() -> Numbering:
    return Numbering(since_us=AFTERNOON - MINUTE)


def take(made: Numbering, *seqs: int, step_us: int = 1000) -> int:
    """Take events with these numbers; when the last of them was stored."""
    now_us = AFTERNOON
    for at, seq in enumerate(seqs):
        now_us = AFTERNOON + at * step_us
        made.take(stamp(seq), now_us)
    return now_us


def test_no_gap_is_told_of_a_whole_boot() -> None:
    """Numbers in their order are no news."""
    made = numbers()
    now_us = take(made, *range(1, 100))
    assert not made.waits
    assert made.ripe(now_us + GRACE) == []


def test_missing_numbers_are_told_after_the_grace() -> None:
    """Twelve numbers that did not come are told once, with the times on both sides of them."""
    made = numbers()
    now_us = take(made, 1, 2, 15, 16)
    assert made.ripe(now_us + GRACE - 2000) == []
    [gap] = made.ripe(now_us + GRACE)
    assert (gap.source, gap.lost, gap.first, gap.last) == ("pytest", 12, 3, 14)
    payload = {"source": "pytest", "lost": 12, "kind": gaps.SEQUENCE}
    payload |= {"from_time": gap.from_time, "to_time": gap.to_time}
    assert gaps.sentence(payload) == (
        "pytest lost 12 events between 2026-11-23 14:02 and 14:15 UTC"
    )
    assert made.ripe(now_us + 3 * GRACE) == []


def test_late_event_fills_its_hole() -> None:
    """What comes out of order in time is no gap, whatever the order."""
    seqs = list(range(1, 500))
    random.Random(4).shuffle(seqs)
    made = numbers()
    now_us = take(made, *seqs)
    assert not made.waits
    assert made.ripe(now_us + GRACE) == []


def test_gap_that_is_filled_later_is_corrected() -> None:
    """A gap that was told is told again when events come late: some of them, then all."""
    made = numbers()
    now_us = take(made, 1, 5)
    [gap] = made.ripe(now_us + GRACE)
    made.take(stamp(3), now_us + 2 * GRACE)
    assert made.ripe(now_us + 2 * GRACE) == []
    [some] = made.ripe(now_us + 3 * GRACE)
    assert (some.gap, some.found, some.lost) == (gap.id, 1, 2)
    made.take(stamp(2), now_us + 4 * GRACE)
    made.take(stamp(4), now_us + 4 * GRACE)
    [rest] = made.ripe(now_us + 4 * GRACE)
    assert (rest.gap, rest.found, rest.lost) == (gap.id, 3, 0)
    assert len({gap.id, some.id, rest.id}) == 3
    assert not made.waits


def test_second_copies_change_nothing() -> None:
    """Events that are taken again are neither late nor lost."""
    made = numbers()
    now_us = take(made, 1, 2, 3, 1, 2, 3, 7, 3, 7)
    [gap] = made.ripe(now_us + GRACE)
    assert gap.lost == 3


def test_first_numbers_are_missed_only_of_a_boot_that_began_in_our_time() -> None:
    """A boot that is older than what is known of the stream may have sent its first events before;
    one that began since has lost them."""
    older = Numbering(since_us=AFTERNOON + 1)
    now_us = take(older, 41, 42)
    assert older.ripe(now_us + GRACE) == []
    younger = numbers()
    now_us = take(younger, 3)
    [gap] = younger.ripe(now_us + GRACE)
    assert (gap.lost, gap.from_time) == (2, times.format_us(AFTERNOON))


def test_foreign_boots_are_not_missed_from_their_beginning() -> None:
    """A boot id that tells no time may number from anywhere; holes after that count."""
    made = numbers()
    for seq in (100, 101, 104):
        made.take(stamp(seq, boot="boot-of-a-stranger"), AFTERNOON)
    [gap] = made.ripe(AFTERNOON + GRACE)
    assert (gap.first, gap.last) == (102, 103)


@pytest.mark.parametrize(("seq", "boot"), [(None, BOOT), (5, None), (0, BOOT), (-3, BOOT)])
def test_events_without_numbers_are_passed_over(seq: int | None, boot: str | None) -> None:
    """No number, no boot, or a number that is none: nothing is watched."""
    made = numbers()
    made.take(Stamp(host="h", source="s", ts_utc="", seq=seq, boot_id=boot), AFTERNOON)
    assert made.boots == []


def test_one_event_a_boot_and_grace() -> None:
    """However many holes a source tears, one announcement a minute counts them all."""
    made = numbers()
    told: list[Gap] = []
    lost = 0
    for n in range(10_000):
        if n % 3 == 0:
            lost += 1
        else:
            made.take(stamp(n + 1), AFTERNOON + n * 60_000)
        if n % 100 == 0:
            told += made.ripe(AFTERNOON + n * 60_000)
    told += made.ripe(AFTERNOON + 10_000 * 60_000 + 3 * GRACE)
    # the very last number is missing, and nothing after it says so
    assert sum(gap.lost for gap in told) == lost - 1
    assert len(told) <= 12


def test_memory_is_bounded() -> None:
    """Boots beyond the most are forgotten, the silent ones first, and forgetting is no gap."""
    made = numbers()
    made.take(stamp(1), AFTERNOON)
    for n in range(MOST_BOOTS + 10):
        began = ids.derived((AFTERNOON + n * 1000) // 1000, str(n))
        made.take(stamp(1, boot=began), AFTERNOON + 1 + n)
    assert len(made.boots) <= MOST_BOOTS
    made.take(stamp(2), AFTERNOON + MINUTE)
    assert made.ripe(AFTERNOON + MINUTE + GRACE) == []


def test_clock_that_is_set_back_delays_nothing() -> None:
    """The broker's clock goes back an hour: a hole waits its grace from then on, and no hour."""
    made = numbers()
    now_us = take(made, 1, 3) - 60 * MINUTE
    assert made.ripe(now_us) == []
    assert len(made.ripe(now_us + GRACE)) == 1


def test_what_is_kept_goes_on_where_it_was() -> None:
    """After a restart with what was kept, holes are still open, told ones are not told again, and
    what fills them is."""
    made = numbers()
    now_us = take(made, 1, 3, 4, 9)
    [gap] = made.ripe(now_us + GRACE)
    kept = msgspec.json.decode(msgspec.json.encode(made.boots), type=list[Boot])
    again = Numbering(kept, since_us=made.since_us)
    take(again, 1, 3, 4, 9)
    assert again.ripe(now_us + 3 * GRACE) == []
    for seq in (2, 5, 6, 7, 8):
        again.take(stamp(seq), now_us + 3 * GRACE)
    [filled] = again.ripe(now_us + 3 * GRACE)
    assert (filled.gap, filled.found, filled.lost) == (gap.id, 5, 0)


def test_announcement_has_the_same_id_after_a_crash() -> None:
    """Whoever finds the same hole gives its announcement the same id."""
    found = []
    for _ in range(2):
        made = numbers()
        now_us = take(made, 1, 2, 9)
        found += made.ripe(now_us + GRACE)
    assert found[0] == found[1]


def test_ranges_beyond_the_most_are_still_counted() -> None:
    """A hole of very many runs keeps count of all, and knows the newest one by one."""
    made = numbers()
    seqs = range(1, 4 * numbering.MOST_RUNS, 2)
    now_us = take(made, *seqs, step_us=1)
    [gap] = made.ripe(now_us + GRACE)
    assert gap.lost == len(seqs) - 1
    [boot] = made.boots
    assert sum(len(hole.runs) for hole in boot.holes) <= numbering.MOST_RUNS


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"source": "a", "lost": 1, "kind": "sequence"}, "a lost 1 event"),
        ({"source": "a", "kind": "cursor_lost"}, "a may have lost events"),
        (
            {"source": "evidence-sink", "lost": 6000, "kind": "removed"},
            "evidence-sink missed 6,000 events that the stream removed unread",
        ),
        (
            {"source": "a", "lost": 2, "to_time": "2026-11-23T14:05:40Z"},
            "a lost 2 events before 2026-11-23 14:05 UTC",
        ),
        (
            {
                "source": "a",
                "lost": 2,
                "from_time": "2026-11-23T14:05:11Z",
                "to_time": "2026-11-23T14:05:40Z",
            },
            "a lost 2 events between 2026-11-23 14:05:11 and 14:05:40 UTC",
        ),
        (
            {
                "source": "a",
                "lost": 2,
                "from_time": "2026-11-23T23:59:11Z",
                "to_time": "2026-11-24T00:05:40Z",
            },
            "a lost 2 events between 2026-11-23 23:59 and 2026-11-24 00:05 UTC",
        ),
        (
            {"source": "a", "lost": 2, "from_time": "nonsense", "to_time": None},
            "a lost 2 events",
        ),
    ],
)
def test_gap_in_words(payload: dict[str, object], text: str) -> None:
    """What people read says who, how many, and when."""
    assert gaps.sentence(payload) == text
