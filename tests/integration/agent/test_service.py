"""The service as a process: boot, switches, trials, no lost requests, restarts by a supervisor."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from edge_agent.core.agent_state import State
from edge_agent.core.errors import BusyError, ServiceError, TrialError

from tests.support.agent.bundles import CRASHING
from tests.support.agent.cli import Device, ServiceProcess
from tests.support.agent.releases import Releases

pytestmark = pytest.mark.slow
OLD, NEW = "pump@1.0.0", "pump@1.1.0"
MANUAL = {"trial": {"confirm": "manual", "starts": 2}}
Make = Callable[..., Device]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A device with OLD confirmed and NEW installed; `new`: how NEW is built."""
    devices: list[Device] = []

    def build(new: dict[str, Any] | None = None, **blocks: Any) -> Device:
        releases = Releases(tmp_path)
        releases.publish(OLD)
        releases.publish(NEW, **(new or {}))
        device = Device(tmp_path / "device", releases.repository, **blocks)
        devices.append(device)
        for command in (("install", OLD), ("activate", OLD), ("confirm", "--force"), ("install", NEW)):
            device.json(*command)
        return device

    yield build
    for device in devices:
        device.remove()


def loaded(device: Device) -> str | None:
    """Return the release that the service reports."""
    service = device.json("status")["service"]
    return service["loaded"] and service["loaded"]["release"]


def test_it_serves_the_current_release_and_ends_on_sigterm(make: Make) -> None:
    device = make()

    with device.serving() as served:
        assert OLD in served.wait_for("READY=1")
        assert loaded(device) == OLD
        assert device.json("report")["release"] == OLD

    assert "event=stopping" in served.log


def test_connections_are_refused_until_a_release_is_loaded(make: Make) -> None:
    """A service that is killed at each start refuses connections; it does not answer 503."""
    device = make()

    served = ServiceProcess(device, "serve.before_swap=kill")

    assert served.ended() == -signal.SIGKILL
    assert not device.socket.exists()


