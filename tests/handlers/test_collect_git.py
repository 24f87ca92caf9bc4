"""The collector `git_state`, with real repositories, harmless and hostile."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.handlers.collecting import Context, collect, git, repository


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with one commit."""
    if shutil.which("git") is None:
        pytest.fail("git is missing") if os.environ.get("CI") else pytest.skip("git is missing")
    return repository(tmp_path / "repo")


def test_state(context: Context, repo: Path) -> None:
    """HEAD, branch, what was changed and the changes themselves."""
    (repo / "a.txt").write_text("two\n")
    (repo / "new.txt").write_text("x\n")
    made = collect(context, ["git_state"], {"rootdir": str(repo)})
    facts = made.facts("git_state")
    assert facts["head"] == git(repo, "rev-parse", "HEAD")
    assert (facts["branch"], facts["changed"], facts["untracked"]) == ("main", 1, 1)
    assert not facts["clean"]
    assert "-one\n+two\n" in made.text("git_state_diff")
    assert "? new.txt" in made.text("git_state")


def test_since(context: Context, repo: Path) -> None:
    """With `since`, commits and changes since then are there too."""
    first = git(repo, "rev-parse", "HEAD")
    (repo / "a.txt").write_text("two\n")
    git(repo, "commit", "-qam", "second")
    item = {"git_state": {"path": str(repo), "since": first}}
    made = collect(context, [item], {})
    assert made.facts("git_state")["since"] == first
    assert ": second" in made.text("git_state")
    assert "+two" in made.text("git_state_diff")


@pytest.mark.parametrize("ref", ["--output=x", "nope", "HEAD; touch x", "-h"])
def test_since_of_a_stranger(context: Context, repo: Path, ref: str) -> None:
    """What is no commit is an error, and never an option."""
    item = {"git_state": {"path": str(repo), "since": "${{ event.payload.ref }}"}}
    made = collect(context, [item], {"ref": ref})
    assert made.error("git_state").endswith(("is not the name of a commit", "is no commit here"))
    assert not (repo / "x").exists()


def test_no_commit_yet(context: Context, tmp_path: Path) -> None:
    """A repository without a commit has a state too."""
    repo = tmp_path / "empty"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    (repo / "a").write_text("x\n")
    git(repo, "add", "a")
    made = collect(context, ["git_state"], {"rootdir": str(repo)})
    assert made.facts("git_state")["head"] is None
    assert "+x" in made.text("git_state_diff")


def test_no_repository(context: Context, tmp_path: Path) -> None:
    """A folder that is in no repository says so."""
    made = collect(context, ["git_state"], {"rootdir": str(tmp_path)})
    assert "not a git repository" in made.error("git_state")


def test_diff_is_cut(context: Context, repo: Path) -> None:
    """Changes beyond the limit are cut, and marked."""
    (repo / "a.txt").write_text("line\n" * 5000)
    made = collect(context, [{"git_state": {"path": str(repo)}, "max_bytes": 2000}], {})
    assert made.entry("git_state_diff")["truncated"]
    assert made.entry("git_state_diff")["size"] == 2000


def _program(tmp_path: Path, name: str, *, then: str = "cat") -> tuple[str, Path]:
    """A program that leaves a trace when it is run."""
    trace = tmp_path / f"ran-{name}"
    program = tmp_path / f"evil-{name}"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n{then}\n")
    program.chmod(0o755)
    return str(program), trace


#: Settings by which a repository names programs that git may run.
HOSTILE = (
    *("core.fsmonitor", "core.pager", "pager.status", "pager.diff", "pager.log", "core.editor"),
    *("diff.external", "diff.evil.command", "diff.evil.textconv", "gpg.program"),
    *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "core.askPass"),
    *("core.sshCommand", "credential.helper", "remote.origin.uploadpack", "gpg.ssh.program"),
)


