"""Secrets by reference: where they are looked for, and what is refused."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from tests.conftest import run

from opsmesh.handlers.actions.command import Command
from opsmesh.handlers.actions.contract import NoSecrets, StepContext, StepResult
from opsmesh.handlers.errors import ExtraMissing, SecretMissing, TemplateError
from opsmesh.handlers.secrets import sources, store
from opsmesh.handlers.secrets.sources import Credentials, Files, Keyring
from opsmesh.handlers.secrets.store import SecretStore
from opsmesh.handlers.template import Template
from opsmesh.router.settings import Secrets as Section
from opsmesh.schemas.exact import Known
from opsmesh.schemas.redact import Redactor

Context = Callable[..., StepContext]

VALUE = "swordfish under a lamp"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A folder with one secret, `lamp`."""
    found = Files(tmp_path / "secrets")
    found.write("lamp", VALUE + "\n")
    return found


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def kept(files: Files, known: Known) -> SecretStore:
    return SecretStore([files], known)


def test_file(kept: SecretStore, files: Files) -> None:
    """A file's text without the line break at its end is the secret."""
    assert kept.get("lamp") == VALUE
    assert (files.folder / "lamp").stat().st_mode & 0o777 == 0o600
    assert files.folder.stat().st_mode & 0o777 == 0o700


def test_known_before_it_is_handed_out(kept: SecretStore, known: Known) -> None:
    """Whoever shares what is known takes a secret out from then on."""
    rules = Redactor(known=known)
    assert rules.text(VALUE) == VALUE
    kept.get("lamp")
    assert rules.text(VALUE) == "[redacted:secret]"


def test_missing(kept: SecretStore, files: Files) -> None:
    """The error names the secret, every place, and the next step."""
    with pytest.raises(SecretMissing) as caught:
        kept.get("door")
    assert str(caught.value) == (
        f"there is no secret 'door': looked for in file: {files.folder}/door; "
        "opsmesh secret set door"
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o640), "can be read by others (0640): chmod 600 it"),
        (lambda path: path.write_text("abc\n"), "a secret has 4 characters or more"),
        (lambda path: path.write_text("abcd\0e"), "it holds a NUL byte"),
        (lambda path: path.write_bytes(b"\xff\xfe12345"), "is not UTF-8"),
        (lambda path: path.write_text("x" * 70_000), "has more than 65536 bytes"),
        (lambda path: (path.unlink(), path.mkdir()), "is no regular file"),
        (
            lambda path: [path.unlink(), subprocess.run(["mkfifo", "-m600", path])],
            "is no regular file",
        ),
        (
            lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")),
            "is a symbolic link",
        ),
        (lambda path: path.parent.chmod(0o777), "others may write to"),
    ],
)
def test_unfit_file(
    kept: SecretStore, files: Files, spoil: Callable[[Path], Any], said: str
) -> None:
    """What others can read or choose is no secret, and its text is in no error."""
    spoil(files.folder / "lamp")
    with pytest.raises(SecretMissing) as caught:
        kept.get("lamp")
    assert said in str(caught.value)
    assert VALUE not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user(kept: SecretStore, files: Files) -> None:
    """A file that somebody else owns is somebody else's secret."""
    os.chown(files.folder / "lamp", 12345, -1)
    with pytest.raises(SecretMissing, match="belongs to another user"):
        kept.get("lamp")


@pytest.mark.parametrize("name", ["../lamp", "/etc/passwd", "", ".hidden", "-x", "a/b", "a" * 65])
def test_no_name(kept: SecretStore, name: str) -> None:
    """A name cannot lead out of the folder."""
    with pytest.raises(SecretMissing, match="no name of a secret"):
        kept.get(name)


