"""Writing a tool's half and undoing it, on real files: killed anywhere, and around anything."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opsmesh.producers.errors import BrokenWiring, NotOurs, Unusable
from opsmesh.producers.install import apply, lines, plan, show
from opsmesh.producers.install import record as records
from opsmesh.producers.install import state as states
from opsmesh.producers.wiring import EditedFile, OwnFile, Piece, SourceLine

TOOL = "tool"
LINE = b"load hook  # opsmesh install tool\n"
#: What changes a file system, as Python's audit hooks name it (docs: Audit events table).
CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown"}


def pieces(user: Path, text: str = "hook 1") -> list[Piece]:
    """A file in folders that are not there, and a line."""
    return [
        OwnFile(path=user / "new/folder/hook", text=text, mode=0o755),
        SourceLine(path=user / "rc", line="load hook"),
    ]


def every(user: Path, text: str = "hook 1") -> list[Piece]:
    """One of each kind: those, and a part of a file that is there only with it."""
    return [*pieces(user, text), part(user / "new/toml", text)]


def part(path: Path, text: str) -> EditedFile:
    """A line that stands for a part of a structured file."""

    def take(now: str, before: str) -> str:
        return "".join(line for line in now.splitlines(True) if not line.startswith("ours = "))

    return EditedFile(path=path, put=lambda theirs: f"{take(theirs, '')}ours = {text}\n", take=take)


def install(wanted: Sequence[Piece], *, force: bool = False) -> None:
    with apply.alone():
        apply.install(TOOL, plan.to_install(TOOL, wanted, records.load(TOOL), force=force))


def uninstall(*, force: bool = False) -> None:
    with apply.alone():
        if (record := records.load(TOOL)) is not None:
            apply.uninstall(TOOL, plan.to_uninstall(record, force=force))


def tree(folder: Path) -> dict[str, Any]:
    """Everything below a folder: what it is, its permissions, and what it holds."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            found[str(path.relative_to(folder))] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[str(path.relative_to(folder))] = ("folder", mode)
        else:
            found[str(path.relative_to(folder))] = ("file", mode, path.read_bytes())
    return found


def killed(step: int, do: Callable[[], None]) -> bool:
    """Do it in a process that is killed -9 before the change of this number; False when it came
    to its end."""
    child = os.fork()
    if child == 0:
        left = step

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in CHANGING or writing:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            do()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -signal.SIGKILL)
    return ended != 0


@pytest.fixture
def user(home: Path) -> Path:
    """Where the user's files are."""
    folder = home / "user"
    folder.mkdir()
    return folder


def fresh(user: Path) -> None:
    """A startup file of the user's, reached by a link."""
    (user / "dots").mkdir()
    (user / "dots/rc").write_bytes(b"mine\r\n\xff\xfe, unended")
    (user / "dots/rc").chmod(0o600)
    (user / "rc").symlink_to("dots/rc")


def occupied(user: Path) -> None:
    """Somebody's file stands where ours is to be."""
    fresh(user)
    (user / "new/folder").mkdir(parents=True)
    (user / "new/folder/hook").write_bytes(b"theirs")
    (user / "new/folder/hook").chmod(0o640)