def test_hostile_configuration(context: Context, repo: Path, tmp_path: Path) -> None:
    """No program that the repository's own configuration names is run."""
    (repo / ".gitattributes").write_text("*.txt filter=evil diff=evil\n")
    git(repo, "add", ".gitattributes")
    git(repo, "commit", "-qm", "attributes")
    traces = []
    for setting in HOSTILE:
        program, trace = _program(tmp_path, setting)
        traces.append(trace)
        git(repo, "config", setting, program)
    git(repo, "config", "filter.evil.required", "true")
    git(repo, "config", "log.showSignature", "true")
    git(repo, "config", "alias.status", f"!{program}")
    hooks = repo / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    shutil.copy(program, hooks / "post-index-change")
    (repo / "a.txt").write_text("two\n")
    os.utime(repo / "a.txt", (1, 1))
    made = collect(context, [{"git_state": {"path": str(repo), "since": "HEAD"}}], {})
    assert [trace.name for trace in traces if trace.exists()] == []
    assert made.facts("git_state")["changed"] == 1
    assert "+two" in made.text("git_state_diff")


def test_the_hostile_programs_would_run(repo: Path, tmp_path: Path) -> None:
    """Such a configuration does run programs when nothing is closed."""
    program, trace = _program(tmp_path, "clean")
    (repo / ".gitattributes").write_text("*.txt filter=evil\n")
    git(repo, "config", "filter.evil.clean", program)
    (repo / "a.txt").write_text("two\n")
    os.utime(repo / "a.txt", (1, 1))
    git(repo, "status")
    assert trace.exists()


def test_nothing_is_fetched(context: Context, repo: Path, tmp_path: Path) -> None:
    """A clone without all of its objects does not fetch them by a program of the repository's."""
    program, trace = _program(tmp_path, "fetch", then="exit 1")
    blob = git(repo, "rev-parse", "HEAD:a.txt")
    (repo / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    for name, value in (
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", f"ext::{program} %S"),
        ("protocol.ext.allow", "always"),
    ):
        git(repo, "config", name, value)
    (repo / "a.txt").write_text("two\n")
    made = collect(context, ["git_state"], {"rootdir": str(repo)})
    assert not trace.exists()
    assert "git: " in made.error("git_state")
    command = ["git", "-C", str(repo), "diff"]
    subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=180, check=False)
    assert trace.exists()  # where nothing is closed


def test_hostile_submodule(context: Context, repo: Path, tmp_path: Path) -> None:
    """A submodule's own configuration is not looked at."""
    program, trace = _program(tmp_path, "submodule")
    inner = repository(tmp_path / "inner")
    git(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "sub")
    git(repo, "commit", "-qm", "submodule")
    git(repo / "sub", "config", "core.fsmonitor", program)
    (repo / "sub" / "a.txt").write_text("two\n")
    collect(context, ["git_state"], {"rootdir": str(repo)})
    assert not trace.exists()


def test_bare_repository_inside(context: Context, repo: Path, tmp_path: Path) -> None:
    """A bare repository inside of another one, as a checkout can bring it, is not used."""
    program, trace = _program(tmp_path, "bare")
    bare = repo / "docs"
    git(repo, "init", "-q", "--bare", str(bare))
    git(bare, "config", "core.fsmonitor", program)
    git(bare, "config", "core.worktree", str(repo))
    git(bare, "config", "core.bare", "false")
    collect(context, ["git_state"], {"rootdir": str(bare)})
    assert not trace.exists()


def test_files_elsewhere(context: Context, repo: Path, tmp_path: Path) -> None:
    """A repository that names another folder as its own does not tell what is in there."""
    private = tmp_path / "home"
    private.mkdir()
    (private / "private.txt").write_text("x\n")
    git(repo, "config", "core.worktree", str(private))
    made = collect(context, ["git_state"], {"rootdir": str(repo)})
    assert made.error("git_state") == f"the repository of {repo} has its files elsewhere"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to another user")
def test_of_another_user(context: Context, repo: Path) -> None:
    """A repository of another user's is refused, as git refuses it."""
    for path in [repo, *repo.rglob("*")]:
        os.chown(path, 65534, 65534)
    made = collect(context, ["git_state"], {"rootdir": str(repo)})
    assert "dubious ownership" in made.error("git_state")
