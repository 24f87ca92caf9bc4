"""The images under test, built from what is at hand: by default from a Debian that is bootstrapped
once, and wheels that pip fetches once, so that no registry of images is needed.

`OPSMESH_TEST_PYTHON_IMAGE=python:3.13-slim` takes that image instead, and pip's own index.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.checkout import pyproject
from tests.producers.nspawn.machine import SCRIPTS, release

#: What the images are called while they are tested.
OPSMESH, NATS = "opsmesh-test/opsmesh:test", "opsmesh-test/nats:test"
PROMETHEUS, GRAFANA = "opsmesh-test/prometheus:test", "opsmesh-test/no-grafana:test"
PACKAGES = "python3,python3-venv,ca-certificates"
GIVEN = "OPSMESH_TEST_PYTHON_IMAGE"
#: pip in the build image, which asks nobody.
PIP_CONF = "[global]\nno-index = true\nfind-links = /wheels\n"


def missing() -> str | None:
    """Why no container can be had here; None when one can."""
    if shutil.which("docker") is None:
        return "docker is not installed (Debian: docker.io docker-compose)"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        return "no Docker daemon answers"
    if compose() is None:
        return "neither docker compose nor docker-compose is installed"
    if os.environ.get(GIVEN):
        return None
    if os.geteuid() != 0 or not SCRIPTS.exists():
        return f"needs root and debootstrap to make an image, or one that {GIVEN} names"
    return None


def compose() -> str | None:
    """A command that reads compose.yaml: COMPOSE, or the one that `make compose-up` takes."""
    if given := os.environ.get("COMPOSE"):
        return given
    asked = ["docker", "compose", "version"]
    if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
        return "docker compose"
    return "docker-compose" if shutil.which("docker-compose") else None


def bases(folder: Path) -> dict[str, str]:
    """The Dockerfile's arguments: images to begin from, made when they are not there yet, which
    takes a minute or two."""
    if given := os.environ.get(GIVEN):
        return {"PYTHON_IMAGE": given}
    name, mirror = release()
    python = f"opsmesh-test/python:{name}"
    if not _there(python):
        _import(python, name, mirror)
    version = docker(
        *("run", "--rm", python, "python3", "-c"),
        "import sys; print('{}.{}'.format(*sys.version_info))",
    )
    project = pyproject()["project"]
    needed = [one for one in project["dependencies"] if "-opsmesh" not in one]
    extras = [one for name in ("web", "metrics") for one in project["optional-dependencies"][name]]
    wanted = sorted([*needed, *extras, "hatchling>=1.27"])
    key = hashlib.sha256("\n".join([version, *wanted]).encode()).hexdigest()[:12]
    build = f"opsmesh-test/build:{name}-{key}"
    if not _there(build):
        _with_wheels(folder, python, build, version=version, wanted=wanted)
    # the legacy builder: BuildKit is a plug-in that Debian does not have
    return {"PYTHON_IMAGE": python, "BUILD_IMAGE": build, "DOCKER_BUILDKIT": "0"}


def watchers(folder: Path) -> dict[str, str]:
    """Images for the profile `metrics`: this machine's own Prometheus, laid out as that project's
    image is; and a stand-in for Grafana, which serves its folders and is nothing like it."""
    if given := os.environ.get(GIVEN):
        pytest.skip(f"{given} is no image that this machine's Prometheus runs in")
    for name in ("prometheus", "promtool"):
        if (found := shutil.which(name)) is None:
            pytest.skip(f"{name} is not on PATH (Debian: prometheus)")
        shutil.copy(found, folder / name)
    python = bases(folder)["PYTHON_IMAGE"]
    (folder / "Dockerfile").write_text(
        f"FROM {python} AS prometheus\n"
        "COPY prometheus promtool /bin/\n"
        "RUN mkdir /prometheus && chown 65534:65534 /prometheus\n"
        'WORKDIR /prometheus\nENTRYPOINT ["/bin/prometheus"]\n'
        f"FROM {python} AS grafana\n"
        'ENTRYPOINT ["python3", "-m", "http.server", "3000", "--directory", "/etc/grafana"]\n'
    )
    for target, image in (("prometheus", PROMETHEUS), ("grafana", GRAFANA)):
        argv = ["docker", "build", "--quiet", "--target", target, "--tag", image, str(folder)]
        env = {**os.environ, "DOCKER_BUILDKIT": "0"}
        subprocess.run(argv, env=env, capture_output=True, check=True)
    return {"OPSMESH_PROMETHEUS_IMAGE": PROMETHEUS, "OPSMESH_GRAFANA_IMAGE": GRAFANA}


def docker(*words: str) -> str:
    """What docker says; AssertionError when it fails."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout.strip()


def _there(image: str) -> bool:
    asked = ["docker", "image", "inspect", image]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _import(image: str, name: str, mirror: list[str]) -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opsmesh-tests"
    root = cache / f"python-{name}"
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made = root.with_name(f"{root.name}.{os.getpid()}")
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", name, str(made)]
        done = subprocess.run([*command, *mirror], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        made.rename(root)
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ["docker", "import", "-", image], stdin=tar.stdout, capture_output=True, check=True
        )


def _python(version: str) -> str:
    """An interpreter of the image's version: wheels are made for one."""
    if version == "{}.{}".format(*sys.version_info):
        return sys.executable
    if (found := shutil.which(f"python{version}")) is None:
        pytest.skip(f"needs Python {version}, as the image has, or an image that {GIVEN} names")
    return found


def _with_wheels(folder: Path, python: str, image: str, *, version: str, wanted: list[str]) -> None:
    wheels = folder / "wheels"
    make = ["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    subprocess.run([_python(version), *make, "--wheel-dir", str(wheels), *wanted], check=True)
    (folder / "pip.conf").write_text(PIP_CONF)
    (folder / "Dockerfile").write_text(
        f"FROM {python}\nCOPY pip.conf /etc/pip.conf\nCOPY wheels /wheels\n"
    )
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    argv = ["docker", "build", "--quiet", "--tag", image, str(folder)]
    subprocess.run(argv, env=env, capture_output=True, check=True)