@pytest.mark.parametrize("prepare", [fresh, occupied])
def test_killed_anywhere(user: Path, prepare: Callable[[Path], None]) -> None:
    """Whatever change of the disk an installation, an upgrade or its undoing is killed before,
    undoing it afterwards gives every file back, byte for byte, and so does doing it again first."""
    prepare(user)
    before = tree(user)
    force = prepare is occupied
    wanted = pieces if force else every
    actions: dict[str, Callable[[], None]] = {
        "install": lambda: install(wanted(user), force=force),
        "upgrade": lambda: install(wanted(user, "hook 2"), force=force),
        "uninstall": uninstall,
    }
    for name, action in actions.items():
        for again in (False, True):
            step = 0
            while True:
                if name != "install":
                    install(wanted(user), force=force)
                more = killed(step, action)
                if again:
                    install(wanted(user, "hook 3"), force=force)
                    assert (user / "new/folder/hook").read_bytes() == b"hook 3"
                    assert (user / "rc").read_bytes().endswith(b"\n" + LINE.replace(b"\n", b"\r\n"))
                uninstall()
                assert tree(user) == before, (name, again, step)
                assert records.load(TOOL) is None
                if not more:
                    break
                step += 1
            assert step >= 3


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.none() | st.binary(max_size=60) | st.text("a\r\n\\ #é", max_size=20).map(str.encode),
    link=st.booleans(),
    mode=st.sampled_from([0o600, 0o644, 0o755]),
)
@example(data=b"a\r\nb", link=True, mode=0o600)
@example(data=b"", link=False, mode=0o644)
@example(data=None, link=True, mode=0o644)
@example(data=b"\xef\xbb\xbf\xff\r", link=False, mode=0o644)
def test_any_file_comes_back(user: Path, data: bytes | None, link: bool, mode: int) -> None:
    """Any startup file, a link or not, or one that leads nowhere, is back after its undoing with
    its bytes and its mode."""
    shutil.rmtree(user)
    (user / "dots").mkdir(parents=True)
    rc = user / ("dots/rc" if link else "rc")
    if link:
        (user / "rc").symlink_to("dots/rc")
    if data is not None:
        rc.write_bytes(data)
        rc.chmod(mode)
    before = tree(user)
    if (data or b"").rstrip(b"\r\n").endswith(b"\\"):
        with contextlib.suppress(Unusable):  # the last line goes on, see below
            install(pieces(user))
        uninstall()
        assert tree(user) == before
        return
    install(pieces(user))
    assert LINE.strip() in [line.strip(b"\r") for line in rc.read_bytes().split(b"\n")]
    assert rc.read_bytes().startswith(data or b"")
    uninstall()
    assert tree(user) == before


def test_line_that_goes_on_is_not_joined(user: Path) -> None:
    """Behind a backslash our line would become a part of the user's command."""
    (user / "rc").write_bytes(b"export PATH=a\\\n")
    before = tree(user)
    with pytest.raises(Unusable, match="ends with a backslash"):
        install(pieces(user))
    assert tree(user) == before
    (user / "rc").write_bytes(b"echo a\\\\\n")  # this one is quoted
    install(pieces(user))


def text_around(data: bytes) -> bool:
    return lines.find(data + b"\n", b"# opsmesh install tool") is None


@given(
    before=st.binary(max_size=30).filter(text_around),
    after=st.binary(max_size=30).filter(text_around),
    copies=st.integers(1, 3),
    end=st.sampled_from([b"\n", b"\r\n"]),
)
@example(before=b"echo 'load hook  # opsmesh install tool' x\n", after=b"", copies=1, end=b"\n")
@example(
    before=b"# opsmesh install tool\n", after=b"  ## opsmesh install tool", copies=2, end=b"\n"
)
def test_line_is_taken_from_wherever_it_stands(
    before: bytes, after: bytes, copies: int, end: bytes
) -> None:
    """Moved, copied, indented or with another line's end: our line goes, and nothing else does; a
    newer one stands where it stood, once."""
    before = before + b"\n" if before and not before.endswith(b"\n") else before
    moved = before + (b"\t" + LINE.removesuffix(b"\n") + end) * copies + after
    marked = b"# opsmesh install tool"
    assert lines.take(moved, marked, unended=False) == before + after
    piece = SourceLine(path=Path("rc"), line="load hook 2")
    newer = b"load hook 2  # opsmesh install tool" + end
    assert lines.put(moved, TOOL, piece) == (before + newer + after, False)


def test_forced_twice_loses_nothing(user: Path) -> None:
    """What stood there comes back, and what the user wrote into our file since is kept beside."""
    occupied(user)
    before = tree(user)
    hook = user / "new/folder/hook"
    install(pieces(user), force=True)
    hook.write_bytes(b"edited")
    install(pieces(user), force=True)
    hook.write_bytes(b"edited again")
    uninstall(force=True)
    after = tree(user)
    assert {key: after.pop(key) for key in before} == before
    assert sorted(value[2] for value in after.values()) == [b"edited", b"edited again"]


