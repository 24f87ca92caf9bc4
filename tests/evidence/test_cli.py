"""`opsmesh evidence`: what a person or a program sees, and the exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from opsmesh.cli.evidence.commands import app
from opsmesh.cli.main import app as main
from opsmesh.handlers.evidence import keys, segments
from opsmesh.router import paths
from opsmesh.schemas.envelope import decode
from tests.evidence.made import MORNING, archive, change, opened
from tests.evidence.sealed import made

BARE = (
    b'{"topic":"a.b","ts_utc":"2026-11-23T09:00:00Z","source":"s","component":"c",'
    b'"severity":"info","correlation_id":"x","host":"h","session_id":"","workspace":"",'
    b'"payload":{"id":1}%s}'
)


def evidence(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def folder() -> Path:
    return Path(paths.evidence_dir())


def test_intact_archive_is_exit_code_0(home: Path) -> None:
    """An intact archive says so, with its size and its last hash."""
    archive(folder(), 5)
    result = evidence("verify")
    assert result.exit_code == 0
    assert "intact: 5 lines in 1 files, sequences 1 to 5" in result.stdout


def test_changed_line_is_exit_code_1_with_its_place(home: Path) -> None:
    """A change is named as file:line with what is wrong, for people and in JSON."""
    [path] = archive(folder(), 5)
    change(path, lambda raws: raws.__setitem__(2, raws[2].replace(b'"n":3', b'"n":4')))
    result = evidence("verify")
    assert result.exit_code == 1
    assert f"{path}:3: edited: " in result.stdout
    result = evidence("verify", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["intact"] is False
    assert [(p["kind"], p["line"]) for p in report["problems"]] == [("edited", 3)]


@pytest.mark.parametrize("command", [["verify"], ["tail"], ["ls"], ["find", "x"]])
def test_nothing_there_is_exit_code_3(home: Path, command: list[str]) -> None:
    """Without an archive every command says so and ends with 3."""
    result = evidence(*command)
    assert result.exit_code == 3
    assert "nothing is archived" in " ".join(result.stderr.split())


def test_since(home: Path) -> None:
    """`--since` takes an age or a time, and an unreadable one is a usage error."""
    archive(folder(), 5)
    assert evidence("verify", "--since", "2026-11-01T00:00:00Z").exit_code == 0
    assert evidence("verify", "--since", "2099-01-01T00:00:00Z").exit_code == 3
    assert evidence("verify", "--since", "soon").exit_code == 2


def test_path(home: Path) -> None:
    """`path` prints the folder alone."""
    assert evidence("path").stdout == f"{folder()}\n"


def test_ls(home: Path) -> None:
    """`ls` counts lines and bytes of every file."""
    [path] = archive(folder(), 5)
    [row] = json.loads(evidence("ls", "--json").stdout)
    assert (row["lines"], row["bytes"], row["first_seq"]) == (5, path.stat().st_size, 1)
    assert "23-000001-EVENTS" in evidence("ls").stdout


def test_tail(home: Path) -> None:
    """`tail` shows the newest events, those of a topic if asked, with the stored bytes in JSON."""
    with opened(folder()) as made:
        made.event(1, MORNING, BARE % b"")
        made.event(2, MORNING, b"\xff")
        made.event(3, MORNING, BARE.replace(b"a.b", b"a.c") % b',"more":1.50')
        made.commit()
    found = [json.loads(line) for line in evidence("tail", "--json").stdout.splitlines()]
    assert [item["seq"] for item in found] == [1, 2, 3]
    assert found[1]["base64"] == "/w=="
    text = evidence("tail", "-t", "a.c", "--json").stdout
    assert text.count("\n") == 1
    assert '"more":1.50' in text
    shown = evidence("tail", "-n", "2").stdout.splitlines()
    assert "1 bytes that are no event" in shown[0]
    assert "a.c" in shown[1]


def test_find(home: Path) -> None:
    """`find` gives the stored bytes and their place, also by an id that is derived."""
    with opened(folder()) as made:
        made.event(1, MORNING, BARE % b',"id":"my-id"')
        made.event(2, MORNING + 5, BARE % b"")
        made.commit()
    result = evidence("find", "my-id")
    assert result.stdout.encode() == BARE % b',"id":"my-id"' + b"\n"
    assert ":1" in result.stderr
    derived = decode(BARE % b"", stored=("EVENTS", 2, MORNING + 5)).id
    found = json.loads(evidence("find", derived, "--json").stdout)
    assert (found["line"], found["seq"], found["id"]) == (2, 2, derived)
    missing = evidence("find", "other")
    assert missing.exit_code == 3


def test_ls_says_what_is_sealed(home: Path) -> None:
    """`ls` shows which files are sealed, with their size in lines and on disk."""
    keys_folder = Path(paths.keys_dir())
    sealed, last = made(folder(), keys_folder, 15)
    first, second = json.loads(evidence("ls", "--json").stdout)
    assert (first["state"], first["lines"]) == ("sealed", 10)
    assert first["on_disk"] == sealed.compressed.stat().st_size
    with segments.opened(sealed) as file:
        assert first["bytes"] == len(file.read())
    assert first["file"].endswith(".jsonl.zst")
    assert (second["state"], second["lines"]) == ("open", 5)
    assert second["on_disk"] == last.path.stat().st_size
    assert "sealed" in evidence("ls").stdout


def test_damaged_file_is_told_and_listed(home: Path) -> None:
    """A compressed file that cannot be read is named by verify and still listed; what has to read
    it ends with an error, never in silence."""
    sealed, _ = made(folder(), Path(paths.keys_dir()), 15)
    sealed.compressed.write_bytes(b"no zstd")
    result = evidence("verify")
    assert result.exit_code == 1
    assert f"{sealed.compressed}:1: damaged: " in result.stdout
    first, _ = json.loads(evidence("ls", "--json").stdout)
    assert (first["state"], first["lines"], first["on_disk"]) == ("sealed", None, 7)
    result = CliRunner().invoke(main, ["evidence", "find", "x"])
    assert (result.exit_code, "is damaged" in result.stderr) == (1, True)


def test_verify_under_another_key(home: Path, tmp_path: Path) -> None:
    """A public key that somebody else trusts is given by its file; without any, verify says that it
    takes the archive's word."""
    made(folder(), Path(paths.keys_dir()))
    public = tmp_path / "given.pub"
    public.write_text(evidence("key").stdout)
    shutil.rmtree(paths.keys_dir())
    result = evidence("verify")
    assert result.exit_code == 0
    assert "the key is the archive's own word" in result.stdout
    result = evidence("verify", "--key", str(public))
    assert (result.exit_code, "own word" in result.stdout) == (0, False)
    made(tmp_path / "other", tmp_path / "other-keys")
    other = tmp_path / "other-keys" / keys.PUBLIC
    assert evidence("verify", "--key", str(other)).exit_code == 1
    result = evidence("verify", "--key", str(folder() / "head.json"))
    assert (result.exit_code, "no public key in PEM" in result.stderr) == (2, True)