def test_credentials(tmp_path: Path, known: Known) -> None:
    """What systemd handed to the service is found under its name."""
    (tmp_path / "lamp").write_text(VALUE)
    (tmp_path / "lamp").chmod(0o440)
    found = Credentials({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert SecretStore([found], known).get("lamp") == VALUE
    (tmp_path / "lamp").chmod(0o444)
    with pytest.raises(SecretMissing, match="can be read by everybody"):
        SecretStore([found], known).get("lamp")


def test_order(tmp_path: Path, files: Files, known: Known) -> None:
    """The first source that has a name gives it."""
    (tmp_path / "lamp").write_text("another lamp")
    (tmp_path / "lamp").chmod(0o400)
    credentials = Credentials({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert SecretStore([credentials, files], known).get("lamp") == "another lamp"
    assert SecretStore([files, credentials], known).get("lamp") == VALUE


def test_order_of_settings(known: Known) -> None:
    """The settings name the sources; one that they do not name is not asked."""
    found = store.load(Section(order=["keyring", "file"]), known)
    assert [source.kind for source in found.sources] == ["keyring", "file"]


def test_a_refused_file_hides_no_other(tmp_path: Path, files: Files, known: Known) -> None:
    """A file that must not be used is an error, not a reason to ask the next source."""
    (files.folder / "lamp").chmod(0o644)
    (tmp_path / "lamp").write_text(VALUE)
    (tmp_path / "lamp").chmod(0o400)
    credentials = Credentials({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    with pytest.raises(SecretMissing, match="chmod 600"):
        SecretStore([files, credentials], known).get("lamp")


class Ring:
    """A stand-in for the package `keyring`."""

    def __init__(self, **kept: str) -> None:
        self.kept = kept

    def get_password(self, service: str, name: str) -> str | None:
        assert service == "opsmesh"
        return self.kept.get(name)

    def get_keyring(self) -> Any:
        return SimpleNamespace()


def test_keyring(known: Known) -> None:
    """The keyring's password of the service opsmesh is the secret."""
    assert SecretStore([Keyring(lambda: Ring(lamp=VALUE))], known).get("lamp") == VALUE


def test_keyring_that_is_not_there(files: Files, known: Known) -> None:
    """Without the extra, or without a desktop, the other sources are asked."""

    def missing() -> Any:
        raise ExtraMissing("keyring", "no module")

    assert SecretStore([Keyring(missing), files], known).get("lamp") == VALUE
    real = pytest.importorskip("keyring")
    real.set_keyring(real.backends.fail.Keyring())
    assert SecretStore([Keyring(), files], known).get("lamp") == VALUE


def test_keyring_that_waits_for_its_user(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked keyring costs seconds, not for ever."""
    import threading

    monkeypatch.setattr(sources, "KEYRING_S", 0.05)
    ended = threading.Event()

    class Locked(Ring):
        def get_password(self, service: str, name: str) -> str | None:
            ended.wait(60)
            return None

    began = time.monotonic()
    with pytest.raises(SecretMissing, match="gave no answer"):
        SecretStore([Keyring(Locked)], known).get("lamp")
    assert time.monotonic() - began < 30  # half of what the keyring would have waited for
    ended.set()


def test_fill(kept: SecretStore) -> None:
    """References in a setting's text are filled in; text without any stays."""
    assert kept.fill('${{ secret("lamp") }}') == VALUE
    assert kept.fill("Bearer ${{ secret('lamp') }}") == f"Bearer {VALUE}"
    assert kept.fill("plain") == "plain"
    with pytest.raises(TemplateError):
        kept.fill("${{ host }}")


def test_no_secrets() -> None:
    """Where none are given a reference is an error, never its own text."""
    with pytest.raises(SecretMissing):
        NoSecrets().fill('${{ secret("lamp") }}')


@pytest.mark.parametrize(
    "text",
    [
        '${{ secret("lamp") + "x" }}',
        "${{ secret(event.payload.name) }}",
        '${{ "a" + secret("lamp") }}',
        '${{ secret("../lamp") }}',
        "${{ secret() }}",
    ],
)
def test_not_computed(text: str) -> None:
    """A reference is a name in quotes and nothing else."""
    with pytest.raises(TemplateError):
        Template(text, secrets=True)


def test_the_word_alone(context: Context) -> None:
    """Texts and fields that merely mention the word are no references."""
    assert Template("${{ 'secret(1)' }}").render_text({}) == "secret(1)"
    ctx = context()
    variables = {**ctx.variables, "vars": {"secret": "x"}}
    assert Template("${{ vars.secret }}").render_text(variables) == "x"


def test_an_event_refers_to_nothing(kept: SecretStore) -> None:
    """A reference that an event holds is text."""
    template = Template('${{ vars.x }} ${{ secret("lamp") }}', secrets=True)
    evil = '${{ secret("lamp") }}'
    assert template.fill({"vars": {"x": evil}}, kept.get) == f"{evil} {VALUE}"


def do(value: Any, ctx: StepContext) -> StepResult:
    result = run(Command.parse(value).run(ctx))
    assert isinstance(result, StepResult)
    return result


def knowing(context: Context, kept: SecretStore, known: Known) -> StepContext:
    return context(secrets=kept, redactor=Redactor(known=known))


def test_command_gets_it(context: Context, kept: SecretStore, known: Known) -> None:
    """A program finds its secrets in its environment and its input, and what it prints of them is
    taken out."""
    result = do(
        {
            "argv": ["sh", "-c", 'cat; echo "$LAMP"; printf %s "$LAMP" | wc -c'],
            "env": {"LAMP": '${{ secret("lamp") }}'},
            "stdin": {"text": 'unit=${{ event.payload.unit }} ${{ secret("lamp") }}\n'},
        },
        knowing(context, kept, known),
    )
    assert result.ok
    assert result.output["stdout"] == (
        f"unit=backup.service [redacted:secret]\n[redacted:secret]\n{len(VALUE)}\n"
    )


def test_the_end_of_one(context: Context, kept: SecretStore, known: Known) -> None:
    """Of a secret that the output limit has cut in two, the end is taken out too."""
    result = do(
        {
            "argv": ["sh", "-c", 'printf %s "$LAMP"; printf 0123456789'],
            "env": {"LAMP": '${{ secret("lamp") }}'},
            "output_limit": 20,
        },
        knowing(context, kept, known),
    )
    assert result.output["truncated"]
    assert result.output["stdout"] == "[redacted:secret]0123456789"


def test_a_missing_one_is_not_retried(context: Context, kept: SecretStore, known: Known) -> None:
    """No attempt could find what is not there, and nothing is started."""
    result = do(
        {"argv": ["touch", "x"], "env": {"LAMP": '${{ secret("door") }}'}},
        knowing(context, kept, known),
    )
    assert (result.ok, result.retryable) == (False, False)
    assert result.error is not None
    assert "there is no secret 'door'" in result.error


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["curl", '${{ secret("lamp") }}'], "every process can read the arguments"),
        (["curl", '--token=${{ secret("lamp") }}'], "every process can read the arguments"),
        ({"argv": ["ls"], "cwd": '${{ secret("lamp") }}'}, "no secret can stand here"),
    ],
)
def test_refused(value: Any, said: str) -> None:
    """Where others could read it, a reference is refused when the profile is loaded."""
    with pytest.raises(ValidationError, match=said):
        Command.parse(value)


def test_description_has_the_reference(kept: SecretStore) -> None:
    """What a profile shows of itself is the name."""
    shown = Command.parse({"argv": ["ls"], "env": {"LAMP": '${{ secret("lamp") }}'}}).describe()
    assert shown["env"] == {"LAMP": '${{ secret("lamp") }}'}
