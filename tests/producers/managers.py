"""Real package managers on file systems of their own: pacman in a throwaway root, apt and dpkg with
folders of their own. The host's packages are not touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def need(*tools: str) -> None:
    """Skip without these, or without root; fail in CI."""
    absent = [tool for tool in tools if shutil.which(tool) is None]
    reason = f"{', '.join(absent)} not installed" if absent else ""
    if not reason and os.geteuid():
        reason = "package managers want root"
    if reason:
        assert not os.environ.get("CI"), f"{reason}, and must be in CI"
        pytest.skip(reason)


def run(*argv: str | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """The command, which must succeed."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, **more)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done


class Pacman:
    """A root with a repository in `folder`; `log` is what the producer reads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "root/var/log/pacman.log"
        for name in ("repo", "hooks", "root/var/lib/pacman", "root/var/log", "root/etc", "cache"):
            (folder / name).mkdir(parents=True)
        self.conf = folder / "pacman.conf"
        self.conf.write_text(
            "[options]\nArchitecture = auto\nSigLevel = Never\n"
            f"RootDir = {folder}/root\nDBPath = {folder}/root/var/lib/pacman\n"
            f"CacheDir = {folder}/cache\nLogFile = {self.log}\nHookDir = {folder}/hooks\n"
            f"[own]\nServer = file://{folder}/repo\n"
        )

    def package(self, name: str, version: str, *, script: str = "", conflict: str = "") -> Path:
        """Put a package into the repository; `script`: its .INSTALL."""
        made = self.folder / f"build-{name}-{version}"
        (made / "usr/share").mkdir(parents=True)
        (made / f"usr/share/{name}").write_text(version)
        (made / ".PKGINFO").write_text(
            f"pkgname = {name}\npkgbase = {name}\npkgver = {version}\npkgdesc = made by hand\n"
            "url = none\nbuilddate = 1\npackager = nobody\nsize = 1\narch = any\n"
            + (f"conflict = {conflict}\n" if conflict else "")
        )
        files = [".PKGINFO", "usr"]
        if script:
            (made / ".INSTALL").write_text(script)
            files.insert(1, ".INSTALL")
        file = self.folder / f"repo/{name}-{version}-any.pkg.tar.zst"
        run("bsdtar", "--zstd", "-cf", file, *files, cwd=made)
        run("repo-add", "-q", self.folder / "repo/own.db.tar.gz", file, cwd=self.folder / "repo")
        return file

    def shell(self) -> None:
        """Give the root a shell, for scriptlets and hooks: pacman runs them in there."""
        need("busybox")
        folder = self.folder / "root/bin"
        folder.mkdir()
        shutil.copy(shutil.which("busybox") or "", folder / "busybox")
        for name in ("sh", "mkdir", "true"):
            (folder / name).symlink_to("busybox")
        (self.folder / "root/dev").mkdir()
        (self.folder / "root/dev/null").touch()

    def command(self, *arguments: str | Path) -> list[str]:
        """The command that runs pacman."""
        words = ("pacman", "--config", self.conf, "--noconfirm", "--noprogressbar", *arguments)
        return [str(word) for word in words]

    def __call__(self, *arguments: str | Path) -> None:
        """Run pacman."""
        run(*self.command(*arguments))


class Apt:
    """apt and dpkg with their state in `folder`; `log` is what the producer reads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log/history.log"
        for name in (
            "log",
            "cache/archives/partial",
            "lists/partial",
            "admin/updates",
            "admin/info",
            "admin/triggers",
            "etc/apt.conf.d",
            "etc/preferences.d",
            "root",
        ):
            (folder / name).mkdir(parents=True)
        for name in ("admin/status", "admin/available", "etc/sources.list"):
            (folder / name).touch()
        self._options = [
            f"Dir::State={folder}",
            f"Dir::State::status={folder}/admin/status",
            f"Dir::State::lists={folder}/lists",
            f"Dir::State::extended_states={folder}/extended",
            f"Dir::Cache={folder}/cache",
            f"Dir::Etc={folder}/etc",
            f"Dir::Log={folder}/log",
            f"DPkg::Options::=--root={folder}/root",
            f"DPkg::Options::=--admindir={folder}/admin",
            f"DPkg::Options::=--log={folder}/log/dpkg.log",
            "DPkg::Options::=--force-script-chrootless",
            "APT::Sandbox::User=root",
            "Debug::NoLocking=1",
        ]
        self.environment = {**os.environ}

    def package(self, name: str, version: str, *, postinst: str = "", needs: str = "") -> Path:
        """A .deb that holds nothing."""
        made = self.folder / f"build-{name}-{version}"
        (made / "DEBIAN").mkdir(parents=True)
        (made / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: nobody <nobody@localhost>\nDescription: made by hand\n"
            + (f"Depends: {needs}\n" if needs else "")
        )
        if postinst:
            (made / "DEBIAN/postinst").write_text(postinst)
            (made / "DEBIAN/postinst").chmod(0o755)
        file = self.folder / f"{name}_{version}_all.deb"
        run("dpkg-deb", "--build", "--root-owner-group", made, file)
        return file

    def command(self, *arguments: str | Path) -> list[str]:
        """The command that runs apt-get."""
        options = [word for option in self._options for word in ("-o", option)]
        return ["apt-get", *options, "-y", "--allow-downgrades", *map(str, arguments)]

    def hook(self, text: str) -> None:
        """More of apt's configuration."""
        part = self.folder / "hook.conf"
        part.write_text(text)
        self.environment["APT_CONFIG"] = str(part)

    def __call__(self, *arguments: str | Path) -> None:
        """Run apt-get."""
        run(*self.command(*arguments), env=self.environment)
