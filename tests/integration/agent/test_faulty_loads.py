"""The service where a release cannot be loaded: it hangs, or the device does not let it be read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from edge_agent.core import state
from edge_agent.core.config import Config
from edge_agent.core.state import State, Trial
from edge_agent.service import supervisor
from edge_agent.service.supervisor import Supervisor

from tests.support.agent.serving import device, installed, run

OLD, NEW = "pump@1.0.0", "pump@1.1.0"
ON_TRIAL = State(current=NEW, previous=OLD, trial=Trial(NEW, "2026-01-01T00:00:00Z"))


def two(folder: Path, **blocks: Any) -> Config:
    """A device with both releases in their slots, and OLD current."""
    config = device(folder, **blocks)
    for release in (OLD, NEW):
        installed(config, release)
    state.save(config.layout, State(current=OLD))
    return config


def hang(config: Config, release: str) -> Path:
    """Reading its golden samples does not end until the file that is returned is written to."""
    file = config.layout.bundle(release) / "golden/inputs.npy"
    file.unlink()
    os.mkfifo(file)
    return file


def let_go(file: Path) -> None:
    os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))


async def on_trial(config: Config) -> Supervisor:
    """A service that answers with OLD, and is to change to NEW."""
    service = Supervisor(config)
    assert await service.loader.follow(retry=True) is None
    state.save(config.layout, ON_TRIAL)
    return service


def loaded(service: Supervisor) -> str | None:
    return service.engine.loaded.release if service.engine.loaded else None


def test_a_load_that_hangs_gives_way_to_the_way_back(tmp_path: Path) -> None:
    config = two(tmp_path)
    file = hang(config, NEW)

    async def main() -> None:
        service = await on_trial(config)
        following = asyncio.create_task(service.loader.follow(retry=True))
        while service.loader.state.current != NEW:
            await asyncio.sleep(0)
        # What is said is not what the release before does.
        assert service.healthy() == (False, f"{NEW} is current, but not loaded yet")
        assert (service.judge.status()["answered"], service.judge.status()["action"]) == (0, "wait")
        state.save(config.layout, ON_TRIAL.rolled_back("somebody said so"))
        assert await following is None
        assert loaded(service) == OLD
        assert service.healthy()[0]
        await service.engine.close()

    run(main)
    let_go(file)


def test_a_load_that_does_not_end_in_its_time_goes_back(tmp_path: Path) -> None:
    config = two(tmp_path, selftest={"timeout_s": 0.2})
    hang(config, NEW)

    async def main() -> None:
        service = await on_trial(config)
        assert f"{NEW}: not loaded within 0.2 s" in (await service.loader.follow(retry=True) or "")
        await service.judge.judge()
        known = state.load(config.layout)
        assert known.current == OLD
        assert "not loaded within 0.2 s" in known.bad[NEW]
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

    run(main)  # and nothing waits for the thread


def test_what_the_device_does_not_let_be_read_makes_no_release_bad(tmp_path: Path) -> None:
    config = two(tmp_path, trial={"deadline_s": 3600.0})
    file = config.layout.bundle(NEW) / "targets/onnx-fp32/model.onnx"
    whole = file.rename(file.with_name("away"))
    file.mkdir()  # an OSError that root gets too

    async def main() -> None:
        service = await on_trial(config)
        assert "Is a directory" in (await service.loader.follow(retry=True) or "")
        await service.judge.judge()
        assert state.load(config.layout) == ON_TRIAL
        assert loaded(service) == OLD
        file.rmdir()
        whole.rename(file)
        assert await service.loader.follow(retry=True) is None
        assert loaded(service) == NEW
        await service.engine.close()

    run(main)


def test_what_is_never_readable_is_left_without_blame(tmp_path: Path) -> None:
    config = two(tmp_path, trial={"deadline_s": 0.01})
    file = config.layout.bundle(NEW) / "targets/onnx-fp32/model.onnx"
    file.unlink()
    file.mkdir()

    async def main() -> None:
        service = await on_trial(config)
        await service.loader.follow(retry=True)
        while state.load(config.layout).current != OLD:
            await service.judge.judge()
        known = state.load(config.layout)
        assert (known.current, known.trial, dict(known.bad)) == (OLD, None, {})
        await service.engine.close()

    run(main)


def test_a_service_without_a_file_to_open_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