def test_what_is_written_is_never_open_to_others(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A startup file may hold secrets: its next content is private until it has its mode."""
    fresh(user)
    seen: list[int] = []
    real = os.open

    def opened(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        found = real(path, flags, mode, **more)
        if str(path).endswith(apply.NEW):
            seen.append(stat.S_IMODE(os.fstat(found).st_mode))
        return found

    monkeypatch.setattr(os, "open", opened)
    install(pieces(user))
    assert seen == [0o600, 0o600]
    assert stat.S_IMODE((user / "dots/rc").stat().st_mode) == 0o600


def test_changed_since_it_was_shown(user: Path) -> None:
    """What an editor saved while the question stood is not overwritten, and nothing is written."""
    fresh(user)
    planned = plan.to_install(TOOL, pieces(user), None)
    (user / "dots/rc").write_bytes(b"mine, saved meanwhile\n")
    before = tree(user)
    with pytest.raises(Unusable, match="changed meanwhile"):
        apply.install(TOOL, planned)
    assert tree(user) == before
    assert records.load(TOOL) is None


def test_attributes_stay(user: Path) -> None:
    """A file's extended attributes, of which an access list is one, are those it had."""
    rc = user / "rc"
    rc.write_bytes(b"mine\n")
    try:
        os.setxattr(rc, "user.note", b"kept")
    except OSError:
        pytest.skip("no extended attributes in the temporary folder's file system")
    install(pieces(user))
    assert os.getxattr(rc, "user.note") == b"kept"


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "below a file"])
def test_what_is_no_file_is_left_alone(user: Path, kind: str) -> None:
    """Where a folder, a pipe, a device, a link to itself or no folder is, an error says so."""
    rc = user / "rc"
    if kind == "folder":
        rc.mkdir()
    elif kind == "pipe":
        os.mkfifo(rc)
    elif kind == "device":
        rc.symlink_to("/dev/null")
    elif kind == "loop":
        rc.symlink_to("rc")
    else:
        (user / "new").touch()
    with pytest.raises(Unusable, match=r"is no plain file|cannot be read"):
        install(pieces(user))
    assert records.load(TOOL) is None


