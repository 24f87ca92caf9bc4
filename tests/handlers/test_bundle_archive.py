"""Bundles as archives: the same bytes each time, and nothing believed that comes from elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.handlers.collecting import Context, collect

from opsmesh.handlers.bundles import archive, folders, retention
from opsmesh.handlers.bundles.archive import BadBundle
from opsmesh.handlers.bundles.verify import verify
from opsmesh.handlers.evidence import zst

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def bundle(context: Context) -> Path:
    """A bundle with three files."""
    items = [{"name": "said", "command": ["echo", "x"]}, {"name": "gone", "file": "/no/such"}]
    return collect(context, {"items": items, "report": True}).folder


def packed(folder: Path) -> bytes:
    target = io.BytesIO()
    archive.pack(folder, target)
    return target.getvalue()


def unpacked(data: bytes, folder: Path, **more: Any) -> str:
    return archive.unpack(io.BytesIO(data), folder, **more)


def made(members: list[Member], *, form: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive of these members, as a stranger would make it."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=form) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    target = io.BytesIO()
    size = plain.tell()
    plain.seek(0)
    zst.compress(plain, size, target)
    return target.getvalue()


def lying(files: dict[str, bytes], manifest: dict[str, Any] | None = None) -> list[Member]:
    """Members of a bundle that names these files, and has them."""
    told = {
        "version": 2,
        "files": [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        ],
    }
    raw = json.dumps({**told, **(manifest or {})}).encode()
    top = archive.prefix(hashlib.sha256(raw).hexdigest())
    members = [("manifest.json", raw), *files.items()]
    return [(tarfile.TarInfo(f"{top}/{name}"), data) for name, data in members]


def test_there_and_back(bundle: Path, tmp_path: Path) -> None:
    """What is unpacked is the bundle, byte for byte, and intact."""
    back = tmp_path / "back"
    bundle_id = unpacked(packed(bundle), back)
    assert bundle_id == folders.bundle_id(bundle)
    names = sorted(path.name for path in bundle.iterdir())
    assert sorted(path.name for path in back.iterdir()) == names
    assert all((back / name).read_bytes() == (bundle / name).read_bytes() for name in names)
    assert verify(back).intact


def test_same_bytes(bundle: Path) -> None:
    """The same bundle is the same archive, whatever time its files have."""
    first = packed(bundle)
    for path in bundle.iterdir():
        path.touch()
    assert packed(bundle) == first


def test_other_tools_read_it(bundle: Path, tmp_path: Path) -> None:
    """The archives are tar in zstd, and zip, as everybody reads them."""
    with zst.library().open(io.BytesIO(packed(bundle)), "rb") as plain:
        data = plain.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    top = archive.prefix(folders.bundle_id(bundle))
    assert names[0] == f"{top}/manifest.json"
    target = io.BytesIO()
    archive.pack_zip(bundle, target)
    assert zipfile.ZipFile(target).namelist() == names
    again = io.BytesIO()
    archive.pack_zip(bundle, again)
    assert again.getvalue() == target.getvalue()


def test_changed_bundle_is_not_packed(bundle: Path) -> None:
    """A bundle whose file was changed is not given away."""
    (bundle / "said").write_text("y\n")
    with pytest.raises(BadBundle, match="said: is not what the manifest says"):
        packed(bundle)


def test_another_bundle(bundle: Path, tmp_path: Path) -> None:
    """An archive of another bundle than the one that is expected is refused."""
    with pytest.raises(BadBundle, match="and not 0000"):
        unpacked(packed(bundle), tmp_path / "back", expect="0" * 64)
    assert not (tmp_path / "back").exists()


def rename(members: list[Member], name: str) -> list[Member]:
    members[1][0].name = name.replace("TOP", members[0][0].name.split("/")[0])
    return members


def retype(members: list[Member], kind: bytes, link: str = "") -> list[Member]:
    members[1][0].type, members[1][0].linkname = kind, link
    return [members[0], (members[1][0], b"")]


HOSTILE: dict[str, tuple[Callable[[list[Member]], list[Member]], str]] = {
    "absolute": (lambda m: rename(m, "/etc/passwd"), "no file of a bundle"),
    "upwards": (
        lambda m: rename(m, "TOP/../evil"),
        "no file of a bundle",
    ),
    "deeper": (
        lambda m: rename(m, "TOP/sub/evil"),
        "no file of a bundle",
    ),
    "hidden": (lambda m: rename(m, "TOP/.evil"), "no file of a bundle"),
    "elsewhere": (lambda m: rename(m, "opsmesh-0123456789abcdef/a"), "does not name"),
    "symlink": (lambda m: retype(m, tarfile.SYMTYPE, "/etc/passwd"), "something else than files"),
    "hardlink": (lambda m: retype(m, tarfile.LNKTYPE, "/etc/passwd"), "something else than files"),
    "device": (lambda m: retype(m, tarfile.CHRTYPE), "something else than files"),
    "folder": (lambda m: retype(m, tarfile.DIRTYPE), "something else than files"),
    "twice": (lambda m: [*m, m[1]], "does not name"),
    "more": (lambda m: [*m, (tarfile.TarInfo(m[0][0].name + "x"), b"x")], "does not name"),
    "less": (lambda m: m[:1], "the archive lacks a"),
    "changed": (lambda m: [m[0], (m[1][0], b"other")], "is not what the manifest says"),
    "longer": (lambda m: [m[0], (m[1][0], b"other!")], "6 bytes, and not 5"),
    "no_manifest": (lambda m: m[1:], "does not begin with a manifest.json"),
    "empty": (lambda m: [], "the archive is empty"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile(tmp_path: Path, kind: str) -> None:
    """An archive that is not exactly a bundle is refused, and nothing of it is left."""
    change, said = HOSTILE[kind]
    with pytest.raises(BadBundle, match=said):
        unpacked(made(change(lying({"a": b"hello"}))), tmp_path / "in" / "back")
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


def test_extended_headers(tmp_path: Path) -> None:
    """Headers that extend others, which may be of any size, are not read."""
    members = lying({"a": b"hello"})
    members[1][0].pax_headers = {"comment": "x" * 100_000}
    with pytest.raises(BadBundle, match="something else than files"):
        unpacked(made(members, form=tarfile.PAX_FORMAT), tmp_path / "back")


@pytest.mark.parametrize(
    "files",
    [
        [{"name": "../x", "size": 1, "sha256": "0" * 64}],
        [{"name": "/x", "size": 1, "sha256": "0" * 64}],
        [{"name": "manifest.json", "size": 1, "sha256": "0" * 64}],
        [{"name": ["x"], "size": 1, "sha256": "0" * 64}],
        [{"name": "x", "size": -1, "sha256": "0" * 64}],
        [{"name": "x", "size": 2**50, "sha256": "0" * 64}],
        [{"name": "x", "size": 1, "sha256": 3}],
        [{"name": "x", "size": 0, "sha256": ""}] * 2,
        [[]],
        "x",
        [{"name": "x"}] * 2000,
    ],
)
def test_hostile_manifest(tmp_path: Path, files: Any) -> None:
    """A manifest that makes no sense is refused."""
    with pytest.raises(BadBundle, match=r"manifest\.json: "):
        unpacked(made(lying({}, {"files": files})), tmp_path / "back")


def test_deep_manifest(tmp_path: Path) -> None:
    """A manifest that is nested without end is refused, not followed."""
    raw = b"[" * 200_000
    top = archive.prefix(hashlib.sha256(raw).hexdigest())
    with pytest.raises(BadBundle, match=r"manifest\.json: "):
        unpacked(made([(tarfile.TarInfo(f"{top}/manifest.json"), raw)]), tmp_path / "back")


def test_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would become far more than a bundle may be is refused before it is unpacked."""
    monkeypatch.setattr(archive, "MAX_BUNDLE", 2**20)
    bomb = made(lying({"a": b"\0" * 2**22}, {"files": []}))
    assert len(bomb) < 10_000
    with pytest.raises(BadBundle, match="which its manifest does not name"):
        unpacked(bomb, tmp_path / "back")
    honest = lying({"a": b"\0" * 2**22})
    with pytest.raises(BadBundle, match="no size"):
        unpacked(made(honest), tmp_path / "back")
    many = [(tarfile.TarInfo("opsmesh-0123456789abcdef/manifest.json"), b"\0" * 2**21)]
    with pytest.raises(BadBundle, match="becomes more than"):
        unpacked(made(many), tmp_path / "back")


