"""`opsmesh spool`, and what `status` and `doctor` say of it, without a broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli

from opsmesh.cli.emit import command as emit
from opsmesh.router import losses, paths, spool, spool_room
from opsmesh.router.spool_reader import SpoolReader


def line(id: str, source: str = "test") -> bytes:
    return json.dumps({"topic": "a.b", "id": id, "source": source}).encode()


def listed(cli: Cli, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli("spool", "ls", "--json", *arguments).stdout)
    return found


def problems(cli: Cli) -> str:
    found = json.loads(cli("status", "--json").stdout)
    return "\n".join(f"{p['what']} -> {p['fix']}" for p in found["problems"])


@pytest.fixture
def damaged(home: Path) -> str:
    """A damaged record whose event is whole, and one that is no event any more, set aside from a
    file with a good one; the file's name."""
    folder = paths.spool_dir()
    path = Path(spool.write(folder, [line("1"), line("2"), line("3")]))
    data = path.read_bytes().replace(b'"id": "2"', b'"id": "9"')
    path.write_bytes(data.replace(b'{"topic": "a.b", "id": "3"', b"{"))
    reader = SpoolReader(folder)
    reader.read(reader.names())
    return path.name


def test_ls_shows_what_waits_and_whose_it_is(cli: Cli) -> None:
    """In the order in which it is sent, with its sources."""
    spool.write(paths.spool_dir(), [line("1"), line("2", "pytest")])
    spool.write(paths.spool_dir(), [line("3")])
    first, second = listed(cli)
    assert (first["state"], first["events"], first["sources"]) == (
        "waiting",
        2,
        {"test": 1, "pytest": 1},
    )
    assert first["name"] < second["name"]
    assert "pytest 1, test 1" in cli("spool", "ls").stdout
    assert cli("spool", "show", first["name"]).stdout.splitlines()[0] == line("1").decode()


def test_an_empty_spool_says_so(cli: Cli) -> None:
    """Nothing waits, and nothing is an error."""
    assert listed(cli) == []
    assert cli("spool", "ls").exit_code == 0


def test_damage_is_listed_and_events_go_back(cli: Cli, damaged: str) -> None:
    """`retry` sends what is still an event, and keeps what is not, with exit code 1."""
    (found,) = listed(cli, "--damaged")
    assert (found["name"], found["damaged"]) == (damaged, 2)
    result = cli("spool", "retry", "--all")
    assert (result.exit_code, result.stdout) == (
        1,
        "back in the spool: 1 events; no events any more: 1\n",
    )
    folder = paths.spool_dir()
    good = [one for name in spool.names(folder) for one in spool.read(f"{folder}/{name}")[0]]
    assert [json.loads(one)["id"] for one in good] == ["1", "9"]
    assert listed(cli, "--damaged")[0]["damaged"] == 1


def test_drop_counts_what_is_given_up(cli: Cli, damaged: str) -> None:
    """By source, for the agent to report; the files are gone."""
    assert cli("spool", "drop", "--all", "--yes").exit_code == 0
    assert listed(cli) == []
    lost = {loss.source: (loss.events, loss.reasons) for loss in losses.total(paths.spool_dir())}
    assert lost["test"] == (2, ("by hand",))
    assert sum(events for events, _ in lost.values()) == 3


def test_a_name_that_fits_nothing_or_several_is_an_error(cli: Cli) -> None:
    """3 for nothing, 2 for several; no file is touched."""
    for n in "12":
        spool.write(paths.spool_dir(), [line(n)])
    assert cli("spool", "drop", "--yes", "nope").exit_code == 3
    assert cli("spool", "drop", "--yes", "0").exit_code == 2
    assert cli("spool", "drop", "--yes").exit_code == 3
    assert len(listed(cli)) == 2


def test_status_and_doctor_name_damage_with_its_command(cli: Cli, damaged: str) -> None:
    """Records set aside are a problem until somebody has looked at them."""
    assert "1 files of the spool hold damaged records" in problems(cli)
    assert "-> opsmesh spool ls --damaged" in problems(cli)
    checks = json.loads(cli("doctor", "--json").stdout)
    assert any(c["check"] == "spool" and "damaged" in c["detail"] for c in checks)


def test_status_shows_size_age_and_losses(cli: Cli) -> None:
    """How much of the limit is taken, since when, and what was dropped and is not reported yet."""
    folder = paths.spool_dir()
    spool.write(folder, [line("1")])
    spool_room.set_limits(folder, spool_room.BLOCK, "drop_newest")
    for n in "23":
        spool.write(folder, [line(n)])
    found = json.loads(cli("status", "--json").stdout)
    state = found["spool"]
    assert (state["files"], state["bytes"], state["max_bytes"]) == (1, 4096, 4096)
    assert 0 <= state["oldest_s"] < 600
    assert [(loss["source"], loss["events"]) for loss in state["dropped"]] == [("test", 2)]
    assert "the spool is full or nearly so" in problems(cli)
    assert "2 events were dropped" in problems(cli)
    assert "test lost 2 events here" in cli("status").stdout


def test_a_full_spool_ends_emit_with_74(cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    """`refuse`: the caller is told, with the limit and the next step."""
    spool.write(paths.spool_dir(), [line("1")])
    spool_room.set_limits(paths.spool_dir(), spool_room.BLOCK, "refuse")
    assert emit.main(["a.b"]) == 74
    assert "spool.max_bytes 4096; see: opsmesh spool ls" in capfd.readouterr().err


def test_a_dropped_event_is_no_error_unless_it_is_waited_for(
    cli: Cli, capfd: pytest.CaptureFixture[str]
) -> None:
    """`drop_newest`: the user has chosen it, so a hook goes on; `--wait` asks for more."""
    spool.write(paths.spool_dir(), [line("1")])
    spool_room.set_limits(paths.spool_dir(), spool_room.BLOCK, "drop_newest")
    assert emit.main(["a.b"]) == 0
    out = capfd.readouterr()
    assert out.out == ""
    assert out.err.startswith("dropped, and counted")
    assert emit.main(["a.b", "--wait", "0.1"]) == 74
    assert sum(loss.events for loss in losses.total(paths.spool_dir())) == 2