def test_full_disk(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full ends an installation with an error that names the file, and it can be
    undone."""
    fresh(user)
    before = tree(user)
    real = os.fsync

    def full(descriptor: int) -> None:
        if apply.NEW in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(Unusable, match="hook cannot be written: No space left"):
            install(pieces(user))
    uninstall()
    assert tree(user) == before


def to_uninstall(user: Path) -> None:
    uninstall()


def to_upgrade(user: Path) -> None:
    install(pieces(user, "newer\n"))


def test_edited_file_tells_what_was_edited(user: Path) -> None:
    """The refusal shows what was changed since, also when the wiring has a newer text by now."""
    install(pieces(user, "one\ntwo\n"))
    (user / "new/folder/hook").write_text("one\nmine\n")
    for act in (to_uninstall, to_upgrade):
        with pytest.raises(NotOurs, match="was changed since") as refused:
            act(user)
        assert "-two\n+mine\n" in refused.value.diff


def test_state_of_each_piece(user: Path) -> None:
    """Each piece is told by itself; a piece that is no more wanted is stale, and taken away."""
    assert states.look(TOOL, pieces(user), None).state == "not wired"
    install(pieces(user))
    look = states.look(TOOL, pieces(user), records.load(TOOL))
    assert (look.state, [one.state for one in look.pieces]) == ("wired", ["there", "there"])
    (user / "new/folder/hook").chmod(0o644)
    look = states.look(TOOL, pieces(user), records.load(TOOL))
    assert (look.state, [one.state for one in look.pieces]) == ("stale", ["stale", "there"])
    less = pieces(user)[:1]
    look = states.look(TOOL, less, records.load(TOOL))
    assert look.wrong == f"{user}/new/folder/hook is stale; {user}/rc is stale"
    install(less)
    assert states.look(TOOL, less, records.load(TOOL)).state == "wired"
    assert not (user / "rc").exists()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([OwnFile(path=Path("hook"), text="")], "no absolute path"),
        ([SourceLine(path=Path("/rc"), line="a\nb")], "is not one line"),
        ([SourceLine(path=Path("/rc"), line=x) for x in "ab"], "two pieces for /rc"),
    ],
)
def test_pieces_that_cannot_be_undone(wrong: list[Piece], reason: str) -> None:
    """What could not be found again, or not be put in, is refused before anything is read."""
    with pytest.raises(BrokenWiring, match=reason):
        plan.to_install(TOOL, wrong, None)


def test_diff_does_not_steer_the_terminal() -> None:
    """Control characters of somebody's file are shown, not sent; a missing end is told."""
    shown = show.diff("rc", b"\x1b]0;evil\x07\ttab\n\xff", b"\x1b]0;evil\x07\ttab\n\xff\nmore\n")
    assert "\x1b" not in shown
    assert " \\x1b]0;evil\\x07\ttab\n" in shown
    assert "-\\xff\n\\ No newline at end of file\n+\\xff\n+more\n" in shown


def test_mode_alone(user: Path) -> None:
    """A file whose permissions alone are wrong is mended, and the diff says so."""
    install(pieces(user))
    (user / "new/folder/hook").chmod(0o600)
    [change, _] = plan.to_install(TOOL, pieces(user), records.load(TOOL))
    assert change.needed
    assert change.diff().endswith("mode 600 becomes 755\n")
    install(pieces(user))
    assert stat.S_IMODE((user / "new/folder/hook").stat().st_mode) == 0o755


def undo(wanted: Sequence[Piece]) -> None:
    with apply.alone():
        record = records.load(TOOL)
        assert record is not None
        apply.uninstall(TOOL, plan.to_uninstall(record, wanted))


def test_an_edited_file_comes_back_as_it_was(user: Path) -> None:
    """A structured file that nobody touched since has its very bytes back, also after an upgrade
    and without the wiring that wrote it."""
    (user / "toml").write_bytes(b"mine = 1\r\n# unended")
    before = tree(user)
    for text in ("1", "2"):
        install([part(user / "toml", text)])
        assert (user / "toml").read_bytes().endswith(f"ours = {text}\n".encode())
    undo(())
    assert tree(user) == before


def test_what_was_written_into_an_edited_file_stays(user: Path) -> None:
    """What the user has written into it since stays when ours is replaced and when it is taken
    out."""
    wanted = [part(user / "toml", "1")]
    (user / "toml").write_text("mine = 1\n")
    install(wanted)
    (user / "toml").write_text("also = 1\nmine = 1\nours = 1\nmore = 2\n")
    install([part(user / "toml", "2")])
    assert (user / "toml").read_text() == "also = 1\nmine = 1\nmore = 2\nours = 2\n"
    (user / "toml").write_text("ours = 2\nlast = 1\n")
    undo(wanted)
    assert (user / "toml").read_text() == "last = 1\n"


def test_an_edited_file_without_its_wiring_is_left_alone(user: Path) -> None:
    """Once its package is gone nobody can tell our part from what the user has written since."""
    install([part(user / "toml", "1")])
    (user / "toml").write_text("ours = 1\nmine = 1\n")
    with pytest.raises(Unusable, match="is gone with its package"):
        undo(())
    assert (user / "toml").read_text() == "ours = 1\nmine = 1\n"


@pytest.mark.parametrize(
    ("written", "state"),
    [(None, "not wired"), ("1", "wired"), ("0", "stale"), ("gone", "incomplete")],
)
def test_state_of_an_edited_file(user: Path, written: str | None, state: str) -> None:
    """It is wired, stale with an older part, and incomplete without the file."""
    (user / "toml").write_text("mine = 1\n")
    if written is not None:
        install([part(user / "toml", "0" if written == "0" else "1")])
    if written == "gone":
        (user / "toml").unlink()
    assert states.look(TOOL, [part(user / "toml", "1")], records.load(TOOL)).state == state


def test_a_wiring_that_cannot_read_a_file_says_so(user: Path) -> None:
    """What a wiring raises for a file is an error of the wiring, and what is no text an error of
    the file."""

    def broken(text: str) -> str:
        raise KeyError(text)

    with pytest.raises(BrokenWiring, match="KeyError"):
        install([EditedFile(path=user / "toml", put=broken, take=lambda now, _: now)])
    (user / "toml").write_bytes(b"\xff")
    with pytest.raises(Unusable, match="is not UTF-8"):
        install([part(user / "toml", "1")])
