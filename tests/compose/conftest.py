"""Images are built once for all tests here, and each mesh is ended by the test that began it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose import images
from tests.compose.contained import Contained


@pytest.fixture(scope="session")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `make compose-up` is called with, to build the images from what is at hand."""
    if reason := images.missing():
        pytest.skip(reason)
    return {
        **images.bases(tmp_path_factory.mktemp("bases")),
        "COMPOSE": images.compose() or "",
        "OPSMESH_IMAGE": images.OPSMESH,
        "OPSMESH_NATS_IMAGE": images.NATS,
    }


@pytest.fixture
def contained(tmp_path: Path, variables: dict[str, str]) -> Iterator[Contained]:
    """A mesh that has not been started yet."""
    mesh = Contained(tmp_path, variables)
    yield mesh
    mesh.gone()
