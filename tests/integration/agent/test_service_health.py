"""What the service says over HTTP about its health, and how it answers when a part of the metrics or report fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from tests.support.agent.cli import Device
from tests.support.agent.releases import NEW, OLD, Releases

pytestmark = pytest.mark.slow
BODY = json.dumps({"inputs": [[[0.1] * 16] * 2]}).encode()
# Makes two functions of psutil fail as soon as a file exists, as on a system whose /proc lacks the figures of memory.
BROKEN_PSUTIL = """
import os, psutil

def failing(function):
    def call(*arguments):
        if os.path.exists({flag!r}):
            raise RuntimeError("no figures of memory")
        return function(*arguments)
    return call

psutil.virtual_memory = failing(psutil.virtual_memory)
psutil.Process.memory_info = failing(psutil.Process.memory_info)
"""


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path)


@pytest.fixture
def device(tmp_path: Path, releases: Releases) -> Iterator[Device]:
    made = Device(tmp_path / "device", releases.repository)
    yield made
    made.remove()


def confirm(device: Device, release: str) -> None:
    for command in (("install", release), ("activate", release, "--no-selftest"), ("confirm", "--force")):
        device.json(*command)


def ask(device: Device, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Send one request to the service, and return the status and the text of the response."""

    async def main() -> tuple[int, str]:
        connector = aiohttp.UnixConnector(str(device.socket))
        sent = {"Content-Type": "application/json", **headers}
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request("POST" if body else "GET", f"http://agent{path}", data=body, headers=sent) as answer,
        ):
            return answer.status, await answer.text()

    return asyncio.run(main())


def series(device: Device, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of one metric by the values of its labels. /metrics must be valid as a whole."""
    status, text = ask(device, "/metrics")
    assert status == 200, text
    samples = [sample for family in parser.text_string_to_metric_families(text) for sample in family.samples]
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}


def health(device: Device) -> tuple[int, int, dict[tuple[str, ...], float]]:
    """Return the status codes of /healthz and /readyz, and the series of the metric of the health."""
    return ask(device, "/healthz")[0], ask(device, "/readyz")[0], series(device, "edge_agent_healthy")


def test_a_confirmed_release_with_wrong_golden_samples_is_not_well_until_it_is_replaced(
    device: Device, releases: Releases
) -> None:
    releases.publish(OLD, wrong_golden=True)
    releases.publish(NEW)
    confirm(device, OLD)

    with device.serving() as served:
        served.ready()
        assert health(device) == (503, 503, {("golden_samples_wrong",): 0.0})
        problem = json.loads(ask(device, "/readyz")[1])
        assert (problem["reason"], "a golden sample differs by" in problem["detail"]) == ("golden_samples_wrong", True)
        assert device.json("status")["service"]["healthy"] is False
        assert ask(device, "/predict", BODY)[0] == 200  # clients decide whether they use the predictions

        device.json("deploy", NEW)
        assert health(device) == (200, 200, {("healthy",): 1.0})


def test_a_device_without_a_release_is_alive_but_not_ready(device: Device) -> None:
    with device.serving() as served:
        served.ready()
        assert health(device) == (200, 503, {("no_release",): 0.0})


def test_a_release_that_does_not_load_is_named_as_the_reason(device: Device, releases: Releases) -> None:
    releases.publish(OLD)
    confirm(device, OLD)
    (device.config.layout.bundle(OLD) / "targets/onnx-fp32/model.onnx").write_bytes(b"")

    with device.serving() as served:
        served.ready()
        assert health(device) == (200, 503, {("release_not_loaded",): 0.0})
        assert "not loaded" in json.loads(ask(device, "/readyz")[1])["detail"]


def test_an_unreadable_state_is_reported_while_the_release_still_serves(device: Device, releases: Releases) -> None:
    releases.publish(OLD)
    confirm(device, OLD)

    with device.serving() as served:
        served.ready()
        content = device.config.layout.state_file.read_bytes()
        device.config.layout.state_file.write_bytes(b"{")
        served.wait_for("state.json")
        assert health(device) == (200, 200, {("state_unreadable",): 0.0})

        device.config.layout.state_file.write_bytes(content)
        device.json("activate", OLD)
        while health(device) != (200, 200, {("healthy",): 1.0}):
            pass


def test_a_part_that_fails_leaves_the_other_metrics_and_the_report(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    releases.publish(OLD)
    confirm(device, OLD)
    flag = tmp_path / "broken"
    (tmp_path / "sitecustomize.py").write_text(BROKEN_PSUTIL.format(flag=str(flag)))

    with device.serving(PYTHONPATH=str(tmp_path)) as served:
        served.ready()
        assert ask(device, "/predict", BODY)[0] == 200
        flag.touch()

        assert list(series(device, "edge_agent_inferences_total").values()) == [1.0]
        assert series(device, "edge_agent_device_memory_bytes") == {}
        assert len(series(device, "edge_agent_device_time_seconds")) == 1
        report: dict[str, Any] = device.json("report")
        assert (report["release"], report["inferences"], report["failed_parts"]) == (OLD, 1, ["memory"])
        assert "memory_bytes" not in report
        assert device.json("status", "--report")["report"]["failed_parts"] == ["memory"]
        assert "failed_parts" in device.call("report").stdout

        failed = {labels for labels, value in series(device, "edge_agent_part_failed").items() if value}
        assert failed == {("metrics", "memory"), ("report", "memory")}
        _, openmetrics = ask(device, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert list(openmetrics_parser.text_string_to_metric_families(openmetrics))
        assert served.log.count("it is left out") == 2  # once for each output

        flag.unlink()
        assert len(series(device, "edge_agent_device_memory_bytes")) == 1
        assert ("metrics", "memory") not in {
            labels for labels, value in series(device, "edge_agent_part_failed").items() if value
        }
