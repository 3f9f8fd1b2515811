"""A device with a release in its slot, and models of known behaviour, for tests of the service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.core import config
from edge_agent.core.config import Config
from edge_agent.inference.engine import LoadedRelease, load
from edge_agent.inference.model import Model
from edge_agent.storage import archive

from tests.support.agent.bundles import bundle
from tests.support.agent.model_files import description

RELEASE = "pump@1.0.0"


def device(folder: Path, **blocks: Mapping[str, Any]) -> Config:
    """Return the configuration of a device that stores everything below `folder` and listens on any free port."""
    paths = {"state": str(folder / "state"), "run": str(folder / "run")}
    serve = {"listen": "127.0.0.1:0", **blocks.pop("serve", {})}
    return config.parse({"device": {"id": "pi-1"}, "paths": paths, "serve": serve, **blocks})


def installed(settings: Config, release: str = RELEASE, **changes: Any) -> LoadedRelease:
    """Build a bundle, unpack it into the slot of `release`, and load it."""
    built = bundle(settings.layout.state / "made" / release, **changes)
    archive.unpack(built.archive, settings.layout.bundle(release))
    return load(settings, release)


class Backend:
    """A model of one line, in place of a file. `run(x)` gives the logits; with `held` it first waits for `go`."""

    dtypes = ("float32", "float32")

    def __init__(self, run: Callable[[np.ndarray], np.ndarray], batch: int | None = None, held: bool = False) -> None:
        self.batch, self._run = batch, run
        self.go = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []
        if not held:
            self.go.set()

    def run(self, inputs: Any) -> list[np.ndarray]:
        self.entered.set()
        assert self.go.wait(30)
        self.sizes.append(len(inputs[0]))
        return [self._run(inputs[0])]


def behaving(like: LoadedRelease, backend: Backend, release: str = "other@1.0.0") -> LoadedRelease:
    """Return `like` under another name, with `backend` as its model."""
    io = description("onnxruntime", list(like.model.shape), len(like.classes))
    return replace(like, release=release, model=Model(backend, io, []))


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test in an event loop, with a time limit."""
    asyncio.run(asyncio.wait_for(main(), 60))
