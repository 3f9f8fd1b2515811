"""A device with one installed release, for the tests of inference."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_agent.core.config import Config
from edge_agent.inference.loading import LoadedRelease

from tests.support.agent.serving import device, installed


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    return device(tmp_path)


@pytest.fixture
def loaded(settings: Config) -> LoadedRelease:
    return installed(settings)