def test_without_a_release_it_runs_and_reports_it(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    device = Device(tmp_path / "device", releases.repository)

    with device.serving() as served:
        assert "no release" in served.wait_for("READY=1")
        result = device.json("status")["service"]
        assert (result["running"], result["loaded"], result["reason"]) == (True, None, "no release is current")
        assert asyncio.run(_get(device, "/healthz")) == 200
        assert asyncio.run(_get(device, "/readyz")) == 503
    device.remove()


def test_an_activated_release_is_loaded_tried_and_confirmed(make: Make) -> None:
    device = make()

    with device.serving() as served:
        served.ready()
        result = device.json("activate", NEW)
        assert result["service"]["loaded"]["release"] == NEW
        served.wait_for(f"confirmed {NEW}")

    on_disk = device.state
    assert on_disk == State(current=NEW, previous=OLD, proven=(OLD,), trusted_time=on_disk.trusted_time)
    assert "event=confirm" in served.log


def test_a_switch_loses_no_request(make: Make) -> None:
    device = make(trial={"confirm": "manual"})

    with device.serving() as served:
        served.ready()
        answers = asyncio.run(_asked_while(device, ("activate", NEW), ("rollback",), ("activate", NEW)))

    releases = [release for status, release in answers]
    assert {status for status, _ in answers} == {200}
    assert set(releases) == {OLD, NEW}


async def _get(device: Device, path: str) -> int:
    connector = aiohttp.UnixConnector(str(device.socket))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://agent{path}") as answer:
        return answer.status


async def _asked_while(device: Device, *commands: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return status and release of all responses to eight clients during the commands and shortly after each."""
    answers: list[tuple[int, str]] = []
    done = asyncio.Event()
    body = json.dumps({"inputs": [[[0.1] * 16] * 2]}).encode()

    async def ask(session: aiohttp.ClientSession) -> None:
        headers = {"Content-Type": "application/json"}
        while not done.is_set():
            async with session.post("http://agent/predict", data=body, headers=headers) as answer:
                answers.append((answer.status, (await answer.json()).get("release")))

    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(device.socket))) as session:
        clients = [asyncio.create_task(ask(session)) for _ in range(8)]
        for command in commands:
            await asyncio.to_thread(device.json, *command)
            before = len(answers)
            while len(answers) < before + 50:
                await asyncio.sleep(0)
        done.set()
        await asyncio.gather(*clients)
    return answers


def test_a_model_that_crashes_the_process_is_rolled_back_after_the_allowed_starts(make: Make) -> None:
    """A supervisor restarts the process, and loading the file crashes it each time."""
    device = make(new={"fault": CRASHING, "targets": ["tflite-int8"]}, **MANUAL)
    ends = []
    first = ServiceProcess(device)
    first.ready()
    result = device.json("activate", NEW, "--no-selftest", code=ServiceError.exit_code)
    assert f"{NEW} is now current and on trial" in result["found"]
    ends.append(first.ended())
    while (served := ServiceProcess(device)) and "ended" in (outcome := _ready_or_ended(served)):
        ends.append(served.ended())

    assert OLD in outcome
    assert loaded(device) == OLD
    assert served.stop() == 0
    assert ends == [-signal.SIGSEGV] * 3  # the running process, and the two starts of a trial
    assert device.state.bad == {NEW: "not confirmed within 2 starts of the service"}
    refused = device.json("activate", NEW, code=TrialError.exit_code)
    assert "not confirmed within 2 starts" in refused["found"]


def _ready_or_ended(served: ServiceProcess) -> str:
    try:
        return served.wait_for("READY=1")
    except TimeoutError:
        return "ended"


def test_an_unconfirmed_trial_ends_at_its_deadline(make: Make) -> None:
    device = make(trial={"confirm": "manual", "deadline_s": 0.5})

    with device.serving() as served:
        served.ready()
        device.json("activate", NEW)
        served.wait_for(f"rolled back from {NEW}")
        assert loaded(device) == OLD

    assert "not confirmed within 0.5 s" in device.state.bad[NEW]


def test_wrong_results_on_trial_are_rolled_back_at_once(make: Make) -> None:
    device = make(new={"wrong_golden": True}, **MANUAL)

    with device.serving() as served:
        served.ready()
        result = device.json("activate", NEW, "--no-selftest", code=TrialError.exit_code)
        assert "a golden sample differs by" in result["found"]
        assert loaded(device) == OLD

    assert device.state.current == OLD
    assert NEW in device.state.bad


def test_a_damaged_slot_is_not_started(make: Make) -> None:
    device = make(**MANUAL)
    device.json("activate", NEW)
    device.json("confirm", "--force")
    model = device.config.layout.bundle(NEW) / "targets/onnx-fp32/model.onnx"
    model.write_bytes(model.read_bytes()[:-1])

    with device.serving() as served:
        served.ready()
        assert loaded(device) == OLD

    assert device.state.current == OLD
    assert device.state.bad == {}  # the disk is at fault, not the release
    assert "event=damaged" in served.log
    assert device.json("verify", code=3)["slots"][1]["whole"] is False
    assert device.json("install", NEW)["changed"] is True
    assert device.json("verify")["slots"][1]["whole"] is True


def test_a_damaged_only_slot_serves_again_once_it_is_installed(make: Make) -> None:
    device = make()
    model = device.config.layout.bundle(OLD) / "targets/onnx-fp32/model.onnx"
    model.write_bytes(b"")

    with device.serving() as served:
        served.ready()
        assert loaded(device) is None
        assert "not loaded" in device.json("status")["service"]["reason"]
        device.json("install", OLD)
        assert loaded(device) == OLD


def test_a_second_service_is_refused(make: Make) -> None:
    device = make()

    with device.serving() as served:
        served.ready()
        second = device.call("serve")
        assert second.returncode == BusyError.exit_code
        assert f"held by process {served.process.pid}" in second.stderr
        assert loaded(device) == OLD


def test_an_address_in_use_is_reported(make: Make) -> None:
    device = make(serve={"metrics_listen": "256.0.0.1:1"})

    done = device.call("serve")

    assert done.returncode == ServiceError.exit_code
    assert "Traceback" not in done.stderr
