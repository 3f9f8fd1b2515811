"""A repository with one release, a server for it with faults on demand, and a device that downloads from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_agent.core.config import Config

from tests.support.agent.release_server import ReleaseServer, serving
from tests.support.agent.tuf_repository import TufRepository, one_release

published = pytest.fixture(one_release)


@pytest.fixture
def server(published: TufRepository) -> Iterator[ReleaseServer]:
    with serving(published.folder) as server:
        yield server


@pytest.fixture
def config(published: TufRepository, server: ReleaseServer, tmp_path: Path) -> Config:
    return published.config(tmp_path / "device", server.url, timeout_s=0.5)
