"""The service with a release that cannot be loaded: loading hangs, or the disk cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from edge_agent.core import state
from edge_agent.core.agent_state import State, Trial
from edge_agent.core.config import Config
from edge_agent.monitoring.health import Condition
from edge_agent.service import supervisor
from edge_agent.service.supervisor import Supervisor

from tests.support.agent.serving import device, installed, run

OLD, NEW = "pump@1.0.0", "pump@1.1.0"
ON_TRIAL = State(current=NEW, previous=OLD, trial=Trial(NEW, "2026-01-01T00:00:00Z"))


def two(folder: Path, **blocks: Any) -> Config:
    """A device with both releases installed; OLD is current."""
    config = device(folder, **blocks)
    for release in (OLD, NEW):
        installed(config, release)
    state.save(config.layout, State(current=OLD))
    return config


def hang(config: Config, release: str) -> Path:
    """Make reading the golden samples block until the returned file is written to."""
    file = config.layout.bundle(release) / "golden/inputs.npy"
    file.unlink()
    os.mkfifo(file)
    return file


def let_go(file: Path) -> None:
    os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))


async def on_trial(config: Config) -> Supervisor:
    """A service that serves OLD and has to load NEW."""
    service = Supervisor(config)
    assert await service.loader.follow(retry=True) is None
    state.save(config.layout, ON_TRIAL)
    return service


def loaded(service: Supervisor) -> str | None:
    return service.engine.loaded.release if service.engine.loaded else None


def test_a_load_that_hangs_does_not_block_a_rollback(tmp_path: Path) -> None:
    config = two(tmp_path)
    file = hang(config, NEW)

    async def main() -> None:
        service = await on_trial(config)
        following = asyncio.create_task(service.loader.follow(retry=True))
        while service.loader.state.current != NEW:
            await asyncio.sleep(0)
        # The reported figures are not those of the previous release.
        assert service.condition() == Condition("release_loading", f"{NEW} is current, but not loaded yet")
        assert (service.judge.status()["answered"], service.judge.status()["action"]) == (0, "wait")
        state.save(config.layout, ON_TRIAL.rolled_back("requested by an operator"))
        assert await following is None
        assert loaded(service) == OLD
        assert service.condition().healthy
        await service.engine.close()

    run(main)
    let_go(file)


def test_a_load_that_exceeds_its_time_limit_is_rolled_back(tmp_path: Path) -> None:
    config = two(tmp_path, selftest={"timeout_s": 0.2})
    hang(config, NEW)

    async def main() -> None:
        service = await on_trial(config)
        assert f"{NEW}: not loaded within 0.2 s" in (await service.loader.follow(retry=True) or "")
        await service.judge.judge()
        on_disk = state.load(config.layout)
        assert on_disk.current == OLD
        assert "not loaded within 0.2 s" in on_disk.bad[NEW]
        assert loaded(service) == OLD
        await service.engine.close()

    run(main)


def test_a_service_ends_while_a_load_hangs(tmp_path: Path) -> None:
    config = two(tmp_path)
    hang(config, NEW)

    async def main() -> None:
        service = await on_trial(config)
        following = asyncio.create_task(service.loader.follow(retry=True))
        while service.loader.state.current != NEW:
            await asyncio.sleep(0)
        service.ending.set()
        await following
        await service.engine.close()

    run(main)  # does not wait for the thread


def test_an_unreadable_file_does_not_make_a_release_bad(tmp_path: Path) -> None:
    config = two(tmp_path, trial={"deadline_s": 3600.0})
    file = config.layout.bundle(NEW) / "targets/onnx-fp32/model.onnx"
    intact = file.rename(file.with_name("away"))
    file.mkdir()  # an OSError also for root

    async def main() -> None:
        service = await on_trial(config)
        assert "Is a directory" in (await service.loader.follow(retry=True) or "")
        await service.judge.judge()
        assert state.load(config.layout) == ON_TRIAL
        assert loaded(service) == OLD
        file.rmdir()
        intact.rename(file)
        assert await service.loader.follow(retry=True) is None
        assert loaded(service) == NEW
        await service.engine.close()

    run(main)


def test_a_release_that_stays_unreadable_is_rolled_back_without_being_bad(tmp_path: Path) -> None:
    config = two(tmp_path, trial={"deadline_s": 0.01})
    file = config.layout.bundle(NEW) / "targets/onnx-fp32/model.onnx"
    file.unlink()
    file.mkdir()

    async def main() -> None:
        service = await on_trial(config)
        await service.loader.follow(retry=True)
        while state.load(config.layout).current != OLD:
            await service.judge.judge()
        on_disk = state.load(config.layout)
        assert (on_disk.current, on_disk.trial, dict(on_disk.bad)) == (OLD, None, {})
        await service.engine.close()

    run(main)


def test_a_service_that_cannot_open_files_keeps_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FOLLOW_S", 0.01)
    config = two(tmp_path)

    async def main() -> None:
        service = await on_trial(config)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            following = asyncio.create_task(service.follow())
            while not any("Too many open files" in event["message"] for event in service.events):
                assert not following.done()
                await asyncio.sleep(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        while loaded(service) != NEW:
            await asyncio.sleep(0)
        assert dict(state.load(config.layout).bad) == {}
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await service.engine.close()

    run(main)