@given(cut=st.integers(0, 400), flip=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged(tmp_path: Path, cut: int, flip: int) -> None:
    """A damaged archive is refused, whatever was done to it; or what it holds is unharmed."""
    data = bytearray(made(lying({"a": b"hello"})))
    at = cut % len(data)
    if flip:
        data[at] ^= flip
    else:
        del data[at:]
    back = tmp_path / "back"
    try:
        unpacked(bytes(data), back)
    except BadBundle:
        assert not back.exists()
        return
    assert (back / "a").read_bytes() == b"hello"
    retention.remove([retention.Old(folder=back, size=0, made_us=0)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: (b / "said").write_text("y\n"), "said: has another hash than in the manifest"),
        (lambda b: (b / "said").write_text("yy\n"), "said: 3 bytes, and not 2"),
        (lambda b: (b / "said").unlink(), "said: No such file or directory"),
        (lambda b: (b / "more").write_text("x"), "more: is not in the manifest"),
        (
            lambda b: [(b / "said").unlink(), (b / "said").symlink_to("/etc/passwd")],
            "said: is no regular file",
        ),
    ],
)
def test_verify(bundle: Path, change: Callable[[Path], object], said: str) -> None:
    """Every change of a bundle is found, and named."""
    assert verify(bundle).intact
    change(bundle)
    assert verify(bundle).problems == (said,)


def test_left_half_done(context: Context) -> None:
    """What a killed process has written aside goes after a day; what is being written stays."""
    made = collect(context, ["disk"]).folder
    day = made.parent
    old, new = day / ".run7-step.123", day / ".run8-step.456"
    for folder in (old, new):
        folder.mkdir()
        (folder / "said").write_text("x")
    os.utime(old, (1, 1))
    retention.clear(day.parent, older_than_s=3600.0, max_bytes=2**30)
    assert sorted(path.name for path in day.iterdir()) == [new.name, made.name]


def test_retention(context: Context) -> None:
    """Old ones go by age, by number and by size; the newest one always stays."""
    bundles = [collect(context, ["disk"], run_id=f"run{n}").folder for n in range(3)]
    place = bundles[0].parent.parent
    now_us = bundles[2].stat().st_mtime_ns // 1000 + 1

    def gone(**limits: Any) -> list[str]:
        return [old.folder.name for old in retention.choose(place, now_us=now_us, **limits)]

    assert gone(older_than_s=3600.0) == []
    assert gone(keep=1) == ["run0-step", "run1-step"]
    assert gone(max_bytes=1) == ["run0-step", "run1-step"]
    assert gone(older_than_s=0.0) == ["run0-step", "run1-step", "run2-step"]
    removed = retention.remove(retention.choose(place, keep=1))
    assert [old.folder.name for old in removed] == ["run0-step", "run1-step"]
    assert [path.name for path in bundles[0].parent.iterdir()] == ["run2-step"]