def test_verify_misses_an_archive_that_is_gone_altogether(home: Path) -> None:
    """A folder that was sealed and is empty is not nothing."""
    made(folder(), Path(paths.keys_dir()))
    shutil.rmtree(folder())
    result = evidence("verify")
    assert result.exit_code == 1
    assert "segment 3 was sealed, and is gone with its seal" in result.stdout


def test_key(home: Path) -> None:
    """`key` prints the PEM alone, JSON has the fingerprint and every key there was, `rotate` makes
    the next one."""
    missing = evidence("key")
    assert (missing.exit_code, "there is no key yet" in missing.stderr) == (3, True)
    made(folder(), Path(paths.keys_dir()))
    before = json.loads(evidence("key", "--json").stdout)
    result = evidence("key")
    assert result.stdout == before["pem"]
    assert before["fingerprint"] in result.stderr
    assert "from file 4 on" in evidence("key", "rotate").stdout
    after = json.loads(evidence("key", "--json").stdout)
    assert after["pem"] != before["pem"]
    assert [one["from_segment"] for one in after["keys"]] == [1, 4]
    refused = evidence("key", "rotate", "--accept-loss")
    assert (refused.exit_code, "nothing is lost" in refused.stderr) == (1, True)


def test_prove_and_check_proof(home: Path, tmp_path: Path) -> None:
    """An event is proved once its file is sealed, and the proof needs the public key alone."""
    with opened(folder()) as writer:
        writer.event(1, MORNING, BARE % b',"id":"my-id"')
        writer.commit()
    unsealed = evidence("prove", "my-id")
    assert unsealed.exit_code == 1
    assert "opsmesh evidence seal" in unsealed.stderr
    assert evidence("seal").exit_code == 0
    proof, public = tmp_path / "proof.json", tmp_path / "evidence.pub"
    assert evidence("prove", "my-id", "-o", str(proof)).exit_code == 0
    public.write_text(evidence("key").stdout)
    shutil.rmtree(folder())
    shutil.rmtree(paths.keys_dir())
    assert evidence("check-proof", str(proof)).exit_code == 1
    result = evidence("check-proof", str(proof), "--key", str(public))
    assert result.exit_code == 0
    assert result.stdout.startswith("proved: event my-id (a.b) was stored as EVENTS 1 at 2026-11")
    proof.write_text(proof.read_text().replace("a.b", "a.c"))
    result = evidence("check-proof", str(proof), "--key", str(public), "--json")
    assert (result.exit_code, "does not fit its hash" in result.stderr) == (1, True)
    assert evidence("prove", "other").exit_code == 3


def test_seal_without_an_archive(home: Path) -> None:
    """Without an archive there is nothing to seal."""
    assert evidence("seal").exit_code == 3
